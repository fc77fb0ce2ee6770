"""Numbers that several sections show, and their texts."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.comparison import metrics, statistics
from keras_mla.comparison.results import Comparison

ALPHA = 0.05
# Draws of the bootstrap, and what all of them may cost: about ten seconds.
MOST_DRAWS, FEWEST_DRAWS = 10_000, 1_000
COST = 1e9
# No line ends between a number and its unit.
PERCENT = "\u00a0%"

Format = Callable[[float], str]

# What one report shows several times: resampling takes seconds, and so do the
# metrics of many runs.
_memory: contextvars.ContextVar[dict[Any, Any] | None] = contextvars.ContextVar(
    "memory", default=None
)


@contextlib.contextmanager
def remembered() -> Iterator[None]:
    """Computes numbers once inside the context."""
    token = _memory.set({})
    try:
        yield
    finally:
        _memory.reset(token)


def _once(key: Any, compute: Callable[[], Any]) -> Any:
    memory = _memory.get()
    if memory is None:
        return compute()
    if key not in memory:
        memory[key] = compute()
    return memory[key]


def metric_of(comparison: Comparison) -> Any:
    """Returns the metric that a comparison chose by."""
    return metrics.named(comparison.task, comparison.metric)


def all_metrics(comparison: Comparison) -> list[Any]:
    """Returns the task's metrics, first the one that chose."""
    chosen = metric_of(comparison)
    found = metrics.METRICS[comparison.task].values()
    return [chosen, *(other for other in found if other.name != chosen.name)]


def scores(
    comparison: Comparison, method: str, metric: Any, key: str | None = None
) -> list[float]:
    """Returns a metric of a method's runs, as `Comparison.scores` does."""
    return _once(
        (id(comparison), method, metric.name, key),
        lambda: comparison.scores(method, metric, key),
    )


def over(comparison: Comparison) -> str:
    """Returns what means and deviations are over: `"folds"` or `"seeds"`."""
    return "folds" if len(comparison.folds) > 1 else "seeds"


def spread(
    values: Sequence[float], text: Format, deviation: Format | None = None
) -> str:
    """Returns `"mean ± deviation"`; the mean alone for one value.

    Args:
        values: Sequence of float, one for each run or fold.
        text: Function from a number to its text.
        deviation: Function from a deviation to its text. Defaults to `text`.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "–"
    found = statistics.interval(finite)
    if found.deviation is None:
        return text(found.mean)
    return f"{text(found.mean)} ± {(deviation or text)(found.deviation)}"


def collected(
    comparison: Comparison, field: str
) -> dict[str, dict[str, list[float]]]:
    """Returns a field of runs, as `Comparison.by_fold` returns values.

    Args:
        comparison: `Comparison`.
        field: str. `"gap"` or `"worth"`.

    Returns:
        dict of method to a dict of name to values.
    """
    found: dict[str, dict[str, list[float]]] = {}
    for method in comparison.methods:
        runs = comparison.runs_of(method)
        for name in dict.fromkeys(
            n for run in runs for n in getattr(run, field)
        ):
            having = [run for run in runs if name in getattr(run, field)]
            found.setdefault(method, {})[name] = comparison.by_fold(
                having, [getattr(run, field)[name] for run in having]
            )
    return found


def tick(metric: Any) -> Format:
    """Returns the function from a metric's value to its text at an axis."""
    return lambda value: f"{metric.scale * value:.6g}".replace("-", "−")


def titled(metric: Any) -> str:
    """Returns a metric's title with its unit."""
    return f"{metric.title} (%)" if metric.percent else metric.title


def in_sentence(metric: Any) -> str:
    """Returns a metric's title in a sentence: `"accuracy"`, but `"AUROC"`."""
    title = metric.title
    return title[0].lower() + title[1:] if title[1:2].islower() else title


def said(value: float, metric: Any) -> str:
    """Returns a value of a metric for a sentence: `"97.1 %"`."""
    return metric.text(value) + (PERCENT if metric.percent else "")


def signed(value: float, metric: Any) -> str:
    """Returns a difference of a metric, with its sign."""
    if not math.isfinite(value):
        return "–"
    text = metric.text(abs(value))
    if not text.strip("0."):
        return text
    return ("−" if value < 0 else "+") + text


