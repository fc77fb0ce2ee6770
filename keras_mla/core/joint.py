"""The base class of methods that join features and train on the result."""

import types
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.filling import where_present
from keras_mla.core.imputation import KINDS, Imputation
from keras_mla.core.losses import MeanLoss
from keras_mla.core.model import MultimodalModel, same_size
from keras_mla.core.update import Outputs, Update


class JointModel(MultimodalModel):
    r"""Base class of methods that join features and train on the result alone.

    The head takes all features side by side, unless a subclass defines another
    `join`. Each batch makes one update of all layers, by the loss of the joint
    prediction.

    `complete` replaces the features of an absent modality, as `impute` says
    unless a subclass overrides it. A sample without any modality gets zero
    logits and trains nothing.

    Unimodal scores are measured, never trained on. They are the output of the
    joint layers for one modality's features, with zeros for all other
    features. If the head is a single `Dense` on features side by side,
    modality m has the slice $W_m$ of its kernel and its share of the bias,
    $z_m = W_m f_m + b / M$, so that $z = \sum_m z_m$.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`.
        head: int, the number of classes, labels or targets; or a
            `keras.layers.Dense`; or a `keras.Sequential` that ends in one. It
            returns logits.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width.
        impute: `"zeros"`; `"mean"`, a running mean of the modality's present
            features; or `"token"`, a learned vector for each modality: what
            stands in the place of features of absent modalities. Defaults to
            `"zeros"`.
        **kwargs: Arguments of `MultimodalModel`: `task`, `allow_nan`, `table`,
            `modality_dropout`, `name`, `dtype`.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If `impute` has another value, or `MultimodalModel` raises
            it.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        impute: str = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if impute not in KINDS:
            raise ValueError(
                f"`impute` must be one of {list(KINDS)}. "
                f"Received: impute={impute!r}"
            )
        self.impute = impute
        self.imputation: Imputation | None = None
        if impute != "zeros":
            self.imputation = Imputation(impute, name="imputation")

    # === What a method defines ===

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the joint logits of features, some of which may be absent.

        By default, it calls `complete` if there is presence, and then `join`.

        Args:
            features: dict of each modality's features, `(batch, features)`.
                Features of absent samples are placeholders.
            presence: Bool tensor of shape `(batch, modalities)`, or `None`.
            training: bool. Whether layers behave as in training.

        Returns:
            Logits `(batch, units)`, and a structure of tensors for
            `Outputs.kept`.
        """
        kept: Any = ()
        if presence is not None:
            features, kept = self.complete(features, presence, training)
        elif training and self.imputation is not None:
            self.imputation(
                features, None, training=training
            )  # It learns from all.
        return self.join(features, training), kept

    def complete(
        self, features: dict[str, Any], presence: Any, training: bool | None
    ) -> tuple[dict[str, Any], Any]:
        """Replaces the features of absent modalities.

        It is called if the inputs hold `presence`. A method that also fills in
        features when all modalities are present does it in `join`.

        Args:
            features: dict of each modality's features, `(batch, features)`.
                Features of absent samples are placeholders and must not be
                used.
            presence: Bool tensor of shape `(batch, modalities)`.
            training: bool. Whether layers behave as in training.

        Returns:
            The features to join; and a structure of tensors for
            `Outputs.kept`, such as a reconstruction that losses need.
        """
        if self.imputation is not None:
            return self.imputation(features, presence, training=training), ()
        completed = {
            name: where_present(presence, index, features[name])
            for index, name in enumerate(self.modalities)
        }
        return completed, ()

    def join(self, features: dict[str, Any], training: bool | None) -> Any:
        """Returns logits `(batch, units)` of all modalities' features.

        By default, the head is applied to the features side by side.

        Args:
            features: dict of each modality's features, `(batch, features)`.
                Those of absent modalities are already replaced.
            training: bool. Whether layers behave as in training.
        """
        return self.head(self.beside(features), training=training)

    def join_one(self, features: dict[str, Any]) -> Any:
        """Returns the logits of features, of which all but one are zeros.

        Args:
            features: dict of each modality's features, `(batch, features)`, as
                `alone` returns them.
        """
        if self._share is None:
            return self.join(features, False)
        return self._share.head(self.beside(features), training=False)

    # === Implementation ===

    # The layer that gives unimodal scores, if the head takes features side by
    # side. It is hidden from Keras's tracking, because the head is tracked
    # already.
    _share: Any = None

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the head for all features side by side."""
        if not self.head.built:
            self.head.build((None, sum(widths.values())))
        part: keras.layers.Layer = self.head
        if isinstance(self.head, keras.layers.Dense) and self.head.use_bias:
            # With zeros, the head returns W_m f_m + b; only a share of b is
            # kept.
            part = ShareOfHead(
                self.head,
                1 / len(self.modalities),
                name=f"share_of_{self.head.name}",
                dtype=self.head.dtype_policy,
            )
        self._share = types.SimpleNamespace(head=part)

    def beside(self, features: dict[str, Any]) -> Any:
        """Returns all modalities' features side by side.

        Args:
            features: dict of each modality's features, `(batch, features)`.
        """
        joined = [features[name] for name in self.modalities]
        return ops.concatenate(joined, axis=-1)

    def alone(self, name: str, feature: Any) -> tuple[dict[str, Any], Any]:
        """Returns one modality's features with zeros for all others.

        Args:
            name: Name of the modality.
            feature: Tensor of shape `(batch, features)`.

        Returns:
            dict of each modality's features; and the presence of samples that
            have this modality alone, bool of shape `(batch, modalities)`.
        """
        # Not `ops.zeros`: the size of the batch may be unknown.
        nothing = ops.zeros_like(feature[:, :1])
        features = {
            other: feature
            if other == name
            else ops.repeat(nothing, width, axis=1)
            for other, width in self.widths.items()
        }
        known = ops.ones_like(nothing, dtype="bool")
        presence = [
            known if other == name else ops.logical_not(known)
            for other in self.modalities
        ]
        return features, ops.concatenate(presence, axis=1)

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Joins one modality's features with zeros for all others."""
        features, _ = self.alone(name, feature)
        return self.join_one(features), ()

    def decode(
        self,
        features: dict[str, Any],
        training: bool | None,
        presence: Any | None = None,
        experts: Sequence[str] | None = None,
    ) -> Outputs:
        """Computes unimodal logits, and the joint logits as `fused`."""
        outputs = super().decode(features, training, presence, experts)
        if len(features) < len(self.modalities) or not same_size(features):
            return outputs  # Unpaired data: nothing to join.
        joint, kept = self.joined(features, presence, training)
        joint = ops.cast(joint, "float32")
        if presence is not None:
            known = ops.any(presence, axis=1, keepdims=True)
            joint = ops.where(known, joint, ops.zeros_like(joint))
        return outputs._replace(fused=joint, kept=kept)

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers, by the loss of the joint logits."""
        return [Update(self.modalities, (self,), losses=("fused",))]

    def fuse(self, outputs: Outputs, presence: Any | None) -> Any:
        """Returns the joint logits, `(batch, units)`."""
        if outputs.fused is None:  # Each update has encoded one modality.
            outputs = self.decode(outputs.features, False, presence, ())
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

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "impute": self.impute}


@keras.saving.register_keras_serializable(package="keras_mla")
class ShareOfHead(keras.layers.Layer):
    """Applies a `Dense` head with only a share of its bias.

    It holds no weights of its own. It is a layer so that a `unimodal` model
    follows the head's bias, and can be saved.

    Args:
        head: The `keras.layers.Dense`.
        share: float. The part of the bias that is added.
        **kwargs: Arguments of `keras.layers.Layer`.
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
        """Returns logits `(batch, units)`."""
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
        """Makes a layer from its config."""
        head = keras.saving.deserialize_keras_object(config["head"])
        return cls(**{**config, "head": head})
