from typing import Any

import keras
from keras import ops

from keras_mla.layers.fusion.base import Fusion


@keras.saving.register_keras_serializable(package="keras_mla")
class AdditiveFusion(Fusion):
    """Adds the logits of the modalities that a sample has.

    This is the fusion of `MultiLossFusion`.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Example:
    >>> logits = np.array([[[2.0, 0.0], [0.0, 4.0]]], "float32")
    >>> fused = keras_mla.layers.AdditiveFusion()(logits)
    >>> keras.ops.convert_to_numpy(fused)
    array([[2., 4.]], dtype=float32)
    """

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns 1 for present modalities, `(batch, modalities)`."""
        if presence is None:
            return ops.ones(ops.shape(logits)[:2], "float32")
        return ops.cast(presence, "float32")
