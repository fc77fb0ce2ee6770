from typing import Any

import keras
from keras import ops

from keras_mla.backend import kernels


class Fusion(keras.layers.Layer):
    r"""Weighted sum of the modalities' logits, with weights per sample.

    A subclass defines `weights_of`. Absent modalities have zero weight,
    whatever their logits hold; a sample without any modality gets zero logits.

    The temperature $T_m$ of each modality and the factor $s$ to the sum are 1
    until a model's `calibrate` fits them:

    $$z = s \sum_m \lambda_m \frac{z_m}{T_m}.$$

    They are non-trainable weights of the layer, so that they are saved and
    exported. (Fusing log-probabilities instead of logits would change no
    prediction: the two differ by a number that is the same for all classes.)

    Attributes:
        tasks: Names of the tasks that the fusion supports.
        task: Name of the task of the model that the fusion is a part of. The
            model sets it.

    Call arguments:
        logits: Tensor of shape `(batch, modalities, classes)`.
        presence: Bool tensor of shape `(batch, modalities)`, or `None` if
            every modality is present.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Example:
    >>> class FirstModality(keras_mla.layers.Fusion):
    ...     def weights_of(self, logits, presence=None):
    ...         return keras.ops.convert_to_tensor([[1.0, 0.0]])
    >>> logits = np.array([[[2.0, 0.0], [0.0, 4.0]]], "float32")
    >>> keras.ops.convert_to_numpy(FirstModality()(logits))
    array([[2., 0.]], dtype=float32)
    """

    tasks: tuple[str, ...] = ("single_label", "multi_label", "regression")
    task = "single_label"

    def __init__(self, **kwargs: Any) -> None:
        # Confidences are compared in full precision under any policy.
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)

    def build(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> None:
        """Creates the temperatures and the scale."""
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
        """Returns logits divided by the temperatures, in float32."""
        return self._prepared(logits) / self.temperature[:, None]

    def _prepared(self, logits: Any) -> Any:
        if not self.built:
            self.build(tuple(logits.shape))
        return ops.cast(logits, "float32")

    def weights_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the weights, float32 of shape `(batch, modalities)`."""
        raise NotImplementedError

    def factors_of(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the factors of the logits, `(batch, modalities)`.

        A factor is the weight times the scale, divided by the temperature.
        """
        logits = self._prepared(logits)
        weights = self.weights_of(logits, presence)
        return weights * (self.scale / self.temperature)

    def call(self, logits: Any, presence: Any | None = None) -> Any:
        """Returns the fused logits."""
        return self.combine(self.weights_of(logits, presence), logits, presence)

    def compute_output_shape(
        self, logits_shape: tuple, presence_shape: tuple | None = None
    ) -> tuple:
        """Returns `(batch, classes)`."""
        return logits_shape[0], logits_shape[2]

    def combine(self, weights: Any, logits: Any, presence: Any | None) -> Any:
        """Returns the weighted sum of calibrated logits."""
        logits = self._prepared(logits)
        if presence is not None:
            # `where`, not a product: logits of an absent modality may be NaN.
            logits = ops.where(
                presence[..., None], logits, ops.zeros_like(logits)
            )
        weights = weights * (self.scale / self.temperature)
        return ops.sum(weights[..., None] * logits, axis=1)


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


def check_task(fusion: Fusion, task: str) -> str:
    """Returns the name of a task, or raises if a fusion does not support it."""
    if task not in fusion.tasks:
        raise ValueError(
            f"{type(fusion).__name__} supports only the tasks "
            f"{list(fusion.tasks)}. For regression use "
            "`InverseVarianceFusion` or `AverageFusion`. "
            f"Received: task={task!r}"
        )
    return task
