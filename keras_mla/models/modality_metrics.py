from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_mla import training
from keras_mla.models import means
from keras_mla.models.losses import MeanLoss


class ModalityMetrics:
    """Loss and compiled metrics of each modality, under `<modality>_<name>`.

    Metric objects are cloned by their config. They live in containers of the
    class that Keras itself uses for compiled metrics, where callbacks such as
    `EarlyStopping` look to learn in which direction a metric improves.

    Args:
        modalities: Names of the modalities.
        metrics: List of metrics as given to `compile`, or `None`.
        weighted_metrics: The same, for those weighted by `sample_weight`.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        metrics: list | None,
        weighted_metrics: list | None,
    ) -> None:
        self.losses = {
            name: keras.metrics.Mean(name=f"{name}_loss") for name in modalities
        }
        self._loss_containers = {
            name: _LossContainer(loss) for name, loss in self.losses.items()
        }
        # Both lists get weights: `metrics` only presence, `weighted_metrics`
        # also `sample_weight`.
        self.compiled = {
            name: [
                training.internals.CompileMetrics(
                    None, [_clone(metric) for metric in group]
                )
                for group in (metrics, weighted_metrics)
                if group
            ]
            for name in modalities
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
        """All metrics, modality by modality."""
        return [
            metric
            for name, loss in self._loss_containers.items()
            for metric in [loss, *self.compiled[name]]
        ]

    def build(self, name: str, y: Any, logits: Any) -> None:
        """Creates the compiled metrics and gives them the modality's name."""
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
        """Adds a batch.

        Args:
            name: The modality.
            y: Labels.
            logits: Unimodal logits, of shape `(batch, classes)`.
            loss: The modality's loss.
            present: Bool tensor of shape `(batch,)`, or `None`.
            sample_weight: Tensor of shape `(batch,)`, or `None`.
        """
        means.add_to_mean(self.losses[name], *loss)
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
                means.update_state(metric, y, logits, weight)


class _LossContainer(training.internals.CompileMetrics):
    """One modality's mean loss, where callbacks find that it should fall."""

    def __init__(self, loss: keras.metrics.Mean) -> None:
        super().__init__(None, None)
        self._loss = loss
        loss._direction = "down"
        self.built = True

    @property
    def metrics(self) -> list:
        return [self._loss]

    def reset_state(self) -> None:
        self._loss.reset_state()

    def result(self) -> dict:
        return {self._loss.name: self._loss.result()}


def _clone(metric: Any) -> Any:
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric
