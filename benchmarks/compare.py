"""Times the comparison against a plain loop of `fit` and `evaluate`.

Both train the same methods with the same encoders, seeds and epochs on the
digits, in turn and repeatedly; the loop evaluates validation after each epoch,
as `fit` does, and the test split at the end. The ratio is that of the loop's
time to the comparison's: more than 1 if the comparison is faster. It also
predicts with each subset of modalities, which the loop does not.

`--start` times the start of the command beyond `import keras`, against that of
a script that imports pandas, scikit-learn and matplotlib (without Keras, which
imports these itself where they are installed).

```shell
KERAS_BACKEND=jax python benchmarks/compare.py --repeats=3
python benchmarks/compare.py --start
```
"""

import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "jax")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from absl import app, flags  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_list("methods", ["table"], "Methods to train.")
flags.DEFINE_integer("epochs", 20, "Epochs of a run.")
flags.DEFINE_integer("seeds", 2, "Runs of each method.")
flags.DEFINE_integer("repeats", 3, "Timed turns; prints the median.")
flags.DEFINE_boolean("start", False, "Time the start of the command.")


def comparison(folder):
    """Makes the runs by the comparison."""
    from keras_mla.comparison import compare

    compare(
        "digits",
        FLAGS.methods,
        seeds=FLAGS.seeds,
        trials=1,
        epochs=FLAGS.epochs,
        out=folder,
        report=False,
        verbose=0,
    )


def loop():
    """Makes the same runs by hand."""
    import keras
    import numpy as np

    from keras_mla.comparison import encoders, methods, sources

    data = sources.load("digits")
    parts = data.folds[0].parts
    x, y = parts["train"].x, parts["train"].y
    present = np.ones(len(y), bool)
    for method in methods.chosen(FLAGS.methods).values():
        setting = methods.Grid(trials=1).settings(method)[0]
        own = {name: setting[name] for name in method.grid}
        for seed in range(FLAGS.seeds):
            keras.utils.clear_session(free_memory=False)
            keras.utils.set_random_seed(seed)
            made = {n: encoders.make_encoder(a, present) for n, a in x.items()}
            model = method.make(made, data.units, len(y), own)
            model.compile(
                optimizer=keras.optimizers.AdamW(
                    setting["learning_rate"],
                    weight_decay=setting["weight_decay"],
                ),
                loss=keras.losses.SparseCategoricalCrossentropy(
                    from_logits=True
                ),
                metrics=["accuracy"],
            )
            held_out = parts["validation"].x, parts["validation"].y
            model.fit(
                {**x, "sample_id": np.arange(len(y))},
                y,
                validation_data=held_out,
                batch_size=64,
                epochs=FLAGS.epochs,
                verbose=0,
            )
            model.evaluate(
                parts["test"].x, parts["test"].y, batch_size=64, verbose=0
            )


def timed(function, *arguments):
    """Returns the seconds of a call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def starts():
    """Prints how long the command takes to start, beyond `import keras`."""
    scripts = {
        "the command": (
            "import keras",
            "from keras_mla.comparison import command; command.run(['--help'])",
        ),
        "the script": (
            "",
            "import pandas, sklearn.model_selection, sklearn.metrics, "
            "matplotlib.pyplot",
        ),
    }
    times = {name: [] for name in scripts}
    for _ in range(FLAGS.repeats + 1):
        for name, (before, timed_code) in scripts.items():
            # The clock is read in the process: `import keras` takes longer,
            # and varies by more, than what is timed.
            code = (
                f"import atexit, sys, time; {before}\n"
                "start = time.perf_counter()\n"
                "atexit.register(lambda: print(time.perf_counter() - start, "
                f"file=sys.stderr))\n{timed_code}"
            )
            done = subprocess.run(
                [sys.executable, "-c", code],
                check=True,
                cwd=ROOT,
                capture_output=True,
                text=True,
            )
            times[name].append(float(done.stderr.split()[-1]))
    medians = {name: statistics.median(t[1:]) for name, t in times.items()}
    for name, seconds in medians.items():
        print(f"{name:15s}{seconds:7.2f} s")
    ratio = medians["the command"] / medians["the script"]
    print(f"beyond `import keras`, command / script: {ratio:.2f}")


def main(_):
    """Prints the times and their ratio."""
    if FLAGS.start:
        starts()
        return
    ratios, runs = [], None
    for turn in range(FLAGS.repeats):
        with tempfile.TemporaryDirectory() as folder:
            calls = [(comparison, folder), (loop,)]
            order = (0, 1) if turn % 2 else (1, 0)
            seconds = {i: timed(*calls[i]) for i in order}
            path = pathlib.Path(folder) / "runs.jsonl"
            runs = len(path.read_text().splitlines()) - 1
        ratios.append(seconds[1] / seconds[0])
        rates = {i: 60 * runs / s for i, s in seconds.items()}
        print(
            f"comparison {rates[0]:.1f} runs/min, loop {rates[1]:.1f}: "
            f"{ratios[-1]:.2f}",
            flush=True,
        )
    print(f"Median of {len(ratios)}: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    app.run(main)
