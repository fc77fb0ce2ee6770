from typing import Any

import keras
from keras import ops

from keras_mla import training as backend


class Fusion(keras.layers.Layer):
    r"""Weighted sum of the modalities' logits, with weights per sample.

    A subclass defines `weights_of`. Absent modalities weigh nothing, whatever
    their logits hold; a sample without any modality gets zero logits.

    With a temperature $T_m$ for each modality and a factor $s$ to the sum,
    all 1 until `calibrate` of a model fits them,

    $$z = s \sum_m \lambda_m \frac{z_m}{T_m}.$$

    They are weights of the layer, not trained, and so saved and exported.
    (Fusing log-probabilities instead of logits would change nothing: the two
    differ by a number that is the same for all classes.)

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` where
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.
    """

    def __init__(self, **kwargs: Any) -> None:
        # Confidences are compared in full precision under any policy.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def build(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> None:
        """Creates the temperatures, for `(batch, modalities, classes)`."""
        self.temperature = self.add_weight(
            shape=(logits_shape[1],),
            initializer="ones",
            trainable=False,
            name="temperature",
        )
        self.scale = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="scale"
        )

    def calibrated(self, logits: Any) -> Any:
        """Returns logits over temperatures, in float32."""
        return self._prepared(logits) / self.temperature[:, None]

    def _prepared(self, logits: Any) -> Any:
        if not self.built:
            self.build(tuple(logits.shape))
        return ops.cast(logits, "float32")

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the weights, float32 of shape `(batch, modalities)`."""
        raise NotImplementedError

    def call(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the fused logits."""
        return self.combine(self.weights_of(logits, presence), logits, presence)

    def combine(self, weights: Any, logits: Any, presence: Any | None) -> Any:
        """Returns the weighted sum of calibrated logits."""
        logits = self._prepared(logits)
        if presence is not None:
            # `where`: what stands for an absent modality may be NaN.
            logits = ops.where(
                presence[..., None], logits, ops.zeros_like(logits)
            )
        weights = weights * (self.scale / self.temperature)
        return ops.sum(weights[..., None] * logits, axis=1)


@keras.saving.register_keras_serializable(package="keras_mla")
class EntropyFusion(Fusion):
    r"""Weighs each modality by how certain its own prediction is.

    With $e_m$ the entropy of modality $m$'s predicted distribution for one
    sample,

    $$e_m = -p_m^T \log p_m, \quad p_m = \mathrm{softmax}(z_m), \qquad
      \lambda_m = \frac{\exp(-e_m)}{\sum_v \exp(-e_v)}, \qquad
      z = \sum_m \lambda_m z_m,$$

    over the modalities that the sample has. Once a model is calibrated,
    logits are divided by temperatures first, and $-e_m$ is multiplied by a
    fitted `sharpness`, 1 until then: 0 is the average. The paper's Eq. 8
    adds the largest entropy to every exponent, which cancels. Nothing depends
    on the other samples of the batch.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` where
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Example:
    >>> certain, uncertain = [8.0, 0.0], [0.0, 0.1]
    >>> logits = np.array([[certain, uncertain]], "float32")
    >>> fusion = keras_mla.layers.EntropyFusion()
    >>> keras.ops.convert_to_numpy(fusion.weights_of(logits)).round(2)
    array([[0.67, 0.33]], dtype=float32)

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, Eqs. 6 to 8.
    """

    def build(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> None:
        """Creates the temperatures, and the sharpness of the weights."""
        super().build(logits_shape, presence_shape)
        self.sharpness = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="sharpness"
        )

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns lambda, float32 of shape `(batch, modalities)`."""
        log_p = ops.log_softmax(self.calibrated(logits), axis=-1)
        # A class with no probability adds exactly 0: its log is kept finite.
        log_p = ops.maximum(log_p, -1e30)
        minus_entropy = ops.sum(ops.exp(log_p) * log_p, axis=-1)
        score = self.sharpness * minus_entropy
        if presence is not None:
            # Below any other, so that its exponential is 0.
            absent = 1 - ops.cast(presence, "float32")
            score = backend.zero_unless(presence, score) - 1e9 * absent
        # Keras's softmax warns of a single modality.
        weights = ops.exp(ops.log_softmax(score, axis=-1))
        if presence is not None:
            # Zero too where a sample has no modality.
            weights = ops.where(presence, weights, ops.zeros_like(weights))
        return weights


@keras.saving.register_keras_serializable(package="keras_mla")
class AverageFusion(Fusion):
    """Averages the logits of the modalities that a sample has.

    The ablation of `EntropyFusion`, and the usual late fusion.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` where
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


@keras.saving.register_keras_serializable(package="keras_mla")
class AdditiveFusion(Fusion):
    """Adds the logits of the modalities that a sample has.

    The fusion of `MultiLossFusion`.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` where
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


@keras.saving.register_keras_serializable(package="keras_mla")
class EnergyFusion(Fusion):
    r"""Weighs each modality by the energy of its logits.

    $$c_m = \tfrac1{10} \log \sum_j \exp z_{m,j}, \qquad
      z = \sum_m \mathrm{sg}(c_m)\, z_m,$$

    over the modalities that a sample has, with $\mathrm{sg}$ a stopped
    gradient. The fusion of `QMF`.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` where
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Example:
    >>> logits = np.log(np.array([[[1.0, 3.0], [4.0, 4.0]]], "float32"))
    >>> weights = keras_mla.layers.EnergyFusion().weights_of(logits)
    >>> keras.ops.convert_to_numpy(10 * weights).round(3)
    array([[1.386, 2.079]], dtype=float32)

    Reference:
        Zhang et al., "Provable Dynamic Fusion for Low-Quality Multimodal
        Data", ICML 2023, section 4.
    """

    # Scale of the energy that serves as a confidence.
    DIVISOR = 10.0

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns c, float32 of shape `(batch, modalities)`."""
        energy = ops.logsumexp(self.calibrated(logits), axis=-1) / self.DIVISOR
        if presence is None:
            return energy
        return ops.where(presence, energy, ops.zeros_like(energy))

    def call(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the fused logits."""
        return self.combine(
            ops.stop_gradient(self.weights_of(logits, presence)),
            logits,
            presence,
        )
