from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.joint import JointModel
from keras_mla.core.update import Outputs, Update
from keras_mla.models.balanced.modulation import (
    check_several,
    for_encoders,
    likelihoods,
    scores_and_rivals,
)


@keras.saving.register_keras_serializable(package="keras_mla")
class OGMGE(JointModel):
    r"""On-the-fly gradient modulation with generalization enhancement.

    Trains jointly, as `ConcatFusion` does, and slows down the encoder of a
    modality that is ahead. With $p_m = \mathrm{softmax}(W_m f_m + b / M)$,

    $$s_m = \sum_i p_m(x_i)[y_i], \qquad
      \rho_m = \frac{s_m}{\frac{1}{M-1}\sum_{v \ne m} s_v}, \qquad
      k_m = \begin{cases} 1 - \tanh(\alpha \rho_m) & \rho_m > 1 \\
      1 & \text{otherwise,} \end{cases}$$

    each gradient $g$ of encoder $m$ becomes $k_m g + \epsilon$ with $\epsilon$
    drawn from $N(0, \mathrm{std}(g)^2)$ for every element: the generalization
    enhancement. The head's gradient does not change. With more than the
    paper's two modalities, $s_m$ is compared with the mean of the others'
    scores.

    With `presence`, $s_m$ is a mean over the samples that have the modality,
    and a modality that no sample of the batch has takes part in no comparison.
    The features of absent modalities are zeros in the joint prediction.

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits.
        feature_dim: int. If given, a linear projection per modality brings its
            features to this width. The projection is modulated with the
            encoder.
        alpha: float >= 0. The strength of the slowdown of a modality that is
            ahead. Defaults to `0.8`.
        epochs: tuple of two ints, counted from 0 as in `fit`: the first epoch
            with modulation and the first epoch after it. Outside of `fit`,
            modulation keeps its last state; in a new model it is on. Defaults
            to `(0, 50)`.
        noise: bool. Whether to add the noise (OGM-GE) or not (OGM). Defaults
            to `True`.
        seed: int. Seed of the noise. Defaults to `None`, a random seed.
        **kwargs: `impute`, as for `keras_mla.core.JointModel`; `task`,
            `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder is not a Keras layer.
        ValueError: If there are fewer than two modalities, an argument is out
            of its range, or encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.OGMGE(encoders, head=3, alpha=0.1, seed=1)
    >>> model.epochs
    (0, 50)

    Reference:
        Peng et al., "Balanced Multimodal Learning via On-the-fly Gradient
        Modulation", CVPR 2022, Eqs. 8 to 10 and 13.
    """

    tasks = ("single_label", "multi_label")

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        alpha: float = 0.8,
        epochs: tuple[int, int] = (0, 50),
        noise: bool = True,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, **kwargs)
        check_several(self)
        if not alpha >= 0:
            raise ValueError(
                f"`alpha` must be at least 0. Received: alpha={alpha}"
            )
        if len(epochs) != 2 or not 0 <= epochs[0] <= epochs[1]:
            raise ValueError(
                "`epochs` must be two ints `(first, after)`, with "
                "0 <= first <= after: the first epoch with modulation and the "
                f"first epoch after it. Received: epochs={epochs}"
            )
        # === Config ===
        self.alpha = float(alpha)
        self.epochs = (int(epochs[0]), int(epochs[1]))
        self.noise = bool(noise)
        self.seed = seed
        # === State ===
        self.noise_seed = keras.random.SeedGenerator(seed)
        self.modulating = self.add_weight(
            shape=(), initializer="ones", trainable=False, name="modulating"
        )

    def own_callbacks(self) -> list[keras.callbacks.Callback]:
        """Returns a callback that switches the modulation on and off."""

        def switch(epoch: int, logs: dict | None = None) -> None:
            first, after = self.epochs
            self.modulating.assign(float(first <= epoch < after))

        return [keras.callbacks.LambdaCallback(on_epoch_begin=switch)]

    def batch_means(
        self, update: Update, outputs: Outputs, batch: Batch
    ) -> dict[str, tuple[Any, Any | None]]:
        """Asks for the mean likelihood of the labels by each modality."""
        return likelihoods(self, outputs, batch)

    def coefficients(self, outputs: Outputs, batch: Batch) -> Any:
        """Returns k of each modality, float32 of shape `(modalities,)`.

        Args:
            outputs: `Outputs` of the update's forward pass, with the means that
                `batch_means` asks for.
            batch: The `Batch`.
        """
        score, others, rivals = scores_and_rivals(self, outputs, batch)
        comparable = ops.logical_and(others > 0, rivals)
        ratio = ops.where(
            comparable,
            score / ops.where(comparable, others, ops.ones_like(others)),
            ops.zeros_like(score),
        )
        slowed = ops.where(
            ratio > 1, 1 - ops.tanh(self.alpha * ratio), ops.ones_like(ratio)
        )
        return ops.where(self.modulating > 0, slowed, ops.ones_like(slowed))

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Scales the encoders' gradients, and adds the noise."""
        coefficients = self.coefficients(outputs, batch)
        return for_encoders(
            self,
            update,
            gradients,
            lambda index, g: self._modulate(g, coefficients[index]),
        ), []

    def _modulate(self, gradient: Any, coefficient: Any) -> Any:
        modulated = gradient * ops.cast(coefficient, gradient.dtype)
        if self.noise:
            # In float32: the square of a loss-scaled float16 may overflow.
            deviation = ops.std(ops.cast(gradient, "float32"))
            noise = keras.random.normal(
                gradient.shape, dtype="float32", seed=self.noise_seed
            )
            added = ops.cast(self.modulating, "float32") * deviation * noise
            modulated = modulated + ops.cast(added, gradient.dtype)
        return modulated

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "epochs": self.epochs,
            "noise": self.noise,
            "seed": self.seed,
        }
