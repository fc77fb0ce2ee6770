"""The line that shows progress in training and evaluation."""

import math
from collections.abc import Mapping
from typing import Any

import keras

from keras_mla.backend import internals


class ShortProgress(keras.callbacks.ProgbarLogger):
    """Shows the loss, the fused metrics, and how the weakest modality does.

    Several modalities with several metrics each make a line that nobody reads.
    The logs of callbacks and the history have all numbers as before. To see
    them all in the line, pass `keras.callbacks.ProgbarLogger()` to `fit` or
    `evaluate`.

    The weakest modality is that with the worst first metric of `compile`, in
    validation if there is any; with the largest loss if there is no metric
    whose better direction is known.
    """

    # Like Keras's own, it may be called while a next step is computed.
    async_safe = True

    def set_model(self, model: Any) -> None:
        """Keeps the model."""
        super().set_model(model)
        # On JAX, `self.model` moves weights, which a step may be using.
        self.trained = model

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows the step."""
        super().on_train_batch_end(batch, self._short(logs))

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Shows the step."""
        super().on_test_batch_end(batch, self._short(logs))

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Shows the epoch, and the weakest modality."""
        super().on_epoch_end(epoch, self._short(logs) | self._weakest(logs))

    def on_test_end(self, logs: Any = None) -> None:
        """Shows the result, and the weakest modality."""
        super().on_test_end(self._short(logs) | self._weakest(logs))

    def _short(self, logs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns the logs that are no expert's and no method's, loss first."""
        logs = logs or {}
        measured = self.trained._plan.metrics
        left = {*measured.means, *measured.names}
        if self.trained.metrics_container is None:
            left.discard("fused_loss")
        short = {k: v for k, v in logs.items() if _plain(k) not in left}

        def place(key: str) -> tuple[bool, bool]:
            return key.startswith("val_"), _plain(key) != "loss"

        return {key: short[key] for key in sorted(short, key=place)}

    def _weakest(self, logs: Mapping[str, Any] | None) -> dict[str, Any]:
        """Returns the number of the weakest modality, under a telling name."""
        logs = logs or {}
        found, worst = {}, max
        for name in self.trained.modalities:
            key, direction = self._judged(name)
            validated = f"val_{key}"
            key = validated if validated in logs else key
            value = float(logs.get(key, math.nan))
            if not math.isnan(value):
                found[key] = value
            worst = min if direction == "up" else max
        if len(self.trained.modalities) < 2 or not found:
            return {}
        key = worst(found, key=lambda k: found[k])
        return {f"weakest, {key}": found[key]}

    def _judged(self, modality: str) -> tuple[str, str]:
        """Returns what judges a modality, and which direction is better."""
        for container in self.trained._plan.metrics.compiled[modality]:
            for metric in container.metrics[:1]:
                direction = internals.better_direction(metric)
                if direction is not None:
                    return metric.name, direction
        return f"{modality}_loss", "down"


def _plain(key: str) -> str:
    return key.removeprefix("val_")


def with_short(callbacks: Any, verbose: Any) -> Any:
    """Adds the short line to callbacks, unless nothing or all is to be shown.

    Args:
        callbacks: Callbacks as users pass them to `fit` and `evaluate`.
        verbose: As users pass it.
    """
    if not verbose or isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    callbacks = keras.tree.flatten(callbacks) if callbacks else []
    if any(isinstance(c, keras.callbacks.ProgbarLogger) for c in callbacks):
        return callbacks
    return [*callbacks, ShortProgress()]
