from typing import Any

import keras
from keras import ops

from keras_mla.layers.fusion.additive import AdditiveFusion


@keras.saving.register_keras_serializable(package="keras_mla")
class PoolFusion(AdditiveFusion):
    r"""Pools the modalities' predictions with one weight for each.

    With the temperatures $T_m$ and the factor $s$ of every `Fusion`,

    $$z = s \Big(\sum_m w_m \frac{z_m}{T_m} + b\Big), \qquad w_m \ge 0,$$

    with the sum over the modalities that a sample has; its softmax is the
    log-linear pool $\prod_m p_m^{w_m} e^{b}$ of the predictions
    $p_m = \mathrm{softmax}(z_m / T_m)$. Weights are 1 and the bias $b$ is 0
    until a model's `calibrate(method="joint")` fits them: it puts this layer
    in the place of the model's own fusion. A weight of 0 switches a modality
    off. A sample without any modality gets zero logits.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Example:
    >>> logits = np.array([[[2.0, 0.0], [0.0, 4.0]]], "float32")
    >>> fusion = keras_mla.layers.PoolFusion()
    >>> fused = fusion(logits)
    >>> weights = fusion.weight.assign([1.0, 0.25])
    >>> bias = fusion.bias.assign([0.0, 0.5])
    >>> keras.ops.convert_to_numpy(fusion(logits))
    array([[2. , 1.5]], dtype=float32)

    Reference:
        Genest and Zidek, "Combining Probability Distributions: A Critique and
        an Annotated Bibliography", Statistical Science 1986.
    """

    tasks = ("single_label", "multi_label")

    def build(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> None:
        """Creates a weight for each modality, and a bias for each class."""
        super().build(logits_shape, presence_shape)
        self.weight = self.add_weight(
            shape=(logits_shape[1],),
            initializer="ones",
            trainable=False,
            name="weight",
        )
        self.bias = self.add_weight(
            shape=(logits_shape[2],),
            initializer="zeros",
            trainable=False,
            name="bias",
        )

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns w, float32 of shape `(batch, modalities)`."""
        self._prepared(logits)
        return super().weights_of(logits, presence) * self.weight

    def combine(self, weights: Any, logits: Any, presence: Any | None) -> Any:
        """Returns the weighted sum of calibrated logits, and the bias."""
        fused = super().combine(weights, logits, presence)
        bias = self.scale * self.bias
        if presence is not None:
            known = ops.any(presence, axis=1, keepdims=True)
            bias = ops.cast(known, "float32") * bias
        return fused + bias
