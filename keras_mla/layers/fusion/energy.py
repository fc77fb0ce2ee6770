from typing import Any

import keras
from keras import ops

from keras_mla.layers.fusion.base import Fusion, check_task


@keras.saving.register_keras_serializable(package="keras_mla")
class EnergyFusion(Fusion):
    r"""Weights each modality by the energy of its logits.

    $$c_m = \tfrac1{10} \log \sum_j \exp z_{m,j}, \qquad
      z = \sum_m \mathrm{sg}(c_m)\, z_m,$$

    with the sum over the modalities that a sample has, and $\mathrm{sg}$ a
    stopped gradient. This is the fusion of `QMF`. If a sample has any number
    of labels, each label has its own energy, and

    $$c_m = \tfrac1{10} \sum_j \log (1 + \exp z_{m,j}).$$

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
    >>> logits = np.log(np.array([[[1.0, 3.0], [4.0, 4.0]]], "float32"))
    >>> weights = keras_mla.layers.EnergyFusion().weights_of(logits)
    >>> keras.ops.convert_to_numpy(10 * weights).round(3)
    array([[1.386, 2.079]], dtype=float32)

    Reference:
        Zhang et al., "Provable Dynamic Fusion for Low-Quality Multimodal
        Data", ICML 2023, section 4. Wang et al., "Can Multi-Label
        Classification Networks Know What They Don't Know?", NeurIPS 2021,
        Eq. 4 (the energy of several labels).
    """

    tasks = ("single_label", "multi_label")
    # The confidence is the energy divided by this number.
    DIVISOR = 10.0

    def __init__(self, task: str = "single_label", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.task = check_task(self, task)

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns c, float32 of shape `(batch, modalities)`."""
        logits = self.calibrated(logits)
        if self.task == "multi_label":
            energy = ops.sum(ops.softplus(logits), axis=-1) / self.DIVISOR
        else:
            energy = ops.logsumexp(logits, axis=-1) / self.DIVISOR
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

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "task": self.task}
