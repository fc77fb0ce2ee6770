"""What a comparison has found: runs, their predictions, and the winner."""

import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

# Keys of outputs beside those of subsets. No modality has such a name.
CALIBRATED, POOLED = "(calibrated)", "(pooled)"
# What earlier versions wrote.
_OLD_KEYS = {"calibrated": CALIBRATED}


def subset_key(names: Sequence[str]) -> str:
    """Returns the key of a subset of modalities: `"audio+video"`."""
    return "+".join(names)


def subsets(modalities: Sequence[str], most: int = 5) -> list[tuple[str, ...]]:
    """Returns the subsets of modalities that a comparison predicts with.

    All of them for few modalities; beyond `most`, each modality alone, all but
    one, and all. Smaller subsets come first.
    """
    sizes: Sequence[int] = range(1, len(modalities) + 1)
    if len(modalities) > most:
        sizes = (1, len(modalities) - 1, len(modalities))
    return [
        subset
        for size in sizes
        for subset in itertools.combinations(modalities, size)
    ]


@dataclasses.dataclass(frozen=True)
class Predictions:
    """What a trained model predicts for the test split.

    Attributes:
        rows: int array `(n,)`. Positions of the samples among those of the
            comparison, `Comparison.y`.
        outputs: dict of arrays `(n, units)`, float32: logits, or the
            predictions of a regression. A key is a subset of modalities,
            `"audio+video"`: the prediction from these alone, the others
            hidden. The key of all modalities is the method's prediction.
            `"(calibrated)"` is the latter after `calibrate`, `"(pooled)"`
            after `calibrate(method="joint")`, if the method can be calibrated.
            Further keys are those of `Part.patterns`.
        weights: dict of modality to array `(n,)`. Each modality's weight in
            the fusion. Empty if the method has no weights.
    """

    rows: np.ndarray
    outputs: dict[str, np.ndarray]
    weights: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def save(self, path: str | os.PathLike) -> None:
        """Writes an `.npz`, which is whole or not there.

        Args:
            path: str or path. The file, replaced if it is there.
        """
        path = pathlib.Path(path)
        part = path.with_suffix(".partial.npz")
        arrays: dict[str, Any] = {
            f"output {k}": v for k, v in self.outputs.items()
        }
        arrays |= {f"weight {k}": v for k, v in self.weights.items()}
        np.savez_compressed(part, rows=self.rows, **arrays)
        part.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike) -> "Predictions":
        """Reads what `save` has written.

        Args:
            path: str or path. The file.

        Returns:
            The predictions.
        """
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}

        def those(kind: str) -> dict[str, np.ndarray]:
            return {
                name.removeprefix(kind): array
                for name, array in arrays.items()
                if name.startswith(kind)
            }

        outputs = those("output ")
        if CALIBRATED not in outputs:
            outputs = {_OLD_KEYS.get(k, k): v for k, v in outputs.items()}
        return cls(arrays["rows"], outputs, those("weight "))


@dataclasses.dataclass(frozen=True)
class Run:
    """A method trained with its chosen setting and one seed.

    Attributes:
        method: str. Its title, as in tables.
        setting: dict. Learning rate, weight decay and the method's own.
        seed: int.
        fold: int. `0` unless the comparison has folds.
        epochs: dict. The best epoch of each modality's network, or of
            `"all"`, counted from 0.
        seconds: float. How long training took.
        validation: dict of metric name to its value for the fused prediction
            of the validation split, in the best epoch.
        curves: dict of lists, a value for each epoch: what `fit` logs
            (`"loss"`, `"<modality>_loss"`), and, for the validation split,
            `"val_<metric>"` and `"val_<modality>_<metric>"` of the metric that
            the comparison chooses by.
        gap: dict of `"audio / video"` to the distance of the two modalities'
            mean directions among test features.
        worth: dict of modality to its Shapley value on the metric.
        fusion: dict of the fields of the `keras_mla.analysis.FusionReport` on
            validation data, with subsets as keys of `Predictions.outputs`; of
            `"kept"`, the name of what joint calibration kept; of
            `"weight"`, a dict of the pool's weights; and of `"calibrated"`, the
            measures of the fusion with temperatures that were fitted to other
            samples. Empty if the method fuses no logits.
        predictions: `Predictions` for the test split.
        targets: str. What a method that learns from hidden values takes for
            them: `"present"`, further present ones, or `"hidden"`, those that
            presence marks as absent. `""` for other methods.
    """

    method: str
    setting: dict[str, Any]
    seed: int
    fold: int
    epochs: dict[str, int]
    seconds: float
    validation: dict[str, float]
    curves: dict[str, list[float]]
    gap: dict[str, float]
    worth: dict[str, float]
    predictions: Predictions
    targets: str = ""
    fusion: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass
