"""Trains each method with each seed, in runs that survive a kill.

A run is one method with one learning rate and one seed, in a folder of its
own. After a kill, the same command continues after the last complete epoch and
does not repeat runs that have ended. With data in memory, the outcome is the
same to the last bit. Files that are read while training come in another order
than without the kill.

Only validation data choose: the epoch of each run and, if several are given,
each method's learning rate, by its run with the first seed. Only the chosen
runs read the test split, once each, at their end.
"""

import csv
import json
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
from absl import flags

import keras_mla

FLAGS = flags.FLAGS


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
            return _run(
                folder,
                lambda: make_model(method),
                make_data,
                lambda: optimizer(rate),
                callbacks,
                seed,
                test,
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
    make_optimizer: Callable[[], Any],
    callbacks: Sequence[keras.callbacks.Callback],
    seed: int,
    test: bool,
) -> dict:
    """Trains a model, or continues to, or returns the record of its run."""
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
    model.compile(make_optimizer(), loss, metrics=["accuracy"])
    best, log = str(folder / "best.weights.h5"), folder / "log.csv"
    # The accuracies that a killed run had reached.
    reached = history(log).get("val_accuracy", [])
    model.fit(
        **_arguments(data["train"]),
        validation_data=data["validation"],
        epochs=FLAGS.epochs,
        # The backup comes last: its epochs are in the log and checkpoint too.
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
        # A stream is shuffled already.
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
    if test:
        shutil.rmtree(folder / "backup")
    return {**record, "folder": folder}


def _build(model: Any, part: Any) -> None:
    """Builds a model for inputs like these, as a backup needs."""
    if isinstance(part, keras.utils.PyDataset):
        part = part[0]
    x = part[0] if isinstance(part, tuple) else part.element_spec[0]
    if not model.built:
        model.build_for({name: x[name] for name in model.modalities})


def _arguments(part: Any) -> dict[str, Any]:
    if not isinstance(part, tuple):
        return {"x": part}
    return {"x": part[0], "y": part[1], "batch_size": FLAGS.batch_size}


def history(log: pathlib.Path) -> dict[str, list[float]]:
    """Reads a run's `log.csv` into a dict, like the history of `fit`."""
    if not log.exists():
        return {}
    with log.open() as file:
        # After a kill between log and backup, an epoch is logged twice.
        rows = {row["epoch"]: row for row in csv.DictReader(file)}
    return {
        key: [float(row[key]) for row in rows.values()]
        for key in next(iter(rows.values()), {})
    }
