from typing import Any

import keras
from keras import ops

from keras_mla.layers.fusion.base import Fusion


@keras.saving.register_keras_serializable(package="keras_mla")
class AverageFusion(Fusion):
    """Averages the logits of the modalities that a sample has.

    This is the ablation of `EntropyFusion`, and the usual late fusion.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Example:
    >>> logits = np.array([[[2.0, 0.0], [0.0, 4.0]]], "float32")
    >>> fused = keras_mla.layers.AverageFusion()(logits)
    >>> keras.ops.convert_to_numpy(fused)
    array([[1., 2.]], dtype=float32)
    """

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns 1 / count for present modalities, `(batch, modalities)`."""
        if presence is None:
            share = 1 / logits.shape[1]
            return ops.full(ops.shape(logits)[:2], share, "float32")
        present = ops.cast(presence, "float32")
        count = ops.sum(present, axis=-1, keepdims=True)
        return present / ops.maximum(count, 1)
