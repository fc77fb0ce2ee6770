from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.layers.fusion import AverageFusion, Fusion
from keras_mla.models import stack
from keras_mla.models.base import MultimodalClassifier
from keras_mla.models.checks import check_fusion
from keras_mla.models.trainer import Update


class SeparateHeads(MultimodalClassifier):
    """Base class of methods where each modality has a head of its own.

    The head given is the first modality's; the others have one made like it,
    with weights of their own. Widths of features may differ.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.heads = {
            name: self.head
            if index == 0
            else stack.unbuilt_copy(self.head, f"{name}_head")
            for index, name in enumerate(encoders)
        }

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds each modality's head for its width."""
        for name, width in widths.items():
            if not self.heads[name].built:
                self.heads[name].build((None, width))

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Applies the modality's own head."""
        return self.heads[name](feature, training=training), ()


@keras.saving.register_keras_serializable(package="keras_mla")
class LateFusion(SeparateHeads):
    r"""Separate networks, whose predictions are fused.

    Each modality has its own head $g_m$ and loss, and a step of its own:

    $$z_m = g_m(f_m), \qquad L_m = \mathrm{CE}(z_m, y), \qquad
      z = \frac1M \sum_m z_m,$$

    the mean of *logits*, over the modalities that a sample has. As nothing
    is shared, this is the same computation as training each modality by
    itself; `UnimodalEnsemble` makes use of it. An absent modality counts in
    no loss and moves nothing. Unpaired data can be trained on.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. The
            other modalities get one like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        fusion: `Fusion` layer. Defaults to `AverageFusion()`.
        **kwargs: Of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.LateFusion(encoders, head=3)
    >>> sorted(model.heads)
    ['image', 'text']

    Reference:
        Gunes and Piccardi, "Affect Recognition from Face and Body: Early
        Fusion vs. Late Fusion", SMC 2005.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        fusion: Fusion | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.fusion = check_fusion(fusion, AverageFusion)
        self.build_if_possible()

    def parts(self, name: str) -> tuple[keras.layers.Layer, ...]:
        """The layers that belong to one modality."""
        projection = self.projections.get(name)
        return (
            self.encoders[name],
            *(() if projection is None else (projection,)),
            self.heads[name],
        )

    def updates(self) -> Sequence[Update]:
        """One update per modality, of all that belongs to it."""
        return [Update((name,), self.parts(name)) for name in self.modalities]

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "fusion": keras.saving.serialize_keras_object(self.fusion),
        }


@keras.saving.register_keras_serializable(package="keras_mla")
class UnimodalEnsemble(LateFusion):
    r"""Each modality trained for its own best epoch, then averaged.

    Joint late fusion and separate training are one computation, except that
    networks trained apart may each stop when it is best. So this is
    `LateFusion` where `fit`, given validation data, returns every modality's
    network to the epoch in which its own validation score was best. Without
    validation data the last weights stay. `best_epochs` tells the epochs.
    Only epochs of the current `fit` call are compared. After an interruption,
    only the epochs since resuming count.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. The
            other modalities get one like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        fusion: `Fusion` layer. Defaults to `AverageFusion()`.
        monitor: What to choose by: `"loss"` or the name of a compiled
            metric. For modality m it is `val_<m>_<monitor>`. Defaults to
            `"loss"`.
        mode: `"min"`, `"max"`, or `"auto"`, which is `"min"` for a `monitor`
            that ends in `loss`, `error` or `crossentropy`. Defaults to
            `"auto"`.
        **kwargs: Of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        ValueError: If `mode` is unknown, `fit` computes no such score, or
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
        """Returns each modality to its best epoch when training ends."""
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
                continue  # Diverged: no epoch to return to.
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
