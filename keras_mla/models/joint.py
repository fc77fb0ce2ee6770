import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.models.base import MultimodalClassifier, same_size
from keras_mla.models.batch import Batch
from keras_mla.models.losses import MeanLoss
from keras_mla.models.trainer import Outputs, Update


class JointFusion(MultimodalClassifier):
    """Base class of methods that join features and train on the result alone.

    A subclass defines `join`, features to logits. Each batch makes one update
    of everything, by the loss of the joint prediction.

    One rule deactivates a modality: its features are zeros. It yields the
    unimodal scores, for which all modalities but one are deactivated, and it
    is how an absent modality is treated, in training and in prediction. A
    sample without any modality gets zero logits and trains nothing. Unimodal
    scores are measured, never trained on: their pass through the head is one
    of inference.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        **kwargs: Of `keras.Model`: `name`, `dtype`.
    """

    def join(self, features: dict[str, Any], training: bool | None) -> Any:
        """Returns logits `(batch, classes)` of all modalities' features."""
        raise NotImplementedError

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Joins one modality's features with zeros for all others."""
        assert self.widths is not None
        nothing = ops.zeros_like(feature[:, :1])
        features = {
            other: feature
            if other == name
            else ops.repeat(nothing, width, axis=1)
            for other, width in self.widths.items()
        }
        return self.join_one(features), ()

    def join_one(self, features: dict[str, Any]) -> Any:
        """Returns the logits of features of which all but one are zeros.

        Defaults to what `join` makes of them.
        """
        return self.join(features, False)

    def decode(
        self,
        features: dict[str, Any],
        training: bool | None,
        presence: Any | None = None,
    ) -> Outputs:
        """Computes unimodal logits, and the joint ones as `fused`."""
        outputs = super().decode(features, training, presence)
        if not same_size(outputs.logits):
            return outputs  # Unpaired data: nothing to join.
        if presence is not None:
            features = {
                name: ops.where(
                    presence[:, index, None],
                    features[name],
                    ops.zeros_like(features[name]),
                )
                for index, name in enumerate(self.modalities)
            }
        joint = ops.cast(self.join(features, training), "float32")
        if presence is not None:
            known = ops.any(presence, axis=1, keepdims=True)
            joint = ops.where(known, joint, ops.zeros_like(joint))
        return outputs._replace(fused=joint)

    def updates(self) -> Sequence[Update]:
        """One update of everything, by the loss of the joint prediction."""
        return [Update(self.modalities, (self,), losses=("fused",))]

    def fuse(self, outputs: Outputs, presence: Any | None) -> Any:
        """Returns the joint logits, `(batch, classes)`."""
        return outputs.fused

    def update_losses(
        self,
        update: Update,
        outputs: Outputs,
        losses: dict[str, MeanLoss],
        batch: Batch,
    ) -> list[MeanLoss]:
        """Returns the loss of the joint prediction."""
        return [self.fused_loss(outputs, batch)]


@keras.saving.register_keras_serializable(package="keras_mla")
class SumFusion(JointFusion):
    r"""Joint training on the sum of the modalities' features.

    The head is shared:

    $$z = g\Big(\sum_m f_m\Big), \qquad z_m = g(f_m),$$

    which for a `Dense` head is $z = W \sum_m f_m + b$, and the unimodal
    score $W f_m + b$. (With a matrix $W_m$ per modality the method would be
    `ConcatFusion`.) Absent modalities add nothing to the sum.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`, all of one width.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width, so that encoders may differ in width.
        **kwargs: Of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.SumFusion(encoders, head=3)
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, section 4.1 ("Sum").
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.build_if_possible()

    def join(self, features: dict[str, Any], training: bool | None) -> Any:
        """Applies the head to the sum of features."""
        return self.head(sum(features.values()), training=training)


@keras.saving.register_keras_serializable(package="keras_mla")
class ShareOfHead(keras.layers.Layer):
    """Applies a `Dense` head, of whose bias the modality has a share.

    It holds no weights of its own. It is a layer so that a `unimodal` model
    follows the head's bias, and can be saved.

    Args:
        head: The `keras.layers.Dense`.
        share: float. The part of the bias that is added.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(
        self, head: keras.layers.Dense, share: float, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.head = head
        self.share = share

    def build(self, input_shape: Any) -> None:
        """Builds the head, if it is not built."""
        if not self.head.built:
            self.head.build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns `(batch, units)`."""
        outputs = self.head(inputs, training=training)
        bias = ops.cast((1 - self.share) * self.head.bias, outputs.dtype)
        return outputs - bias

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "head": keras.saving.serialize_keras_object(self.head),
            "share": self.share,
        }

    @classmethod
    def from_config(cls, config: dict) -> "ShareOfHead":
        """Makes a layer from what `get_config` returned."""
        head = keras.saving.deserialize_keras_object(config["head"])
        return cls(**{**config, "head": head})


class ConcatJoin(JointFusion):
    """What `ConcatFusion` and methods that build on it do with features."""

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the head for all features side by side."""
        if not self.head.built:
            self.head.build((None, sum(widths.values())))
        part: keras.layers.Layer = self.head
        if isinstance(self.head, keras.layers.Dense) and self.head.use_bias:
            # The zeros leave W_m f_m + b; each modality has its share of b.
            part = ShareOfHead(
                self.head,
                1 / len(self.modalities),
                name=f"share_of_{self.head.name}",
                dtype=self.head.dtype_policy,
            )
        # Hidden from Keras's tracking, as the head is tracked already.
        self._unimodal = types.SimpleNamespace(head=part)

    def join(self, features: dict[str, Any], training: bool | None) -> Any:
        """Applies the head to all features side by side."""
        return self.head(self._beside(features), training=training)

    def join_one(self, features: dict[str, Any]) -> Any:
        """Applies the modality's slice of the head."""
        return self._unimodal.head(self._beside(features), training=False)

    def _beside(self, features: dict[str, Any]) -> Any:
        joined = [features[name] for name in self.modalities]
        return ops.concatenate(joined, axis=-1)


@keras.saving.register_keras_serializable(package="keras_mla")
class ConcatFusion(ConcatJoin):
    r"""Joint training on the concatenation of the modalities' features.

    $$z = g([f_1; \dots; f_M]), \qquad z_m = W_m f_m + b / M$$

    with $W_m$ the rows of a `Dense` head that belong to modality $m$, so that
    $z = \sum_m z_m$. A head of several layers has no such slices: its
    unimodal score is that of $f_m$ with zeros for the other modalities.
    Zeros also stand for absent modalities. Widths may differ.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        **kwargs: Of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        ValueError: If encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.ConcatFusion(encoders, head=3)
    >>> tuple(model.head.kernel.shape)
    (16, 3)

    Reference:
        Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient
        Modulation", CVPR 2022, section 3.1 (the slices of the head).
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.build_if_possible()
