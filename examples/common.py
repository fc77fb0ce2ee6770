"""What the examples share: flags, runs that survive a kill, table and figure.

An example gives its flags, its data and its models, and calls `compare` and
`report`. A run is one method with one learning rate and one seed, in a folder
of its own under `--output_dir`. Killed, the same command goes on after the
last epoch that was complete, and does not repeat runs that have ended. With
data in memory the outcome is the same to the last bit; files that are read
while training come in another order than without the kill.

Only validation data choose: in each run the epoch and, if several are given,
each method's learning rate, by its run with the first seed. The test split is
read by the chosen runs alone, once each, at their end.
"""

import csv
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from absl import flags
from comparison import methods as known_methods
from comparison import tables

import keras_mla
from keras_mla.datasets import pipeline
from keras_mla.datasets.listing import Sample

# So that the flags below count as those of the example.
flags.disclaim_key_flags()
FLAGS = flags.FLAGS
METHODS = ("Concat", "Late fusion", "MLA; no projection", "MLA")
# What does not change the result of a run.
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
    """Defines the flags of every example, with these defaults."""
    define = flags.DEFINE_integer
    flags.DEFINE_string("data_dir", None, "Folder of the data.", required=True)
    flags.DEFINE_string("output_dir", output_dir, "Results and checkpoints.")
    flags.DEFINE_list(
        "methods",
        list(METHODS),
        f"Some of {list(known_methods.METHODS)}; a comma is written ';'.",
    )
    flags.DEFINE_list(
        "learning_rate",
        [learning_rate],
        "Of several, validation chooses one for each method.",
    )
    define("epochs", epochs, "Epochs of each run.", lower_bound=1)
    define("batch_size", batch_size, "Samples in a batch.", lower_bound=1)
    define("seeds", 3, "Runs of each method.", lower_bound=1)


def define_stream_flags() -> None:
    """Defines the flags of examples that read files while they train."""
    kinds = ["raise", "skip"]
    flags.DEFINE_enum("on_error", "raise", kinds, "What to do at bad files.")
    flags.DEFINE_string("cache_dir", None, "Folder for what was decoded.")


def prepare(free: Sequence[str] = ()) -> pathlib.Path:
    """Makes the output folder, and refuses one of runs with other flags.

    Args:
        free: Flags of the example that do not change the result of a run.
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
            f"--output_dir, or delete it. Received: {settings}, there: {there}"
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
    """Returns a `tf.data.Dataset` of batches for each split.

    Args:
        samples: dict of split to samples, the same for all seeds.
        readers: dict of modality to its reader.
        seed: int. Of order and crops.
        presence: dict of split to which modalities its samples have.
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


