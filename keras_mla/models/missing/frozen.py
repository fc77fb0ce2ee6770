"""The base class of joint methods whose encoders stay as they are."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_mla.core.joint import JointModel
from keras_mla.core.update import Update


class FrozenEncoders(JointModel):
    """Base class of joint methods that need frozen encoders.

    Args:
        encoders: dict of modality name to Keras layer or model with
            `trainable=False`, each mapping its modality to features
            `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a layer that returns logits.
        feature_dim: int. If given, a linear projection per modality, drawn at
            random and never trained, brings its features to this width.
        **kwargs: Arguments of `JointModel`.

    Raises:
        ValueError: If an encoder has trainable weights.
    """

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        for projection in self.projections.values():
            projection.trainable = False
        self.check_frozen()
        for encoder in self.encoders.values():
            if encoder.built:
                # Keras revives a frozen Sequential with this flag unset.
                encoder.trainable = False

    def check_frozen(self) -> None:
        """Raises if an encoder has trainable weights."""
        for name, encoder in self.encoders.items():
            if encoder.trainable_variables:
                raise ValueError(
                    f"{type(self).__name__} works on features that do not "
                    "change, and the encoder of modality "
                    f"{name!r} is trainable. Train it elsewhere, if need be, "
                    "and set `encoder.trainable = False` before you make the "
                    "model."
                )

    def updates(self) -> Sequence[Update]:
        """Returns one update of all layers that are trainable.

        Raises:
            ValueError: If an encoder has been made trainable since.
        """
        self.check_frozen()
        return super().updates()