def probability(p: float) -> str:
    """Returns a p-value's text."""
    if not math.isfinite(p):
        return "–"
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def differences(comparison: Comparison) -> Mapping[str, Any]:
    """Returns the difference of each other method from the winner.

    Methods that have not run on all folds have none.
    """
    return _once(
        (id(comparison), "differences"), lambda: _differences(comparison)
    )


def _differences(comparison: Comparison) -> Mapping[str, Any]:
    outputs = {m: comparison.outputs_of(m) for m in comparison.methods}
    outputs = {method: found for method, found in outputs.items() if found}
    found: Mapping[str, Any] = {}
    if comparison.winner in outputs and len(outputs) > 1:
        found = statistics.compare_rows(
            metric_of(comparison),
            comparison.y,
            outputs,
            reference=comparison.winner,
            draws=draws(comparison),
            groups=comparison.groups,
        )
        found = {m: d for m, d in found.items() if m != comparison.winner}
    return found


def draws(comparison: Comparison) -> int:
    """Returns how often the bootstrap draws: less often from many samples."""
    metric = metric_of(comparison)
    arrays = [a for m in comparison.methods for a in comparison.outputs_of(m)]
    cost = len(arrays) * len(comparison.y)
    # They go through the samples once for each class or label.
    if arrays and (metric.name == "auroc" or metric.task == "multi_label"):
        cost *= arrays[0].shape[1]
    # So many that a small p-value stays small when Holm's method corrects it.
    fewest = max(FEWEST_DRAWS, 100 * len(comparison.methods))
    return int(np.clip(COST / max(cost, 1), fewest, MOST_DRAWS))


def group_count(comparison: Comparison) -> int | None:
    """Returns the number of groups of test samples; `None` without groups."""
    if comparison.groups is None:
        return None
    return len(np.unique(comparison.groups))


def is_rough(comparison: Comparison) -> bool:
    """Returns whether the test samples are of few groups."""
    groups = group_count(comparison)
    return groups is not None and groups < statistics.FEW_GROUPS


def validation(comparison: Comparison, method: str) -> float:
    """Returns the mean validation score of a method's runs, or NaN."""
    runs = comparison.runs_of(method)
    found = [run.validation.get(comparison.metric, math.nan) for run in runs]
    return float(np.mean(found)) if found else math.nan


def best_alone(comparison: Comparison) -> tuple[str, str] | None:
    """Returns the method and modality that validate best alone.

    `None` if there is only one modality, or no method predicts from one alone.

    Test data must not choose what the winner is compared with. The curves of
    the validation split choose, at the best epoch of the modality.
    """
    metric = metric_of(comparison)
    found: dict[tuple[str, str], float] = {}
    if len(comparison.modalities) < 2:
        return None
    for method in comparison.methods:
        for name in comparison.modalities:
            reached = []
            for run in comparison.runs_of(method):
                curve = run.curves.get(f"val_{name}_{metric.name}")
                epoch = best_epoch(run, name)
                if curve and epoch is not None and epoch < len(curve):
                    reached.append(curve[epoch])
            scored = scores(comparison, method, metric, name)
            if scored and reached and math.isfinite(np.mean(reached)):
                found[method, name] = float(np.mean(reached))
    if not found:
        return None
    sign = 1 if metric.higher_is_better else -1
    return max(found, key=lambda one: sign * found[one])


def best_epoch(run: Any, name: str | None = None) -> int | None:
    """Returns a run's best epoch, of a modality's network or of all."""
    if name in run.epochs:
        return run.epochs[name]
    return run.epochs.get("all")


def predicted(outputs: np.ndarray) -> np.ndarray:
    """Returns the class that logits predict."""
    return outputs.argmax(axis=1)


def class_name(comparison: Comparison, index: int) -> str:
    """Returns the name of a class, or its number."""
    classes = comparison.classes
    if classes is None or not 0 <= index < len(classes):
        return str(index)
    return str(classes[index])


def listed(words: Sequence[str]) -> str:
    """Returns words as a list in a sentence."""
    *most, last = words
    return f"{', '.join(most)} and {last}" if most else last


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """Returns a number with its noun: `"1 run"`, `"2 runs"`."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
