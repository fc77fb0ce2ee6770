"""Shared parts of the scripts: flags, methods, streams of files, the table.

`runs.py` trains the models and resumes runs.
"""

import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from absl import flags
from comparison import methods as known_methods
from comparison import tables

from keras_mla.datasets import pipeline
from keras_mla.datasets.listing import Sample

# The flags below then count as flags of the script.
flags.disclaim_key_flags()
FLAGS = flags.FLAGS
METHODS = ("Concat", "Late fusion", "MLA; no projection", "MLA")
# Flags that do not change the result of a run.
FREE = (
    "output_dir",
    "methods",
    "seeds",
    "learning_rate",
    "cache_dir",
    "on_error",
)
SPLITS = ("train", "validation", "test")


def define_flags(
    output_dir: str, epochs: int, batch_size: int, learning_rate: str
) -> None:
    """Defines the flags of every script, with these defaults."""
    define = flags.DEFINE_integer
    flags.DEFINE_string("data_dir", None, "Folder of the data.", required=True)
    flags.DEFINE_string("output_dir", output_dir, "Results and checkpoints.")
    flags.DEFINE_list(
        "methods",
        list(METHODS),
        f"Some of {list(known_methods.METHODS)}; write ';' for a comma.",
    )
    flags.DEFINE_list(
        "learning_rate",
        [learning_rate],
        "Learning rates; validation chooses one of several for each method.",
    )
    define("epochs", epochs, "Epochs of each run.", lower_bound=1)
    define("batch_size", batch_size, "Samples in a batch.", lower_bound=1)
    define("seeds", 3, "Runs of each method.", lower_bound=1)


def define_stream_flags() -> None:
    """Defines the flags of scripts that read files while they train."""
    kinds = ["raise", "skip"]
    flags.DEFINE_enum("on_error", "raise", kinds, "What to do with bad files.")
    flags.DEFINE_string("cache_dir", None, "Folder for decoded files.")


def prepare(free: Sequence[str] = ()) -> pathlib.Path:
    """Makes the output folder; refuses one that holds runs with other flags.

    Args:
        free: Flags of the script that do not change the result of a run.
    """
    output = pathlib.Path(FLAGS.output_dir).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    used = FLAGS.get_key_flags_for_module(sys.argv[0])
    free = (*FREE, *free)
    settings = {f.name: f.value for f in used if f.name not in free}
    settings["backend"] = keras.backend.backend()
    path = output / "settings.json"
    there = path.read_text() if any(output.rglob("log.csv")) else None
    if there and json.loads(there) != settings:
        raise ValueError(
            f"{output} holds runs with other flags. Choose another "
            "--output_dir, or delete this one. "
            f"Received: {settings}, there: {there}"
        )
    path.write_text(json.dumps(settings))
    return output


def method_names() -> list[str]:
    """Returns the methods that `--methods` names."""
    names = [name.strip().replace(";", ",") for name in FLAGS.methods]
    return list(known_methods.named(names))


def make_method(name: str, encoders: dict, classes: int) -> Any:
    """Returns the model of a method by name, not compiled."""
    return known_methods.METHODS[name].make(encoders, classes, None)


def streams(
    samples: Mapping[str, Sequence[Sample]],
    readers: Mapping[str, pipeline.Reader],
    seed: int,
    presence: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the batches of each split, as `pipeline.build` gives them.

    Args:
        samples: dict of split to samples, the same for all seeds.
        readers: dict of modality to its reader.
        seed: int. Seed of the order and of crops.
        presence: dict of split to the presence of its samples.
    """
    return {
        split: pipeline.build(
            part,
            readers,
            batch_size=FLAGS.batch_size,
            training=split == "train",
            seed=seed,
            cache_dir=FLAGS.cache_dir,
            on_error=FLAGS.on_error,
            presence=presence[split] if presence else None,
        )
        for split, part in samples.items()
    }


def accuracies(
    records: Sequence[dict], modalities: Sequence[str]
) -> dict[str, list[float]]:
    """Returns the test accuracies of each modality and of all together."""
    keys = {**{m: f"{m}_accuracy" for m in modalities}, "all": "accuracy"}
    return {
        part: [record["test"][key] for record in records]
        for part, key in keys.items()
    }


def report(
    output: pathlib.Path,
    values: Mapping[str, Mapping[str, Sequence[float]]],
    title: str,
    transposed: bool = False,
) -> str:
    """Prints the table; writes it as Markdown and CSV, and draws a figure.

    Args:
        output: Where to write `table.md`, `table.csv` and `figure.png`.
        values: dict of method to dict of column to test accuracies, one for
            each seed.
        title: The first cell.
        transposed: bool. Whether methods are the columns of the table.

    Returns:
        The table in Markdown.
    """
    columns = list(next(iter(values.values())))
    summary: dict[str, dict] = {
        method: {
            "seeds": len(parts[columns[0]]),
            **{
                part: {"accuracy": tables.mean_and_deviation(parts[part])}
                for part in columns
            },
        }
        for method, parts in values.items()
    }
    rows = [
        [method, *(tables.cell(parts[c], "accuracy", 100, 1) for c in columns)]
        for method, parts in summary.items()
    ]
    rows.insert(0, [title, *columns])
    if transposed:
        rows = [list(row) for row in zip(*rows, strict=True)]
    rows.insert(1, ["---"] * len(rows[0]))
    text = "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"
    seeds = next(iter(summary.values()))["seeds"]
    print(f"\n{text}\nMean ± deviation over {seeds} seeds.")
    (output / "table.md").write_text(text)
    tables.write_csv(output / "table.csv", summary)
    tables.figure(output / "figure.png", columns, summary)
    return text
