"""The base class of methods that classify what an autoencoder returns."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mla.models.missing.cascade import CascadedAutoencoder, dense_stack
from keras_mla.models.missing.reconstruction import ReconstructionModel


class AutoencodedModel(ReconstructionModel):
    r"""Base class of methods that classify what an autoencoder returns.

    $$c = A([\tilde f_1; \dots; \tilde f_M]), \qquad \hat f_m = D_m(c),
      \qquad z = g(C(c)),$$

    with $\tilde f_m$ the features of a present modality and zeros for an
    absent one, an autoencoder A, a decoder $D_m$ of each modality, hidden
    layers C and the head g. A subclass makes `autoencoder`.

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
