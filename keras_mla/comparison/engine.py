"""The comparison: which runs to make, in which order, and what they say."""

import dataclasses
import json
import os
import pathlib
import re
import sys
import textwrap
import time
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla import version
from keras_mla.comparison import data as data_lib
from keras_mla.comparison import metrics, training
from keras_mla.comparison.data import Data
from keras_mla.comparison.log import Log
from keras_mla.comparison.methods import Grid, chosen
from keras_mla.comparison.results import Comparison, Predictions, Run
from keras_mla.models import registry


@dataclasses.dataclass
class _Plan:
    """What is compared, and where runs are kept."""

    data: Data
    methods: dict[str, registry.Method]
    settings: dict[str, list[dict]]
    options: training.Options
    log: Log
    folder: pathlib.Path
    seeds: Sequence[int]
    trial_seeds: int
    deadline: float
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    failures: dict[str, str] = dataclasses.field(default_factory=dict)
    diverged: dict[str, str] = dataclasses.field(default_factory=dict)
    missing: list[str] = dataclasses.field(default_factory=list)
    counted: set[str] = dataclasses.field(default_factory=set)
    bar: Any = None

    # === One run ===

    def run(self, method: str, fold: int, setting: dict, seed: int) -> Any:
        """Returns a run's record, or `None` if it failed or found no time."""
        what = {
            "method": method,
            "fold": fold,
            "setting": setting,
            "seed": seed,
        }
        if self.bar is not None and Log.key(what) not in self.counted:
            self.counted.add(Log.key(what))
            self.bar.update(len(self.counted) - self.bar.n - 1)
            self.bar.set_description(method)
        record = self.log.get(what)
        if record is None and method in self.failures:
            return None
        if record is None and self._is_late(method):
            self.missing.append(
                f"{method}: seed {seed}, setting {_short(setting)}"
                + (f", fold {fold}" if len(self.data.folds) > 1 else "")
            )
            return None
        if record is None:
            record = self._make(what)
        if record is not None:
            self.seconds.setdefault(method, []).append(record["seconds"])
        return record

    def _make(self, what: dict) -> dict | None:
        method, path = what["method"], self.path(what)
        try:
            trained = training.train(
                self.methods[method],
                self.data,
                self.data.folds[what["fold"]],
                what["setting"],
                what["seed"],
                self.options,
                path.with_suffix(".backup"),
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            trained.model.save_weights(path)
        except FloatingPointError as error:
            # Another setting may do better.
            self.diverged[method] = f"{error} {_short(what['setting'])}"
            return None
        except Exception as error:
            self.failures[method] = _told(error)
            with (self.folder / "errors.txt").open("a") as file:
                file.write(f"{json.dumps(what)}\n{traceback.format_exc()}\n")
            return None
        record = {
            "epochs": trained.epochs,
            "seconds": trained.seconds,
            "validation": trained.validation,
            "curves": trained.curves,
        }
        return self.log.add(what, record)

    def path(self, what: dict) -> pathlib.Path:
        """Returns where the weights of a run are kept."""
        name = f"{_slug(what['method'])}-{_digest(what)}.weights.h5"
        return self.folder / "runs" / name

    def _is_late(self, method: str) -> bool:
        """Returns whether the budget ends before a run would."""
        known = self.seconds.get(method) or [
            s for times in self.seconds.values() for s in times
        ]
        typical = float(np.median(known)) if known else 0.0
        return time.monotonic() + typical > self.deadline

    # === All runs ===

    def trials(self) -> dict[tuple[str, int], dict]:
        """Tries the settings, in rounds; returns each method's best one."""
        tried: dict[tuple[str, int], list[tuple[dict, list[dict]]]] = {}
        most = max(map(len, self.settings.values()), default=0)
        first = self.seeds[: self.trial_seeds]
        for index in range(most):
            for method, settings in self.settings.items():
                if index >= len(settings):
                    continue
                for fold in range(len(self.data.folds)):
                    seeds = first if len(settings) > 1 else first[:1]
                    records = [
                        self.run(method, fold, settings[index], seed)
                        for seed in seeds
                    ]
                    found = [r for r in records if r is not None]
                    if not found:
                        continue
                    known = tried.setdefault((method, fold), [])
                    known.append((settings[index], found))
                    self._drop_all_but_best(known)
        return {key: self._best(known)[0] for key, known in tried.items()}

    def _best(self, tried: list[tuple[dict, list[dict]]]) -> tuple:
        return max(tried, key=lambda pair: self.rank(pair[1]))

    def rank(self, records: Sequence[dict]) -> tuple[float, float]:
        """Returns what is larger for better records."""
        metric = self.options.metric
        found = [record["validation"] for record in records]
        sign = 1 if metric.higher_is_better else -1
        score = sign * float(np.mean([v[metric.name] for v in found]))
        return score, -float(np.mean([v.get("log_loss", 0.0) for v in found]))

    def _drop_all_but_best(self, tried: list) -> None:
        """Deletes weights that no final run needs."""
        best = self._best(tried)
        for pair in tried:
            for record in pair[1] if pair is not best else ():
                self.path(record["run"]).unlink(missing_ok=True)

    def finals(self, best: Mapping[tuple[str, int], dict]) -> list[dict]:
        """Trains the chosen settings with all seeds."""
        records = []
        for seed in self.seeds:
            for (method, fold), setting in best.items():
                record = self.run(method, fold, setting, seed)
                if record is not None:
                    records.append(record)
        return records

    def trained(self, record: dict) -> training.Trained:
        """Returns the model of a final run."""
        what = record["run"]
        fold = self.data.folds[what["fold"]]
        method = self.methods[what["method"]]
        arguments = (method, self.data, fold, what["setting"], what["seed"])
        path = self.path(what)
        if not path.exists() or method.teacher is not None:
            # Deleted by hand, or a teacher is a part of it: once more.
            return training.train(*arguments, self.options)
        keras.utils.clear_session(free_memory=False)
        model = training.make_model(*arguments, self.options)
        training.build(model, self.data, fold.parts["train"])
        model.load_weights(path)
        return training.Trained(
            model,
            record["epochs"],
            record["validation"],
            record["curves"],
            record["seconds"],
        )

    def examined(self, record: dict, positions: np.ndarray) -> Run | None:
        """Returns a final run with its predictions for the test split."""
        what = record["run"]
        path = self.path(what).with_suffix("").with_suffix(".npz")
        notes = path.with_suffix(".json")
        if not notes.exists():
            try:
                found = training.examine(
                    self.trained(record),
                    self.data,
                    self.data.folds[what["fold"]],
                    self.options,
                )
            except Exception as error:
                self.failures[what["method"]] = _told(error)
                return None
            predictions = found.pop("predictions")
            rows = positions[predictions.rows]
            dataclasses.replace(predictions, rows=rows).save(path)
            part = notes.with_suffix(".partial")
            part.write_text(json.dumps(found))
            part.replace(notes)
        return Run(
            **what,
            **{key: record[key] for key in _KEPT},
            **json.loads(notes.read_text()),
            predictions=Predictions.load(path),
        )


_KEPT = ("epochs", "seconds", "validation", "curves")


def compare(
    data: Any,
    methods: Any = "table",
    *,
    modalities: Any = None,
    label: Any = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    id: str | None = None,
    split: str | None = None,
    group: str | None = None,
    folds: int | None = None,
    root: str | None = None,
    encoders: Mapping[str, Any] | None = None,
    width: int = 64,
    metric: str | None = None,
    seeds: int | Sequence[int] = 3,
    trials: int = 6,
    trial_seeds: int = 1,
    epochs: int = 30,
    batch_size: int = 64,
    optimizer: Any = "adamw",
    learning_rate: Sequence[float] | None = None,
    weight_decay: Sequence[float] = (1e-4, 1e-2),
    time_budget: float | None = None,
    split_seed: int = 0,
    out: str | os.PathLike | None = None,
    report: bool = True,
    verbose: int = 1,
) -> Comparison:
    """Compares methods on data, with one budget for all.

    Every method tries the same number of settings. Validation data choose the
    setting, the epoch of each run, and the winner. The chosen setting trains
    once for each seed, and these runs alone read the test split. With `out`,
    each run is kept when it ends: the same call goes on where a killed one
    was.

    Args:
        data: `"digits"`; the path of an `.npz` (an array for each modality,
            `y`, and optionally `split`, `id`, `group` and `presence`) or of a
            table (CSV, Parquet); a DataFrame; `(x, y)` with a dict of arrays;
            or a dict of `"train"`, `"validation"` and `"test"`, each `(x, y)`
            or batches of these (`tf.data.Dataset`, `PyDataset`).
        methods: Names, classes or `registry.Method`s. `"table"` are the
            methods of the paper's Table 1, `"ablation"` those of Table 3.
            Defaults to `"table"`.
        modalities: Names of the arrays to use; for a table the dict that
            `datasets.Table` takes. Defaults to all.
        label: str, list of str or `table.Label`. A table's column of labels.
        columns: dict of `"image"`, `"audio"`, `"video"`, `"text"`,
            `"numeric"` and `"categorical"` to lists of a table's columns.
            Columns of numbers and categories are one modality, `"table"`;
            each other column is one. Defaults to all columns, as they look.
        id: str. A table's column of names.
        split: str. The column, or array, that names each sample's split.
        group: str. The column, or array, of groups: no group is in two splits.
        folds: int. Number of folds, in place of one split. Defaults to `None`.
        root: str. The folder of the files that a table names. Defaults to the
            table's own.
        encoders: dict of modality to a kind of small encoder (`"mlp"`,
            `"conv1d"`, `"conv2d"`, `"tokens"`, `"video"`), or to a function
            that returns a new encoder. Defaults to the kind that suits.
        width: int. Number of features of a small encoder. Defaults to `64`.
        metric: str. What is chosen by. Defaults to `"accuracy"`, `"map"` for
            several labels, `"mae"` for regression.
        seeds: int, a number of seeds, or the seeds. Defaults to `3`.
        trials: int. Settings of each method. Defaults to `6`.
        trial_seeds: int. Seeds of each setting. Defaults to `1`.
        epochs: int. Epochs of each run. Defaults to `30`.
        batch_size: int. Defaults to `64`.
        optimizer: `"adamw"`, `"sgd"`, or a function of learning rate and
            weight decay. Defaults to `"adamw"`.
        learning_rate: Values to choose from. Defaults to 3e-4, 1e-3, 3e-3
            (SGD: 1e-2, 3e-2, 1e-1).
        weight_decay: Values to choose from. Defaults to 1e-4 and 1e-2.
        time_budget: float. Seconds after which no run begins. Each method
            runs once first, then settings, then seeds. Defaults to no limit.
        split_seed: int. Seed of random splits. Defaults to `0`.
        out: path. Folder of the results. Defaults to a temporary folder.
        report: bool. Whether to write `report.html`, the tables and
            `model.keras`. Defaults to `True`.
        verbose: int. `1` shows progress. Defaults to `1`.

    Returns:
        `Comparison`.

    Raises:
        ValueError: If data or arguments do not fit, or all methods fail.

    Example:
    ```python
    comparison = keras_mla.comparison.compare(
        "products.csv", label="kind", columns={"text": ["title"]}, out="out"
    )
    print(comparison.winner)
    ```
    """
    start = time.monotonic()
    found = data_lib.load(
        data,
        modalities=modalities,
        label=label,
        columns=columns,
        id=id,
        split=split,
        group=group,
        folds=folds,
        root=root,
        seed=split_seed,
    )
    if columns and modalities:
        raise ValueError("Give `columns` or `modalities`, not both.")
    named, unfit = _fitting(chosen(methods), found)
    measure = metrics.named(found.task, metric)
    rates = learning_rate or (
        (1e-2, 3e-2, 1e-1) if optimizer == "sgd" else (3e-4, 1e-3, 3e-3)
    )
    grid = Grid(tuple(rates), tuple(weight_decay), trials)
    seeds = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    kept = {"learning_rate": list(rates), "weight_decay": list(weight_decay)}
    told = {
        "data": found.name,
        "modalities": list(found.modalities),
        "metric": measure.name,
        "encoders": {
            name: given if isinstance(given, str) else _name(given)
            for name, given in (encoders or {}).items()
        },
        "width": width,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimizer": optimizer
        if isinstance(optimizer, str)
        else _name(optimizer),
        "trials": trials,
        "trial_seeds": trial_seeds,
        **kept,
        "folds": folds,
        "samples": found.facts.get("samples"),
        "split_seed": split_seed,
        "backend": keras.backend.backend(),
    }
    folder = pathlib.Path(out) if out is not None else _temporary()
    folder.mkdir(parents=True, exist_ok=True)
    plan = _Plan(
        found,
        named,
        {title: grid.settings(method) for title, method in named.items()},
        training.Options(
            measure, encoders or {}, width, epochs, batch_size, optimizer
        ),
        Log(folder / "runs.jsonl", told),
        folder,
        seeds,
        trial_seeds,
        start + time_budget if time_budget is not None else float("inf"),
        failures=dict(unfit),
    )
    from tqdm import tqdm

    total = len(found.folds) * sum(
        len(settings) * min(trial_seeds, len(seeds))
        + len(seeds)
        - min(trial_seeds, len(seeds))
        for settings in plan.settings.values()
    )
    with tqdm(total=total, unit="run", disable=not verbose) as plan.bar:
        records = plan.finals(plan.trials())
        plan.bar.update(plan.bar.total - plan.bar.n)
    if not records:
        raise ValueError(
            "No method could be trained. "
            + "; ".join(
                f"{m}: {e}"
                for m, e in {**plan.diverged, **plan.failures}.items()
            )
        )
    positions, y, ids, presence = found.test()
    runs = [plan.examined(record, positions) for record in records]
    order = list(named)
    runs = sorted(
        (run for run in runs if run is not None),
        key=lambda run: (order.index(run.method), run.fold, run.seed),
    )
    by_method = {
        method: [r for r in records if r["run"]["method"] == method]
        for method in {run.method for run in runs}
    }
    winner = max(by_method, key=lambda m: plan.rank(by_method[m]))
    for method, message in plan.diverged.items():
        if method not in by_method:
            plan.failures[method] = message
    result = Comparison(
        found.name,
        found.task,
        measure.name,
        found.modalities,
        found.classes,
        y,
        ids,
        presence,
        runs,
        winner,
        plan.failures,
        plan.missing,
        {
            **found.facts,
            "settings": {**told, "seeds": list(seeds)},
            "versions": _versions(),
            "command": " ".join(sys.argv),
            "seconds": round(time.monotonic() - start, 1),
        },
        folder,
    )
    if report:
        best = max(by_method[winner], key=lambda record: plan.rank([record]))
        trained = plan.trained(best)
        training.calibrate(
            trained.model,
            found.folds[best["run"]["fold"]],
            batch_size,
        )
        trained.model.save(folder / "model.keras")
        from keras_mla.comparison.report import write

        write(result, folder)
    return result


def _fitting(
    methods: dict[str, registry.Method], data: Data
) -> tuple[dict[str, registry.Method], dict[str, str]]:
    """Returns the methods that suit data, and why the others do not."""
    unfit = {}
    for title, method in methods.items():
        if data.task not in method.tasks:
            tasks = " and ".join(method.tasks)
            unfit[title] = f"It is for {tasks}; the labels are {data.task}."
        elif len(data.modalities) < method.fewest_modalities:
            unfit[title] = (
                f"It needs at least {method.fewest_modalities} modalities. "
                f"There are {len(data.modalities)}."
            )
    return {t: m for t, m in methods.items() if t not in unfit}, unfit


def _told(error: Exception) -> str:
    """Returns an error in one line, without the colours of a terminal."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", f"{type(error).__name__}: {error}")
    return textwrap.shorten(text, 500)


def _short(setting: dict) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in setting.items())


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)


def _digest(what: dict) -> str:
    import hashlib

    return hashlib.blake2b(Log.key(what).encode(), digest_size=6).hexdigest()


def _name(function: Any) -> str:
    return getattr(function, "__qualname__", type(function).__name__)


def _temporary() -> pathlib.Path:
    import tempfile

    return pathlib.Path(tempfile.mkdtemp(prefix="keras_mla_"))


def _versions() -> dict[str, str]:
    import importlib.metadata

    names = ("keras", keras.backend.backend(), "numpy", "scikit-learn")
    found = {"keras_mla": version.__version__}
    return found | {n: importlib.metadata.version(n) for n in names}
