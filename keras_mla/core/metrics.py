"""Metrics of each expert, and the reading of results."""

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.backend import internals, kernels
from keras_mla.core.losses import MeanLoss


class ExpertMetrics:
    """Mean losses and compiled metrics of each expert.

    The metrics are called `<expert>_<name>`. Given metric objects are cloned
    from their config. The metrics live in containers of the class that Keras
    itself uses for compiled metrics, because callbacks such as `EarlyStopping`
    look there for the direction in which a metric improves.

    Args:
        experts: Names of the experts.
        means: Names of further means: the fused loss and a method's own logs.
        metrics: List of metrics as given to `compile`, or `None`.
        weighted_metrics: List of metrics that `sample_weight` weights, or
            `None`.
    """

    def __init__(
        self,
        experts: Sequence[str],
        means: Sequence[str],
        metrics: list | None = None,
        weighted_metrics: list | None = None,
    ) -> None:
        self.experts = tuple(experts)
        self.means = {
            name: keras.metrics.Mean(name=name)
            for name in [*(f"{expert}_loss" for expert in experts), *means]
        }
        self._mean_containers = {
            name: _MeanContainer(mean) for name, mean in self.means.items()
        }
        # Both lists get weights: `metrics` only presence, `weighted_metrics`
        # also `sample_weight`.
        self.compiled = {
            name: [
                internals.CompileMetrics(
                    None, [_clone(metric) for metric in group]
                )
                for group in (metrics, weighted_metrics)
                if group
            ]
            for name in experts
        }
        # Names of the compiled metrics, filled when they are built.
        self.names: set[str] = set()
        self._weighted = [
            weighted
            for group, weighted in ((metrics, False), (weighted_metrics, True))
            if group
        ]

    @property
    def metrics(self) -> list:
        """All metrics, expert by expert."""
        of_experts = [
            metric for name in self.experts for metric in self.of_expert(name)
        ]
        shown = {id(metric) for metric in of_experts}
        others = [
            container
            for container in self._mean_containers.values()
            if id(container) not in shown
        ]
        return [*of_experts, *others]

    def of_expert(self, name: str) -> list:
        """Returns the containers of one expert's metrics."""
        return [self._mean_containers[f"{name}_loss"], *self.compiled[name]]

    def of_mean(self, name: str) -> Any:
        """Returns the container of a further mean."""
        return self._mean_containers[name]

    def add(self, name: str, loss: MeanLoss) -> None:
        """Adds the loss of a batch to a mean."""
        mean, count = loss
        metric = self.means[name]
        if isinstance(count, int):
            if not count:
                return
        else:
            count = ops.cast(count, metric.dtype)
            # The mean of no samples may be NaN.
            mean = kernels.zero_unless(count > 0, mean)
        kernels.add_to(metric.total, mean * count)
        kernels.add_to(metric.count, count)

    def build(self, name: str, y: Any, logits: Any) -> None:
        """Creates the compiled metrics and gives them the expert's name."""
        taken: set[str] = set()
        for container in self.compiled[name]:
            if container.built:
                continue
            container.build(y, logits)
            for metric in container.metrics:
                if metric.name in taken:
                    metric.name = f"weighted_{metric.name}"
                taken.add(metric.name)
                metric.name = f"{name}_{metric.name}"
                self.names.add(metric.name)

    def update(
        self,
        name: str,
        y: Any,
        logits: Any,
        loss: MeanLoss,
        present: Any | None,
        sample_weight: Any | None,
    ) -> None:
        """Adds a batch to an expert's metrics.

        Args:
            name: Name of the expert.
            y: Labels.
            logits: The expert's logits, of shape `(batch, units)`.
            loss: The expert's loss.
            present: Bool tensor of shape `(batch,)`, or `None`.
            sample_weight: Tensor of shape `(batch,)`, or `None`.
        """
        self.add(f"{name}_loss", loss)
        self.build(name, y, logits)
        for container, weighted in zip(
            self.compiled[name], self._weighted, strict=True
        ):
            weight = sample_weight if weighted else None
            if present is not None:
                counted = ops.cast(present, "float32")
                weight = (
                    counted
                    if weight is None
                    else counted
                    * ops.reshape(ops.cast(weight, "float32"), (-1,))
                )
            for metric in container.metrics:
                kernels.update_metric(metric, y, logits, weight)


class _MeanContainer(internals.CompileMetrics):
    """Container of a mean loss, which tells callbacks that lower is better."""

    def __init__(self, mean: keras.metrics.Mean) -> None:
        super().__init__(None, None)
        self._mean = mean
        internals.say_lower_is_better(mean)
        self.built = True

    @property
    def metrics(self) -> list:
        return [self._mean]

    def reset_state(self) -> None:
        self._mean.reset_state()

    def result(self) -> dict:
        return {self._mean.name: self._mean.result()}


def _clone(metric: Any) -> Any:
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric


def by_name(metrics: Iterable[keras.metrics.Metric]) -> dict[str, Any]:
    """Returns metrics by the names of their results.

    Args:
        metrics: Metrics, and Keras's containers of metrics, which must be
            built.

    Raises:
        ValueError: If two results have the same name.
    """
    found: dict[str, Any] = {}
    for metric in metrics:
        if not isinstance(metric, internals.CompileMetrics):
            parts: dict[str, Any] = {metric.name: metric}
        else:
            # The container makes equal names of metrics distinct.
            names = list(metric.result())
            if len(names) == len(metric.metrics):
                parts = dict(zip(names, metric.metrics, strict=True))
            else:  # Some names stay equal, and it reports one.
                parts = {f"{metric.name}_{len(found)}": metric}
        for name, part in parts.items():
            if name in found:
                raise ValueError(
                    f"Two results are called {name!r}. One of them belongs to "
                    "a modality, as `<modality>_<metric>`. Rename the "
                    "modality, or pass another `name` to the metric."
                )
            found[name] = part
    return found


def results(metrics: dict[str, Any], prefixed: Collection[str]) -> dict:
    """Returns each metric's `result()`, computing all means at once.

    Args:
        metrics: Metrics by name.
        prefixed: Names of metrics that prefix the keys of their results, if
            they have several, by their own name.
    """
    means = {
        name: metric
        for name, metric in metrics.items()
        if type(metric).result is keras.metrics.Mean.result
        and metric.dtype == "float32"
    }
    of_means: dict[str, Any] = {}
    if means:
        quotients = kernels.mean_results(list(means.values()))
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
