"""The comparison: which runs to make, in which order, and what they say."""

import importlib.util
import os
import pathlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_mla import version
from keras_mla.comparison import metrics, sources, training
from keras_mla.comparison.data import Data, Division
from keras_mla.comparison.examine import calibrate
from keras_mla.comparison.log import Log
from keras_mla.comparison.methods import Grid, chosen
from keras_mla.comparison.plan import Plan
from keras_mla.comparison.results import Comparison, Run
from keras_mla.models import registry

_OF_REPORT = ("jinja2", "matplotlib")


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
    callbacks: Sequence[Callable[[], Any]] = (),
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
            or batches of these (`tf.data.Dataset`, `PyDataset`), or
            `(batches, y)`, which spares a look at all batches for the labels.
            In place of training batches, `(function, y)` may hold a function
            that returns the batches for the seed of a run. Or a `Data`.
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
        callbacks: Functions that return new callbacks for each run, such as
            one that returns a `keras.callbacks.LearningRateScheduler`. The
            callbacks must keep no state between epochs, because a killed run
            goes on with new ones. Defaults to none.
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
        ImportError: If a package is missing that the extra `compare` brings.

    Example:
    ```python
    comparison = keras_mla.comparison.compare(
        "products.csv", label="kind", columns={"text": ["title"]}, out="out"
    )
    print(comparison.winner)
    ```
    """
    start = time.monotonic()
    _check_installed(report)
    if columns and modalities:
        raise ValueError("Give `columns` or `modalities`, not both.")
    found = sources.load(
        data,
        modalities=modalities,
        label=label,
        columns=columns,
        id=id,
        root=root,
        division=Division(split, group, folds, split_seed),
    )
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
        "callbacks": [_name(function) for function in callbacks],
        "folds": folds,
        "split": split,
        "group": group,
        "label": str(label) if isinstance(label, str | list) else None,
        "columns": {k: list(v) for k, v in (columns or {}).items()},
        **found.facts,
        "split_seed": split_seed,
        "backend": keras.backend.backend(),
    }
    folder = pathlib.Path(out) if out is not None else _temporary()
    folder.mkdir(parents=True, exist_ok=True)
    plan = Plan(
        found,
        named,
        {title: grid.settings(method) for title, method in named.items()},
        training.Options(
            measure,
            encoders or {},
            width,
            epochs,
            batch_size,
            optimizer,
            tuple(callbacks),
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
    examined = [plan.examined(record, positions) for record in records]
    order = list(named)
    runs = sorted(
        (run for run in examined if run is not None),
        key=lambda run: (order.index(run.method), run.fold, run.seed),
    )
    by_method = {
        method: [r for r in records if r["run"]["method"] == method]
        for method in dict.fromkeys(run.method for run in runs)
    }
    if not runs:
        raise ValueError(
            "No method could predict the test split. "
            + "; ".join(f"{m}: {e}" for m, e in plan.failures.items())
        )
    record_of = {Log.key(record["run"]): record for record in records}

    def model_of(run: Run) -> Any:
        what = {key: getattr(run, key) for key in records[0]["run"]}
        return plan.trained(record_of[Log.key(what)]).model

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
            "settings": {
                **{k: v for k, v in told.items() if k not in found.facts},
                "seeds": list(seeds),
            },
            "versions": _versions(),
            "command": " ".join(sys.argv),
            "seconds": round(time.monotonic() - start, 1),
        },
        folder,
        model_of,
        found.test_groups(),
    )
    if report:
        best = max(by_method[winner], key=lambda record: plan.rank([record]))
        trained = plan.trained(best)
        calibrate(
            trained.model,
            found.folds[best["run"]["fold"]],
            batch_size,
        )
        from keras_mla.comparison.report import write

        # First: a model may have a part that cannot be saved.
        write(result, folder)
        trained.model.save(folder / "model.keras")
    return result


def _check_installed(report: bool) -> None:
    """Raises unless all packages are there, before hours of training."""
    for name in ("sklearn", "scipy", "tqdm", *_OF_REPORT * report):
        if importlib.util.find_spec(name) is None:
            raise ImportError(
                f'It needs {name}: pip install "keras-mla[compare]"'
            )


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
