from typing import Any

import keras
from keras import ops

from keras_mla.layers.fusion.base import Fusion


@keras.saving.register_keras_serializable(package="keras_mla")
class InverseVarianceFusion(Fusion):
    r"""Weights each modality by how exact its predictions are on average.

    $$\lambda_m = \frac{\sigma_m^{-2}}{\sum_v \sigma_v^{-2}}, \qquad
      z = \sum_m \lambda_m z_m,$$

    with sums over the modalities that a sample has. Each variance $\sigma_m^2$
    is 1, so that the fusion is the average, until a model's `calibrate` sets
    it to the mean squared error of the modality's own predictions on
    validation data. If the errors of modalities are independent, no other
    weights give a smaller expected error.

    Call arguments:
        logits: Predictions, a tensor of shape `(batch, modalities, targets)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
            every modality is present.

    Returns:
        Fused predictions, float32 of shape `(batch, targets)`.

    Example:
    >>> predictions = np.array([[[1.0], [4.0]]], "float32")
    >>> fusion = keras_mla.layers.InverseVarianceFusion()
    >>> float(fusion(predictions)[0, 0])
    2.5
    >>> variances = fusion.variance.assign([1.0, 0.5])
    >>> round(float(fusion(predictions)[0, 0]), 4)
    3.0

    Reference:
        Cochran, "Problems Arising in the Analysis of a Series of Similar
        Experiments", Supplement to the JRSS 4, 1937.
    """

    def build(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> None:
        """Creates a variance for each modality."""
        super().build(logits_shape, presence_shape)
        self.variance = self.add_weight(
            shape=(logits_shape[1],),
            initializer="ones",
            trainable=False,
            name="variance",
        )

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns lambda, float32 of shape `(batch, modalities)`."""
        logits = self._prepared(logits)
        precision = ops.ones(ops.shape(logits)[:2], "float32") / self.variance
        if presence is not None:
            precision = ops.where(
                presence, precision, ops.zeros_like(precision)
            )
        total = ops.sum(precision, axis=-1, keepdims=True)
        return precision / ops.where(total > 0, total, ops.ones_like(total))
