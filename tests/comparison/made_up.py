"""Comparisons with made-up runs, for tests of the report."""

import itertools

import numpy as np

from keras_mla.comparison import metrics
from keras_mla.comparison.results import (
    CALIBRATED,
    POOLED,
    Comparison,
    Predictions,
    Run,
    subset_key,
    subsets,
)

# Not in alphabetical order.
MODALITIES = ("text", "audio", "image")
# How much a modality tells, and how much a method makes of modalities.
SIGNAL = {"text": 1.6, "audio": 0.8, "image": 0.5}
METHODS = {"MLA": 1.2, "OGM-GE": 1.0, "ConcatFusion": 0.7}
CLASSES = ("cat", "dog", "owl", "eel")


def labels(rng, task, n, units):
    if task == "single_label":
        return rng.integers(0, units, n)
    if task == "multi_label":
        return rng.integers(0, 2, (n, units))
    return rng.normal(size=n)


def targets(task, y, units):
    if task == "single_label":
        return np.eye(units)[y]
    if task == "multi_label":
        return 2.0 * y - 1
    return np.asarray(y, float).reshape(len(y), -1)


def made_up(
    task="single_label",
    methods=METHODS,
    modalities=MODALITIES,
    seeds=(0, 1, 2),
    folds=1,
    n=60,
    classes=CLASSES,
    extras=True,
    constant=False,
    **fields,
):
    """A comparison whose methods predict labels with noise.

    Args:
        task: str. The task.
        methods: dict of title to skill, or sequence of titles.
        modalities: Names.
        seeds: Seeds of each method's runs.
        folds: The number of folds.
        n: The number of test samples.
        classes: Names of classes or labels.
        extras: Whether runs have gap, worth, weights, curves, subsets, and
            calibrated predictions.
        constant: Whether all predictions are the same.
        fields: Other fields of the comparison.
    """
    rng = np.random.default_rng(0)
    if not isinstance(methods, dict):
        methods = {name: 1.0 - 0.1 * i for i, name in enumerate(methods)}
    units = 1 if task == "regression" else len(classes)
    metric = next(iter(metrics.METRICS[task]))
    y = labels(rng, task, n, units)
    target = targets(task, y, units)
    presence = rng.random((n, len(modalities))) > 0.1
    presence[~presence.any(axis=1), 0] = True
    runs = []
    parts = np.array_split(rng.permutation(n), folds)
    for method, fold, seed in itertools.product(methods, range(folds), seeds):
        skill = methods[method]
        rows = parts[fold]
        alone = {}
        for i, name in enumerate(modalities):
            noise = rng.normal(size=(len(rows), units))
            strength = skill * SIGNAL.get(name, 0.6)
            seen = strength * target[rows] + 0.6 * noise
            alone[name] = np.where(presence[rows, i, None], seen, 0.0)
        kept = subsets(modalities) if extras else [tuple(modalities)]
        outputs = {
            subset_key(names): np.sum([alone[m] for m in names], axis=0)
            for names in kept
        }
        if task == "regression":
            outputs = {key: found / 2 for key, found in outputs.items()}
        if constant:
            outputs = {key: 0 * found for key, found in outputs.items()}
        outputs = {k: found.astype("float32") for k, found in outputs.items()}
        everything = subset_key(modalities)
        weights = {}
        if extras:
            if task == "single_label":
                outputs[CALIBRATED] = 1.7 * outputs[everything]
                outputs[POOLED] = 1.4 * outputs[everything]
            drawn = rng.dirichlet(np.ones(len(modalities)), len(rows))
            weights = dict(zip(modalities, drawn.T, strict=True))
        steps = np.arange(12)
        curves = {"loss": (1.4 / (1 + steps)).tolist()} if extras else {}
        for i, name in enumerate(["", *modalities]) if extras else ():
            key = f"val_{name}_{metric}" if name else f"val_{metric}"
            top = 0.5 + 0.3 * skill - 0.1 * i
            noise = rng.normal(size=12) * 0.01
            curves[key] = (top * (1 - 0.6 ** (1 + steps)) + noise).tolist()
        gaps = itertools.combinations(modalities, 2) if extras else ()
        higher = metrics.METRICS[task][metric].higher_is_better
        runs.append(
            Run(
                method=method,
                setting={"learning_rate": 1e-3, "alpha": skill},
                seed=seed,
                fold=fold,
                epochs={"all": 9},
                seconds=3.2,
                validation={metric: skill / 2 if higher else 2 - skill},
                curves=curves,
                gap={f"{a} / {b}": float(rng.uniform(0, 1)) for a, b in gaps},
                worth={
                    name: SIGNAL.get(name, 0.3) / 8 + 0.01 * rng.normal()
                    for name in modalities
                }
                if extras
                else {},
                predictions=Predictions(rows, outputs, weights),
                fusion=fusion_report(modalities, task) if extras else {},
            )
        )
    return Comparison(
        **{
            "name": "made-up",
            "task": task,
            "metric": metric,
            "modalities": tuple(modalities),
            "classes": None if task == "regression" else list(classes),
            "y": y,
            "ids": [f"sample-{i:03}" for i in range(n)],
            "presence": presence,
            "runs": runs,
            "winner": next(iter(methods), ""),
            **fields,
        }
    )


def fusion_report(modalities, task):
    """A report whose numbers tell where they come from."""
    measures = ("accuracy", "negative_log_likelihood", "calibration_error")
    if task == "regression":
        measures = ("mean_squared_error",)
    kept = dict.fromkeys([*modalities, subset_key(modalities)])
    scores = {
        key: {
            fusion: {m: 0.5 + i / 10 + j / 100 for m in measures}
            for j, fusion in enumerate(("average", "pool"))
        }
        for i, key in enumerate(kept)
    }
    even = dict.fromkeys(modalities, -0.25)
    return {
        "scores": scores,
        "samples": dict.fromkeys(kept, 40),
        "covariance": {} if task == "regression" else even,
        "standard_error": {name: 0.125 for name in even},
        "kept": "pool",
        "weight": {m: float(i) for i, m in enumerate(modalities)},
        "calibrated": dict.fromkeys(measures, 0.92),
    }


FACTS = {
    "splits": {"train": 500, "validation": 100, "test": 300},
    "duplicates": {"across splits": 0, "pairs": []},
    "versions": {"keras": "3.15.0", "backend": {"torch": "2.13.0"}},
    "command": "python -m keras_mla.compare table.csv --label=class --seeds=3",
    "presence": 0.9,
}
