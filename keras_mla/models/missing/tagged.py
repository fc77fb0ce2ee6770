"""The base class of both stages of TATE."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import layers, ops

from keras_mla.core.batch import Batch
from keras_mla.core.losses import MeanLoss
from keras_mla.core.update import Outputs
from keras_mla.layers.transformer import Transformer
from keras_mla.models.missing.tag_encoder import (
    TagEncoder,
    attended,
    check_sequence,
    split_sequence,
)
from keras_mla.models.missing.terms import (
    TermsModel,
    check_weight,
    counted_mean,
)


class TaggedModel(TermsModel):
    r"""Base class of the two stages of `TATE`.

    Features are sequences. `TagEncoder` encodes the steps of all modalities
    together, each with a tag that says which modalities there are. A decoder
    is to give back what the encoder was given, and the pooled encoding is to
    tell the tag:

    $$E = \mathrm{Encoder}(I), \quad D = \mathrm{Decoder}(E), \quad
      r = \mathrm{Pool}(E), \quad z = g(\mathrm{ReLU}(C r)).$$

    Absent modalities and padding are masked. A unimodal score is the
    prediction with all other modalities absent.

    Args:
        encoders: dict of modality name to Keras layer or model.
        head: int, the number of classes; or a layer, as for `JointModel`.
        feature_dim: int. If given, the width of projected features.
        width: int. Width of the common spaces. Defaults to `300`.
        num_heads: int. Attention heads; must divide `width`. Defaults to `4`.
        depth: int. The number of blocks of each Transformer. Defaults to `1`.
        dropout: float. Rate in the blocks. Defaults to `0.2`.
        decoding_weight: float >= 0. The weight of the divergence of what is
            decoded. Defaults to `0.1`.
        tag_weight: float >= 0. The weight of the error of the tag. Defaults to
            `0.1`.
        l2_weight: float >= 0. The weight of the squares of the head's weights.
            Defaults to `1e-4`.
        **kwargs: Arguments of the next class.
    """

    terms_named: tuple[str, ...] = ("decoding", "tag", "l2")

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        width: int = 300,
        num_heads: int = 4,
        depth: int = 1,
        dropout: float = 0.2,
        decoding_weight: float = 0.1,
        tag_weight: float = 0.1,
        l2_weight: float = 1e-4,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        if len(self.modalities) < 2:
            raise ValueError(
                "This method has a common space for each pair of modalities, "
                "and needs at least two. "
                f"Received: encoders for {list(self.modalities)}"
            )
        if self.impute != "zeros":
            raise ValueError(
                "This method masks absent modalities, and puts nothing in "
                f"their place. Received: impute={self.impute!r}"
            )
        # === Config ===
        self.width = width
        self.num_heads = num_heads
        self.depth = depth
        self.dropout = float(dropout)
        self.decoding_weight = check_weight("decoding_weight", decoding_weight)
        self.tag_weight = check_weight("tag_weight", tag_weight)
        self.l2_weight = check_weight("l2_weight", l2_weight)
        # === Layers ===
        self.tag_encoder = TagEncoder(
            self.modalities,
            width,
            num_heads,
            depth,
            dropout,
            name="tag_encoder",
        )
        self.decoder = Transformer(
            depth, num_heads, dropout=dropout, name="decoder"
        )
        self.hidden = layers.Dense(width, "relu", name="hidden")

    # === Features ===

    def check_features(self, name: str, feature: Any) -> None:
        """Raises unless an encoder's output is a sequence, or a vector."""
        check_sequence(name, feature)

    def width_of(self, feature: Any) -> int:
        """Returns the width of one modality's features."""
        return int(split_sequence(feature)[0].shape[-1])

    def project_features(self, name: str, feature: Any) -> Any:
        """Brings the features of each step to `feature_dim`, if it is given."""
        if not isinstance(feature, dict):
            return super().project_features(name, feature)
        projected = super().project_features(name, feature["features"])
        return {**feature, "features": projected}

    # === Prediction ===

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds encoder, decoder, hidden layer and head."""
        self.tag_encoder.build({m: (None, None, n) for m, n in widths.items()})
        self.decoder.build((None, None, self.tag_encoder.total))
        self.hidden.build((None, self.tag_encoder.total))
        if not self.head.built:
            self.head.build((None, self.width))

    def encode_steps(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
        names: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Returns what `TagEncoder` makes of features.

        Args:
            features: dict of what encoders return.
            presence: Bool tensor of shape `(batch, modalities)`, or `None`.
            training: bool. Whether layers behave as in training.
            names: Names of the modalities to encode, in the order of their
                steps. Defaults to all.
        """
        names = tuple(names or self.modalities)
        split = {name: split_sequence(features[name]) for name in names}
        return self.tag_encoder(
            {name: values for name, (values, _) in split.items()},
            {name: m for name, (_, m) in split.items() if m is not None},
            presence,
            names=names,
            training=training,
        )

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the logits, and what losses compare."""
        found = self.encode_steps(features, presence, training)
        decoded = self.decoder(
            found["encoded"],
            padding_mask=attended(found["shown"]),
            training=training,
        )
        logits = self.classify(found["pooled"], training)
        return logits, {**found, "decoded": decoded}

    def unimodal_pass(
        self, name: str, feature: Any, training: bool | None
    ) -> tuple[Any, Any]:
        """Returns the prediction with all other modalities absent."""
        found = self.encode_steps({name: feature}, None, False, (name,))
        return self.classify(found["pooled"], False), ()

    def classify(self, pooled: Any, training: bool | None) -> Any:
        """Returns the logits of a pooled encoding."""
        return self.head(self.hidden(pooled), training=training)

    # === Losses ===

    def terms(
        self, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[float, MeanLoss]]:
        """Returns the weights and values of decoding, tag and L2."""
        kept = outputs.kept
        known = batch.known()
        tag = ops.cast(kept["tag"], "float32")
        told = ops.cast(kept["pooled"][:, -tag.shape[1] :], "float32")
        far = ops.mean(ops.abs(tag - ops.sigmoid(told)), 1, keepdims=True)
        ones = ops.ones_like(far)
        if known is not None:
            ones = ops.cast(known[:, None], far.dtype)
            far = ops.where(known[:, None], far, ops.zeros_like(far))
        error = counted_mean(far, ones)
        squares = [
            ops.sum(ops.square(ops.cast(v, "float32")))
            for v in self.head.trainable_variables
        ]
        decoding = divergence(kept["decoded"], kept["given"], kept["shown"])
        # Of all samples that count, so that it is a replica's part.
        l2 = counted_mean(sum(squares, 0.0) * ones, ones)
        return {
            "decoding": (self.decoding_weight, decoding),
            "tag": (self.tag_weight, error),
            "l2": (self.l2_weight, l2),
        }

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        config = {
            **super().get_config(),
            "width": self.width,
            "num_heads": self.num_heads,
            "depth": self.depth,
            "dropout": self.dropout,
            "decoding_weight": self.decoding_weight,
            "tag_weight": self.tag_weight,
            "l2_weight": self.l2_weight,
        }
        config.pop("impute")
        return config


def divergence(first: Any, second: Any, counted: Any) -> MeanLoss:
    r"""Returns the symmetric Kullback-Leibler divergence of steps.

    With $p = \mathrm{softmax}(a)$ and $q = \mathrm{softmax}(b)$ over the
    features of a step, it is $\mathrm{KL}(p \Vert q) +
    \mathrm{KL}(q \Vert p) = \sum_i (p_i - q_i)(\log p_i - \log q_i)$, averaged
    over the counted steps of a sample and then over the samples that have any.

    Args:
        first: Tensor a of shape `(batch, steps, features)`.
        second: Tensor b of the same shape.
        counted: Bool tensor of shape `(batch, steps)`.
    """
    p, q = (
        ops.log_softmax(ops.cast(x, "float32"), axis=-1)
        for x in (first, second)
    )
    far = ops.sum((ops.exp(p) - ops.exp(q)) * (p - q), axis=-1)
    far = ops.where(counted, far, ops.zeros_like(far))
    number = ops.sum(ops.cast(counted, far.dtype), axis=1, keepdims=True)
    of_sample = ops.sum(far, axis=1, keepdims=True) / ops.maximum(number, 1)
    return counted_mean(of_sample, ops.cast(number > 0, far.dtype))
