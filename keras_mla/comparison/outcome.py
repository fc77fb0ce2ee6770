"""What the final runs of a comparison say of the test split."""

import importlib.metadata
import sys
import time
from typing import Any

import keras

from keras_mla import version
from keras_mla.comparison import words
from keras_mla.comparison.examine import calibrate
from keras_mla.comparison.log import Log
from keras_mla.comparison.plan import Plan
from keras_mla.comparison.results import (
    CALIBRATED,
    POOLED,
    Comparison,
    Run,
)
from keras_mla.saving import save_card


def compared(
    plan: Plan, records: list[dict], told: dict, start: float
) -> tuple[Comparison, dict]:
    """Reads the test split; returns the result, and the winner's best run."""
    data = plan.data
    y, ids, presence = data.test()
    pairs = [(plan.examined(record), record) for record in records]
    seen = [(run, record) for run, record in pairs if run is not None]
    if not seen:
        raise ValueError(
            "No method could predict the test split. "
            + words.of_errors(plan.failures)
        )
    order = list(plan.methods)
    runs = sorted(
        (run for run, _ in seen),
        key=lambda run: (order.index(run.method), run.fold, run.seed),
    )
    by_method: dict[str, list[dict]] = {run.method: [] for run in runs}
    for run, record in seen:
        by_method[run.method].append(record)
    winner = max(by_method, key=lambda m: plan.rank(m, by_method[m]))
    best = max(by_method[winner], key=plan.rank_of_run)
    for method, message in plan.diverged.items():
        if method not in by_method:
            plan.failures.setdefault(method, message)
    record_of = {Log.key(record["run"]): record for _, record in seen}

    def model_of(run: Run) -> Any:
        what = {key: getattr(run, key) for key in best["run"]}
        record = record_of[Log.key(what)]
        return plan.of_raw(record, plan.trained(record).model)

    result = Comparison(
        data.name,
        data.task,
        plan.options.metric.name,
        data.modalities,
        data.classes,
        y,
        ids,
        presence,
        runs,
        winner,
        plan.failures,
        plan.missing,
        words.notes(
            plan.lost, list(by_method), len(plan.seeds), len(data.folds)
        ),
        {
            **data.facts,
            **words.settings(plan.tried, list(by_method)),
            "settings": {
                **{k: v for k, v in told.items() if k not in data.facts},
                "seeds": list(plan.seeds),
            },
            "versions": _versions(),
            "command": " ".join(sys.argv),
            "seconds": round(time.monotonic() - start, 1),
        },
        plan.folder.path,
        model_of,
        data.test_groups(),
    )
    if result.targets():
        result.facts["hidden values that are learned from"] = result.targets()
    return result, best


def save(plan: Plan, result: Comparison, best: dict) -> None:
    """Writes the report, and the model of the winner's best run."""
    trained = plan.trained(best)
    fold = plan.data.folds[best["run"]["fold"]]
    method = plan.methods[best["run"]["method"]]
    size = plan.options.predicted_at_once
    calibrate(trained.model, fold, size, method.calibration)
    from keras_mla.comparison.report import write

    # First: a model may have a part that cannot be saved.
    write(result, plan.folder.path)
    model = plan.of_raw(best, trained.model)
    model.save(plan.folder.path / "model.keras")
    run = next(
        run
        for run in result.runs_of(result.winner)
        if all(getattr(run, key) == best["run"][key] for key in best["run"])
    )
    fitted = POOLED if method.calibration == "joint" else CALIBRATED
    save_card(
        model,
        plan.folder.path / "model.keras",
        scores=_scores_of(plan, result, run, fitted),
        title=f"{result.winner} on {result.name}",
        about=(
            f"Trained by `keras-mla compare`, with seed {run.seed}, and chosen "
            "on validation data. Scores are of the test split; `report.html` "
            "has intervals, and all other methods."
        ),
        classes=result.classes,
    )


def _scores_of(
    plan: Plan, result: Comparison, run: Run, fitted: str
) -> dict[str, float]:
    """Returns the metric of a calibrated model and of each modality alone."""
    metric, predictions = plan.options.metric, run.predictions
    y, outputs = result.y[predictions.rows], predictions.outputs
    fused = outputs.get(fitted, outputs[result.everything])
    scores = {metric.name: metric(y, fused)}
    for name in result.modalities:
        if name in outputs:
            scores[f"{name}_{metric.name}"] = metric(y, outputs[name])
    return scores


def _versions() -> dict[str, str]:
    names = ("keras", keras.backend.backend(), "numpy", "scikit-learn")
    found = {"keras_mla": version.__version__}
    return found | {n: importlib.metadata.version(n) for n in names}
