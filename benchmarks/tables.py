"""Reads and learns from a large table, beside pandas and scikit-learn by hand.

A table of numbers, categories and texts is read from CSV, checked, split into
80, 10 and 10 % with equal classes, and its training rows are learned from:
means and deviations, categories, a vocabulary. By hand that is `read_csv`,
`train_test_split`, `StandardScaler`, `OneHotEncoder` and `CountVectorizer`.
Each run is a process of its own, in turn. The ratio is ours over theirs: below
1.0 ours is faster.

```shell
python benchmarks/tables.py --rows=100000 --repeats=7
```
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from absl import app, flags  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_integer("rows", 100_000, "Rows of the table.")
flags.DEFINE_integer("words", 20, "Words of a text.")
flags.DEFINE_integer("repeats", 7, "Runs of each side; prints the median.")
flags.DEFINE_string("side", "", "The side that this process runs.")
flags.DEFINE_string("table", "", "The file that this process reads.")

NUMBERS = [f"number{i}" for i in range(8)]
CATEGORIES = [f"category{i}" for i in range(4)]


def write_table(path):
    """Writes the table: texts of Zipf's words, some empty cells."""
    import pandas as pd

    rng = np.random.default_rng(0)
    rows = FLAGS.rows
    columns = {"id": [f"row{i}" for i in range(rows)]}
    for name in NUMBERS:
        values = rng.normal(size=rows).round(4)
        columns[name] = np.where(rng.random(rows) < 0.05, np.nan, values)
    for i, name in enumerate(CATEGORIES):
        words = np.array([f"{name}_{j}" for j in range(5 * 3**i)], object)
        columns[name] = rng.choice(words, rows)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(
        [
            "".join(rng.choice(letters, rng.integers(2, 10)))
            for _ in range(20000)
        ]
    )
    chance = 1 / np.arange(1, len(words) + 1)
    chosen = rng.choice(words, (rows, FLAGS.words), p=chance / chance.sum())
    columns["text"] = [" ".join(row) for row in chosen]
    columns["label"] = rng.choice([f"class{i}" for i in range(10)], rows)
    pd.DataFrame(columns).to_csv(path, index=False)


def ours(path):
    """Reads, checks, splits and learns with `Table`."""
    from keras_mla.datasets import Table, read_table

    start = time.perf_counter()
    rows = read_table(path)
    table = Table(
        {"numbers": NUMBERS, "categories": CATEGORIES, "text": "text"},
        label="label",
        id="id",
    )
    parts = table.split(rows)
    table.adapt(parts["train"], verbose=0)
    return time.perf_counter() - start


def by_hand(path):
    """Does the same with pandas and scikit-learn."""
    import pandas as pd
    from sklearn.feature_extraction.text import CountVectorizer
    from sklearn.model_selection import train_test_split
    from sklearn.preprocessing import (
        LabelEncoder,
        OneHotEncoder,
        StandardScaler,
    )

    start = time.perf_counter()
    rows = pd.read_csv(path)
    assert rows["id"].is_unique and rows["label"].notna().all()
    train, rest = train_test_split(
        rows, test_size=0.2, stratify=rows["label"], random_state=0
    )
    train_test_split(
        rest, test_size=0.5, stratify=rest["label"], random_state=0
    )
    StandardScaler().fit(train[NUMBERS])
    OneHotEncoder(handle_unknown="ignore").fit(train[CATEGORIES])
    CountVectorizer(max_features=8000).fit(train["text"])
    LabelEncoder().fit(train["label"])
    return time.perf_counter() - start


def run(side, path):
    """Runs one side in a process of its own."""
    command = [sys.executable, __file__, f"--side={side}", f"--table={path}"]
    printed = subprocess.check_output(command, env=os.environ)
    return json.loads(printed.splitlines()[-1])


def main(_):
    """Prints both sides and their ratio."""
    if FLAGS.side:
        job = {"ours": ours, "by_hand": by_hand}[FLAGS.side]
        seconds = job(FLAGS.table)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        print(json.dumps({"seconds": seconds, "mib": peak / 1024}))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "table.csv"
        write_table(path)
        print(f"{FLAGS.rows:,} rows, {path.stat().st_size / 2**20:.0f} MiB")
        found = {"ours": [], "by_hand": []}
        for _ in range(FLAGS.repeats):
            for side, runs in found.items():
                runs.append(run(side, path))
    medians = {}
    for side, runs in found.items():
        medians[side] = statistics.median(r["seconds"] for r in runs)
        peak = max(r["mib"] for r in runs)
        print(f"{side:8} {medians[side]:6.2f} s   peak {peak:5.0f} MiB")
    print(f"ratio    {medians['ours'] / medians['by_hand']:6.2f}")


if __name__ == "__main__":
    app.run(main)
