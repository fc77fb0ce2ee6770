"""The comparison: which runs to make, in which order, and what they say."""

import importlib.util
import os
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_mla.comparison import (
    arguments,
    metrics,
    outcome,
    sources,
    training,
    words,
)
from keras_mla.comparison.data import Data, Division
from keras_mla.comparison.folder import Folder, locked
from keras_mla.comparison.frozen import Presets
from keras_mla.comparison.methods import DEFAULT, Grid, chosen
from keras_mla.comparison.plan import Plan
from keras_mla.comparison.results import Comparison
from keras_mla.models import registry

_OF_REPORT = ("jinja2", "matplotlib")
# The default learning rates of an optimizer.
_RATES = {"sgd": (1e-2, 3e-2, 1e-1), "adamw": (3e-4, 1e-3, 3e-3)}


def compare(
    data: Any,
    methods: Any = DEFAULT,
    *,
    modalities: Any = None,
    label: Any = None,
    columns: Mapping[str, Sequence[str]] | None = None,
    id: str | None = None,
    split: str | None = None,
    group: str | None = None,
    folds: int | None = None,
    root: str | None = None,
    task: str | None = None,
    encoders: Mapping[str, Any] | None = None,
    width: int = 64,
    metric: str | None = None,
    seeds: int | Sequence[int] = 3,
    trials: int = 6,
    trial_seeds: int = 1,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
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
    """Trains methods on data, and compares them.

    Every method tries `trials` settings, or all that it has if it has fewer.
    Validation data choose the setting, the epoch of each run, and the winner.
    The chosen setting trains once for each seed, and these runs alone read the
    test split. A setting, or a method, that lacks runs because they diverged
    or failed ranks below all that lack none. With `out`, each run is kept when
    it ends: the same call goes on where a killed one was.

    `out` holds `report.html` with its tables and figures; `model.keras`, the
    calibrated winner; `runs.jsonl`, a line for each run; `runs/`, weights and
    test predictions of the final runs; and `errors.txt`, if a run failed. The
    call deletes weights that neither `Comparison.model_of` nor the same call
    needs again. Without `runs.jsonl`, a call begins anew.

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
            methods of the paper's Table 1, `"ablation"` those of Table 3,
            `"missing"` those that learn with missing modalities,
            `"successors"` MLA's, with the controls that are hard to beat,
            `"recommended"` what `recommended` makes. Defaults to
            `("recommended", "table")`.
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
        task: `"single_label"`, `"multi_label"` or `"regression"`, such as for
            ages in whole numbers, which look like classes. Defaults to what
            labels look like.
        encoders: dict of modality to a kind of small encoder (`"mlp"`,
            `"conv1d"`, `"conv2d"`, `"tokens"`, `"video"`); to a preset of
            Keras Hub for pictures, videos or texts, by name (which is
            downloaded) or folder; or to a function that returns a new
            encoder. A preset stays frozen under a small trained `"mlp"`; its
            features are computed once and kept in `out`, and the models that
            come out hold it. (For batches it runs in each step.) Defaults to
            the small kind that suits.
        width: int. Number of features of a small encoder. Defaults to `64`.
        metric: str. What is chosen by. Defaults to `"accuracy"`, `"map"` for
            several labels, `"mae"` for regression.
        seeds: int, a number of seeds, or the seeds. Defaults to `3`.
        trials: int. Most settings of each method. Learning rates, weight
            decays and a method's own settings may give fewer; the report then
            tells how many each method tried. Defaults to `6`.
        trial_seeds: int. Seeds of each setting. Defaults to `1`.
        settings: dict of a method's title to the one setting that it has: a
            dict of `"learning_rate"`, `"weight_decay"` and the method's own
            arguments, such as `Run.setting`. Defaults to none: settings are
            tried.
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
            runs once first, then settings, then seeds. If a run of a round
            does not fit, no later round begins. Defaults to no limit.
        split_seed: int. Seed of random splits. Defaults to `0`.
        out: path. Folder of the results. Defaults to a temporary folder.
        report: bool. Whether to write `report.html`, the tables and
            `model.keras`. Defaults to `True`.
        verbose: int. `1` shows progress. Defaults to `1`.

    Returns:
        `Comparison`.

    Raises:
        ValueError: If data or arguments do not fit, another process writes to
            `out`, or all methods fail.
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
    arguments.check_data(
        data,
        modalities=modalities,
        label=label,
        columns=columns,
        id=id,
        split=split,
        group=group,
        folds=folds,
        root=root,
        task=task,
    )
    metrics.check(metric)
    arguments.check_functions(encoders, optimizer, callbacks)
    encoders = {
        name: os.fspath(given) if isinstance(given, os.PathLike) else given
        for name, given in (encoders or {}).items()
    }
    seeds = arguments.seeds(seeds)
    trials = arguments.whole("trials", trials)
    trial_seeds = arguments.whole("trial_seeds", trial_seeds)
    epochs = arguments.whole("epochs", epochs)
    batch_size = arguments.whole("batch_size", batch_size)
    width = arguments.whole("width", width)
    split_seed = arguments.whole("split_seed", split_seed, least=0)
    if folds is not None:
        folds = arguments.whole("folds", folds, least=2)
        if split is not None:
            raise ValueError(
                "`folds` draws splits, and `split` names given ones: pass one "
                f"of them. Received: folds={folds}, split={split!r}"
            )
    if learning_rate is None:
        learning_rate = _RATES["sgd" if optimizer == "sgd" else "adamw"]
    rates = arguments.rates("learning_rate", learning_rate)
    decays = arguments.rates("weight_decay", weight_decay, zero=True)
    deadline = start + arguments.budget(time_budget)
    wanted = chosen(methods)
    given = arguments.settings(settings, wanted)
    folder = pathlib.Path(out) if out is not None else _temporary()
    with locked(folder):
        found = sources.load(
            data,
            modalities=modalities,
            label=label,
            columns=columns,
            id=id,
            root=root,
            division=Division(split, group, folds, split_seed),
            presets=Presets.given(encoders, folder / "features", verbose),
            task=task,
        )
        named, unfit = _fitting(wanted, found)
        measure = metrics.named(found.task, metric)
        grid = Grid(tuple(rates), tuple(decays), trials)
        told = {
            "data": found.name,
            "modalities": list(found.modalities),
            "metric": measure.name,
            "encoders": {n: _name(given) for n, given in encoders.items()},
            "width": width,
            "epochs": epochs,
            "batch_size": batch_size,
            "optimizer": _name(optimizer),
            "trials": trials,
            "trial_seeds": trial_seeds,
            "learning_rate": rates,
            "weight_decay": decays,
            "callbacks": [arguments.named(function) for function in callbacks],
            "folds": folds,
            "split": split,
            "group": group,
            "label": str(label) if isinstance(label, str | list) else None,
            "columns": {k: list(v) for k, v in (columns or {}).items()},
            **({"task": task} if task else {}),
            **found.facts,
            "split_seed": split_seed,
            "backend": keras.backend.backend(),
        }
        plan = Plan(
            found,
            named,
            {
                title: given.get(title) or grid.settings(method)
                for title, method in named.items()
            },
            training.Options(
                measure,
                encoders,
                width,
                epochs,
                batch_size,
                optimizer,
                tuple(callbacks),
            ),
            Folder(folder, told),
            seeds,
            trial_seeds,
            deadline,
            failures=unfit,
        )
        records, best = _trained(plan, verbose)
        result, winning = outcome.compared(plan, records, told, start)
        if report:
            outcome.save(plan, result, winning)
        plan.sweep(best)
    return result


def _trained(
    plan: Plan, verbose: int
) -> tuple[list[dict], dict[tuple[str, int], dict]]:
    """Makes all runs; returns the final ones, and the chosen settings."""
    from tqdm import tqdm

    trial_seeds = min(plan.trial_seeds, len(plan.seeds))
    total = len(plan.data.folds) * sum(
        len(settings) * trial_seeds + len(plan.seeds) - trial_seeds
        for settings in plan.settings.values()
    )
    with tqdm(total=total, unit="run", disable=not verbose) as plan.bar:
        best = plan.trials()
        records = plan.finals(best)
        plan.bar.update(plan.bar.total - plan.bar.n)
    if not records:
        raise ValueError(
            "No method could be trained. "
            + words.of_errors({**plan.diverged, **plan.failures})
        )
    return records, best


def _name(given: Any) -> str:
    return given if isinstance(given, str) else arguments.named(given)


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
    streamed = not data.folds[0].parts["train"].in_memory
    for title, method in methods.items():
        if data.task not in method.tasks:
            tasks = " and ".join(method.tasks)
            unfit[title] = f"It is for {tasks}; the labels are {data.task}."
        elif len(data.modalities) < method.fewest_modalities:
            unfit[title] = (
                f"It needs at least {method.fewest_modalities} modalities. "
                f"There are {len(data.modalities)}."
            )
        elif "complete" in method.needs and streamed:
            unfit[title] = (
                "It needs training samples that have all modalities. These "
                "cannot be chosen from batches: give arrays."
            )
    return {t: m for t, m in methods.items() if t not in unfit}, unfit


def _temporary() -> pathlib.Path:
    import tempfile

    return pathlib.Path(tempfile.mkdtemp(prefix="keras_mla_"))