def compare(
    output: pathlib.Path,
    methods: Sequence[str],
    make_model: Callable[[str], keras.Model],
    make_data: Callable[[int], Mapping[str, Any]],
    optimizer: Callable[[float], Any] = keras.optimizers.Adam,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> dict[str, list[dict]]:
    """Trains each method with each seed.

    Args:
        output: Folder of the runs.
        methods: Names of the methods.
        make_model: Returns a method's model, built and not compiled.
        make_data: Returns `"train"`, `"validation"` and `"test"` for a seed,
            each `(x, y)` or a `tf.data.Dataset` of batches.
        optimizer: Called with the learning rate.
        callbacks: Further callbacks that need no state of their own.

    Returns:
        dict of method to a record for each seed: `"test"`, the test
        accuracies by metric name; `"validation"`, the best accuracy there;
        `"folder"`, which holds `log.csv` and `best.weights.h5`.
    """
    rates = [float(rate) for rate in FLAGS.learning_rate]
    results: dict[str, list[dict]] = {}
    for method in methods:

        def run(
            seed: int, rate: float, test: bool, method: str = method
        ) -> Any:
            slug = "".join(c if c.isalnum() else "_" for c in method)
            folder = output / f"{slug}-{rate:g}-seed{seed}"
            print(f"{method}, learning rate {rate:g}, seed {seed}", flush=True)
            parts = [optimizer(rate), callbacks]
            return _run(
                folder,
                lambda: make_model(method),
                make_data,
                seed,
                test,
                *parts,
            )

        rate = rates[0]
        if len(rates) > 1:
            rate = max(rates, key=lambda r: run(0, r, False)["validation"])
        results[method] = [run(s, rate, True) for s in range(FLAGS.seeds)]
    return results


def _run(
    folder: pathlib.Path,
    make_model: Callable[[], keras.Model],
    make_data: Callable[[int], Mapping[str, Any]],
    seed: int,
    test: bool,
    optimizer: Any,
    callbacks: Sequence[keras.callbacks.Callback],
) -> dict:
    """Trains a model, or goes on with it, or returns what came out."""
    result = folder / "result.json"
    if result.exists():
        record = json.loads(result.read_text())
        if "test" in record or not test:
            return {**record, "folder": folder}
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.clear_session()
    seeds = keras_mla.callbacks.EpochSeed(seed)
    model, data = make_model(), make_data(seed)
    _build(model, data["train"])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    best, log = str(folder / "best.weights.h5"), folder / "log.csv"
    # What a run that was killed had reached.
    reached = history(log).get("val_accuracy", [])
    model.fit(
        **_arguments(data["train"]),
        validation_data=data["validation"],
        epochs=FLAGS.epochs,
        # The backup comes last: an epoch that is in it is in the others too.
        callbacks=[
            seeds,
            *callbacks,
            keras.callbacks.ModelCheckpoint(
                best,
                "val_accuracy",
                mode="max",
                save_best_only=True,
                save_weights_only=True,
                initial_value_threshold=max(reached, default=-1.0),
            ),
            keras.callbacks.CSVLogger(str(log), append=True),
            keras.callbacks.BackupAndRestore(
                str(folder / "backup"),
                double_checkpoint=True,
                delete_checkpoint=False,
            ),
        ],
        # A stream has been shuffled already.
        shuffle=isinstance(data["train"], tuple),
        verbose=1 if sys.stdout.isatty() else 2,
    )
    record: dict = {"validation": max(history(log)["val_accuracy"])}
    if test:
        model.load_weights(best)
        scores = model.evaluate(
            **_arguments(data["test"]), return_dict=True, verbose=0
        )
        record["test"] = {k: v for k, v in scores.items() if "accuracy" in k}
    result.write_text(json.dumps(record))
    return {**record, "folder": folder}


def _build(model: Any, part: Any) -> None:
    """Builds a model, which a backup needs, for inputs like these."""
    x = part[0] if isinstance(part, tuple) else part.element_spec[0]
    if not model.built:
        model.build_for({name: x[name] for name in model.modalities})


def _arguments(part: Any) -> dict[str, Any]:
    if not isinstance(part, tuple):
        return {"x": part}
    return {"x": part[0], "y": part[1], "batch_size": FLAGS.batch_size}


def history(log: pathlib.Path) -> dict[str, list[float]]:
    """Returns a run's `log.csv` as `fit` returns its history."""
    if not log.exists():
        return {}
    with log.open() as file:
        # A run killed between log and backup logs its last epoch again.
        rows = {row["epoch"]: row for row in csv.DictReader(file)}
    return {
        key: [float(row[key]) for row in rows.values()]
        for key in next(iter(rows.values()), {})
    }


def accuracies(
    records: Sequence[dict], modalities: Sequence[str]
) -> dict[str, list[float]]:
    """Returns the records' test accuracies of each modality, and of all."""
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
    """Prints the table; writes it as Markdown and CSV, and a figure.

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
    print(f"\n{text}\nMean ± deviation over {FLAGS.seeds} seeds.")
    (output / "table.md").write_text(text)
    tables.write_csv(output / "table.csv", summary)
    tables.figure(output / "figure.png", columns, summary)
    return text
