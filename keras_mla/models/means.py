"""Metrics that are means over samples, updated and read by less than usual.

Keras's metrics weigh, mask and reduce whatever they are given, one by one. For
a mean over the samples of a batch, which most metrics are, that takes longer
than the mean itself where steps run eagerly. These functions give what the
metrics' own methods would, and leave other metrics to these.
"""

from collections.abc import Iterable
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
        weight is None
        and type(metric).update_state
        is keras.metrics.MeanMetricWrapper.update_state
        and not training.may_be_masked(logits)
    ):
        values = metric._fn(y, logits, **metric._fn_kwargs)
        if len(values.shape) == 1:
            training.add_to(metric.total, ops.sum(values))
            training.add_to(metric.count, ops.shape(values)[0])
            return
    metric.update_state(y, logits, weight)


def by_name(metrics: Iterable[keras.metrics.Metric]) -> dict[str, Any]:
    """Metrics by the names of their results; containers must be built."""
    found = {}
    for metric in metrics:
        parts = getattr(metric, "metrics", None)
        if parts is None:
            found[metric.name] = metric
        else:
            # The container knows how it tells equal names apart.
            found.update(zip(metric.result(), parts, strict=True))
    return found


def results(metrics: dict[str, Any]) -> dict[str, Any]:
    """Returns each metric's `result()`, of all means at once."""
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
            result = {name: result}
        for key, value in result.items():
            # Of several results, each modality's metric has the same names.
            found[f"{name}_{key}" if key in found else key] = value
    return found
