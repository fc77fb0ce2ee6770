from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.core.late import LateModel
from keras_mla.layers.fusion import Fusion


@keras.saving.register_keras_serializable(package="keras_mla")
class UnimodalEnsemble(LateModel):
    r"""Ensemble of modalities, each trained to its own best epoch.

    Joint late fusion is the same computation as separate training, except that
    separate networks may each stop at their best epoch. This class works as
    `LateFusion`, but its `fit`, given validation data, restores each
    modality's network to the epoch with its best validation score. Without
    validation data the last weights stay. `best_epochs` is a dict from each
    modality to its epoch, counted from 0. Only epochs of the current `fit`
    call are compared. After an interruption, only the epochs since resuming
    count.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. Each other
            modality gets a new head like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        fusion: `Fusion` layer. Defaults to `AverageFusion()`; for regression,
            to `InverseVarianceFusion()`.
        monitor: `"loss"`, or the name of a compiled metric, that chooses the
            epoch. The score of modality m is `val_<m>_<monitor>`. Defaults to
            `"loss"`.
        mode: `"min"`, `"max"`, or `"auto"`, which is `"min"` for a `monitor`
            that ends in `loss`, `error` or `crossentropy`. Defaults to
            `"auto"`.
        **kwargs: `task`, `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder or `fusion` is of a wrong type.
        ValueError: If `mode` is unknown, `fit` does not compute the score, or
            encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.UnimodalEnsemble(
    ...     encoders, head=3, monitor="accuracy"
    ... )
    >>> model.mode
    'max'

    Reference:
        Du et al., "On Uni-Modal Feature Learning in Supervised Multi-Modal
        Learning", ICML 2023 (the uni-modal ensemble).
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        fusion: Fusion | None = None,
        monitor: str = "loss",
        mode: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, fusion, **kwargs)
        if mode not in ("min", "max", "auto"):
            raise ValueError(
                f"`mode` must be 'min', 'max' or 'auto'. Received: mode={mode}"
            )
        if mode == "auto":
            falls = monitor.endswith(("loss", "error", "crossentropy"))
            mode = "min" if falls else "max"
        self.monitor = monitor
        self.mode = mode
        self.best_epochs: dict[str, int] = {}

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns a callback that restores each modality's best epoch."""
        return [_RestoreBestOfEach()]

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "monitor": self.monitor,
            "mode": self.mode,
        }


class _RestoreBestOfEach(keras.callbacks.Callback):
    """Keeps the weights of each modality's best epoch, and restores them."""

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.best: dict[str, tuple[float, list]] = {}
        self.model.best_epochs = {}

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        logs = logs or {}
        if not any(key.startswith("val_") for key in logs):
            return
        for name in self.model.modalities:
            key = f"val_{name}_{self.model.monitor}"
            if key not in logs:
                raise ValueError(
                    f"`monitor` must be 'loss' or a metric given to `compile`:"
                    f" there is no {key!r} among {sorted(logs)}. "
                    f"Received: monitor={self.model.monitor!r}"
                )
            score = float(logs[key]) * (1 if self.model.mode == "max" else -1)
            if np.isnan(score):
                continue  # Diverged: not an epoch to restore.
            if name not in self.best or score > self.best[name][0]:
                weights = [
                    np.array(ops.convert_to_numpy(v))
                    for v in self._weights(name)
                ]
                self.best[name] = score, weights
                self.model.best_epochs[name] = epoch

    def on_train_end(self, logs: dict | None = None) -> None:
        for name, (_, weights) in self.best.items():
            for variable, value in zip(
                self._weights(name), weights, strict=True
            ):
                variable.assign(value)

    def _weights(self, name: str) -> list:
        return [v for part in self.model.parts(name) for v in part.weights]
