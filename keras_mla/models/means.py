"""Metrics that are means over samples, updated and read by less than usual.

Keras's metrics weigh, mask and reduce whatever they are given, one by one. For
a mean over the samples of a batch, which most metrics are, that takes longer
than the mean itself where steps run eagerly. These functions give what the
metrics' own methods would, and leave other metrics to these.
"""

from collections.abc import Collection, Iterable
from typing import Any

import keras
from keras import ops

from keras_mla import training


def add_to_mean(metric: keras.metrics.Mean, mean: Any, count: Any) -> None:
    """Adds the mean of `count` samples."""
    if not isinstance(count, int):
        count = ops.cast(count, metric.dtype)
    training.add_to(metric.total, mean * count)
    training.add_to(metric.count, count)


def update_state(
    metric: keras.metrics.Metric, y: Any, logits: Any, weight: Any | None
) -> None:
    """Does what `metric.update_state(y, logits, weight)` does."""
    if (
        weight is not None
        or type(metric).update_state
        is not keras.metrics.MeanMetricWrapper.update_state
        or training.may_be_masked(logits)
    ):
        metric.update_state(y, logits, weight)
        return
    values = metric._fn(y, logits, **metric._fn_kwargs)
    values = ops.cast(values, metric.dtype)
    if len(values.shape) == 1:
        training.add_to(metric.total, ops.sum(values))
        training.add_to(metric.count, ops.shape(values)[0])
    else:
        keras.metrics.Mean.update_state(metric, values)


def by_name(metrics: Iterable[keras.metrics.Metric]) -> dict[str, Any]:
    """Returns metrics by the names of their results.

    Args:
        metrics: Metrics, and Keras's containers of them, which must be built.

    Raises:
        ValueError: If two results have one name.
    """
    found: dict[str, Any] = {}
    for metric in metrics:
        if not isinstance(metric, training.internals.CompileMetrics):
            parts: dict[str, Any] = {metric.name: metric}
        else:
            # The container knows how it tells equal names apart.
            names = list(metric.result())
            if len(names) == len(metric.metrics):
                parts = dict(zip(names, metric.metrics, strict=True))
            else:  # Except some, of which it reports one.
                parts = {f"{metric.name}_{len(found)}": metric}
        for name, part in parts.items():
            if name in found:
                raise ValueError(
                    f"Two results are called {name!r}: one of them is that of "
                    "a modality, `<modality>_<metric>`. Rename the modality, "
                    "or the metric by its argument `name`."
                )
            found[name] = part
    return found


def results(metrics: dict[str, Any], prefixed: Collection[str]) -> dict:
    """Returns each metric's `result()`, of all means at once.

    Args:
        metrics: Metrics by name.
        prefixed: Names of metrics that pass their name on to each result,
            where they have several.
    """
    means = {
        name: metric
        for name, metric in metrics.items()
        if type(metric).result is keras.metrics.Mean.result
        and metric.dtype == "float32"
    }
    of_means: dict[str, Any] = {}
    if means:
        quotients = training.mean_results(list(means.values()))
        of_means.update(zip(means, quotients, strict=True))
    found: dict[str, Any] = {}
    for name, metric in metrics.items():
        result = of_means[name] if name in of_means else metric.result()
        if not isinstance(result, dict):
            found[name] = result
        elif name in prefixed:
            found |= {f"{name}_{key}": value for key, value in result.items()}
        else:
            found |= result
    return found