class Comparison:
    """The result of `compare`.

    Attributes:
        name: str. What was compared on: `"digits"`, or a file's name.
        task: str. `"single_label"`, `"multi_label"` or `"regression"`.
        metric: str. Name of the metric that settings, epochs and the winner
            were chosen by, on validation data.
        modalities: tuple of names.
        classes: list of the classes' names, or of the labels' names; `None`
            for regression.
        y: array. Labels of all test samples (of all folds).
        ids: list of str. Names of the test samples.
        presence: bool array `(samples, modalities)`. What test samples have.
        runs: list of `Run`. The final runs, by method, fold and seed.
        winner: str. Title of the method with the best validation score.
        failures: dict of method to its error's message.
        missing: list of str. What a time budget left out, in words.
        notes: list of str. Which final runs methods lack because they diverged
            or failed: `"QMF: training diverged with 1 of 3 seeds"`.
        facts: dict of str. What the report prints at its end: sizes of the
            splits, duplicates, settings, versions, the command.
        folder: path of the results, or `None`.
        model_of: Function that returns the trained model of a `Run`, or
            `None`.
        groups: array `(samples,)`. The group of each test sample, such as a
            person. Samples of a group are not independent. `None` if there
            are no groups.
    """

    name: str
    task: str
    metric: str
    modalities: tuple[str, ...]
    classes: list[Any] | None
    y: np.ndarray
    ids: list[str]
    presence: np.ndarray
    runs: list[Run]
    winner: str
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    folder: pathlib.Path | None = None
    model_of: Callable[[Run], Any] | None = None
    groups: np.ndarray | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        """Titles of the methods that have runs, in their order."""
        return tuple(dict.fromkeys(run.method for run in self.runs))

    @property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds that have runs."""
        return tuple(sorted({run.fold for run in self.runs}))

    @property
    def everything(self) -> str:
        """The key of outputs with all modalities."""
        return subset_key(self.modalities)

    def runs_of(self, method: str) -> list[Run]:
        """Returns a method's runs.

        Args:
            method: str. Title of the method.
        """
        return [run for run in self.runs if run.method == method]

    def outputs_of(
        self, method: str, key: str | None = None
    ) -> list[np.ndarray]:
        """Returns a method's outputs for all test samples, for each seed.

        Only seeds that have run on all folds count.

        Args:
            method: str. Title of the method.
            key: str. A key of `Predictions.outputs`. Defaults to all
                modalities.

        Returns:
            List of arrays `(len(y), units)`, one for each seed. Empty if the
            method has no such outputs.
        """
        key = self.everything if key is None else key
        by_seed: dict[int, list[Predictions]] = {}
        for run in self.runs_of(method):
            if key in run.predictions.outputs:
                by_seed.setdefault(run.seed, []).append(run.predictions)
        found = []
        for parts in by_seed.values():
            rows = np.concatenate([part.rows for part in parts])
            if len(rows) != len(self.y):
                continue
            outputs = np.concatenate([part.outputs[key] for part in parts])
            found.append(outputs[np.argsort(rows)])
        return found

    def scores(
        self, method: str, metric: Any, key: str | None = None
    ) -> list[float]:
        """Returns a metric of a method's runs, each on its test samples.

        Args:
            method: str. Title of the method.
            metric: Function of labels and outputs.
            key: str. A key of `Predictions.outputs`. Defaults to all
                modalities.

        Returns:
            List of floats, as `by_fold` returns them: one for each seed, or
            for each fold. Empty if the method has no such outputs.
        """
        key = self.everything if key is None else key
        runs = [
            run
            for run in self.runs_of(method)
            if key in run.predictions.outputs
        ]
        return self.by_fold(
            runs,
            [
                metric(self.y[p.rows], p.outputs[key])
                for p in (run.predictions for run in runs)
            ],
        )

    def by_fold(
        self, runs: Sequence[Run], values: Sequence[float]
    ) -> list[float]:
        """Returns the values that a mean and a deviation are taken over.

        Runs of a fold have the same test samples, so their values are not
        independent. A comparison with several folds therefore counts folds,
        not runs.

        Args:
            runs: Sequence of `Run`, of one method.
            values: Sequence of floats, one for each run.

        Returns:
            List of floats: `values` if the comparison has one fold; else the
            mean of each fold's values.
        """
        if len(self.folds) < 2:
            return [float(value) for value in values]
        found: dict[int, list[float]] = {}
        for run, value in zip(runs, values, strict=True):
            found.setdefault(run.fold, []).append(value)
        return [float(np.mean(found[fold])) for fold in sorted(found)]

    def targets(self) -> dict[str, str]:
        """Returns `Run.targets` of the methods that have some."""
        return {run.method: run.targets for run in self.runs if run.targets}

    def settings(self) -> Mapping[str, dict]:
        """Returns the setting of each method's first run."""
        return {m: self.runs_of(m)[0].setting for m in self.methods}
