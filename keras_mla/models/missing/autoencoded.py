"""The base class of methods that classify what an autoencoder returns."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.update import Outputs
from keras_mla.models.missing.cascade import CascadedAutoencoder, dense_stack
from keras_mla.models.missing.reconstruction import ReconstructionModel


class AutoencodedModel(ReconstructionModel):
    r"""Base class of methods that classify what an autoencoder returns.

    $$c = A([\tilde f_1; \dots; \tilde f_M]), \qquad \hat f_m = D_m(c),
      \qquad z = g(C(c)),$$

    with $\tilde f_m$ the features of a present modality and zeros for an
    absent one, an autoencoder A, a decoder $D_m$ of each modality, hidden
    layers C and the head g. A subclass makes `autoencoder`.

    The features to reconstruct are those of the model's own encoders, which
    encode true values and what is shown in one pass: behind them, hidden
    features become zeros. If a batch shows a modality in no sample, its
    encoder does not work in it, and its entries are not reconstructed.

    Args:
        encoders: dict of modality name to Keras layer or model.
        head: int, the number of classes; or a layer, as for `JointModel`.
        feature_dim: int. If given, the width of projected features.
        decoder: Sequence of int. Widths of the hidden layers of a decoder.
            Defaults to `(128, 128)`.
        classifier: Sequence of int. Widths of the hidden layers before the
            head. Defaults to `(128, 128)`.
        **kwargs: Arguments of `ReconstructionModel`.
    """

    autoencoder: CascadedAutoencoder

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        decoder: Sequence[int] = (128, 128),
        classifier: Sequence[int] = (128, 128),
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        self.decoder = tuple(decoder)
        self.classifier = tuple(classifier)

    def build_head(self, widths: dict[str, int]) -> None:
        """Builds the autoencoder, the decoders, the hidden layers, the head."""
        total = sum(widths.values())
        self.autoencoder.build((None, total))
        self.decoders = {
            name: dense_stack(
                (*self.decoder, width), f"{name}_decoder", last=False
            )
            for name, width in widths.items()
        }
        for decoder in self.decoders.values():
            decoder.build((None, total))
        self.hidden = dense_stack(self.classifier, "classifier")
        self.hidden.build((None, total))
        if not self.head.built:
            self.head.build((None, (total, *self.classifier)[-1]))

    def true_features(self, values: dict[str, Any], known: Any) -> dict:
        """Returns what the encoders are to encode: the true values."""
        return {"values": values}

    def prepare_batch(self, batch: Batch) -> Batch:
        """Hides entries from what follows the encoders, not from encoders."""
        batch = super().prepare_batch(batch)
        if not batch.extra:
            return batch
        hidden = batch.extra["hidden"]
        if batch.presence is not None:
            at_work = ops.any(batch.presence, axis=0, keepdims=True)
            hidden = ops.logical_and(hidden, at_work)
        extra = {**batch.extra, "hidden": hidden}
        return dataclasses.replace(
            batch, inputs=batch.extra["values"], extra=extra
        )

    def targets_of(self, outputs: Outputs, batch: Batch) -> dict[str, Any]:
        """Returns the features of the same pass, without gradients."""
        return {
            name: ops.stop_gradient(feature)
            for name, feature in outputs.features.items()
        }

    def joined(
        self,
        features: dict[str, Any],
        presence: Any | None,
        training: bool | None,
    ) -> tuple[Any, Any]:
        """Returns the logits of what the autoencoder returns, and guesses."""
        shown = self.shown(features, presence, training)
        code, _ = self.autoencoder(self.beside(shown))
        guesses = {name: self.decoders[name](code) for name in self.modalities}
        hidden = self.hidden(code, training=training)
        logits = self.head(hidden, training=training)
        return logits, {"guesses": guesses}

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "decoder": list(self.decoder),
            "classifier": list(self.classifier),
        }
