from typing import Any

import keras
from keras import ops

from keras_mla.backend import kernels
from keras_mla.layers.fusion.base import Fusion, check_task


@keras.saving.register_keras_serializable(package="keras_mla")
class EntropyFusion(Fusion):
    r"""Weights each modality by how certain its own prediction is.

    With $e_m$ the entropy of modality $m$'s predicted distribution for one
    sample,

    $$e_m = -p_m^T \log p_m, \quad p_m = \mathrm{softmax}(z_m), \qquad
      \lambda_m = \frac{\exp(-e_m)}{\sum_v \exp(-e_v)}, \qquad
      z = \sum_m \lambda_m z_m,$$

    with sums over the modalities that the sample has. In a calibrated model,
    logits are first divided by the temperatures, and $-e_m$ is multiplied by a
    fitted `sharpness`. It is 1 before calibration; 0 gives the average. The
    paper's Eq. 8 adds the largest entropy to every exponent, which cancels.
    The weights of a sample do not depend on the other samples of the batch.

    If a sample has any number of labels, $e_m$ is the mean entropy of the
    labels, each of which is a yes or no. Regression has no entropy and is
    refused.

    Args:
        task: `"single_label"` or `"multi_label"`. A model sets it to its own
            task. Defaults to `"single_label"`.
        **kwargs: Arguments of `keras.layers.Layer`. Weights and results are
            float32 under any dtype policy.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
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

    tasks = ("single_label", "multi_label")

    def __init__(self, task: str = "single_label", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task = check_task(self, task)

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
        minus_entropy = self._minus_entropy(self.calibrated(logits))
        score = self.sharpness * minus_entropy
        if presence is not None:
            # Lower than any other score, so that the exponential is 0.
            absent = 1 - ops.cast(presence, "float32")
            score = kernels.zero_unless(presence, score) - 1e9 * absent
        # Not Keras's softmax, which warns if there is one modality.
        weights = ops.exp(ops.log_softmax(score, axis=-1))
        if presence is not None:
            # A sample without any modality gets zero weights too.
            weights = ops.where(presence, weights, ops.zeros_like(weights))
        return weights

    def _minus_entropy(self, logits: Any) -> Any:
        if self.task == "multi_label":
            yes, no = -ops.softplus(-logits), -ops.softplus(logits)
            entropies = ops.exp(yes) * yes + ops.exp(no) * no
            return ops.mean(entropies, axis=-1)
        log_p = ops.log_softmax(logits, axis=-1)
        # A finite logarithm, so that a class of probability 0 adds exactly 0.
        log_p = ops.maximum(log_p, -1e30)
        return ops.sum(ops.exp(log_p) * log_p, axis=-1)

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "task": self.task}
