from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from keras_mla.core.batch import Batch
from keras_mla.core.late import MultiLossModel
from keras_mla.core.update import Outputs, Update
from keras_mla.models.balanced.modulation import (
    check_several,
    for_encoders,
    likelihoods,
    scores_and_rivals,
)


@keras.saving.register_keras_serializable(package="keras_mla")
class MLB(MultiLossModel):
    r"""Multi-loss balanced training.

    Trains with a joint loss and a loss for each modality, as `MultiLossFusion`
    does, and speeds up the encoder of a modality that is behind, or slows down
    one that is ahead. With $p_m = \mathrm{softmax}(z_m)$,

    $$s_m = \frac1B \sum_i p_m(x_i)[y_i], \qquad
      r_m = \frac{1}{M-1} \sum_{v \ne m} \frac{s_v}{s_m}, \qquad
      k_m = 1 + (\beta_m - 1) \tanh(\alpha (r_m - 1)),$$

    with $\beta_m = \beta$ if $r_m > 1$, else 2. All gradients of encoder $m$
    are multiplied by $k_m$; those of heads stay. With `presence`, $s_m$ is a
    mean over the samples that have the modality, and a modality that no sample
    of the batch has takes part in no comparison.

    Independent studies found it among the better balancing methods, and no
    better than a joint head on encoders that were trained alone (`UniPre`).

    Args:
        encoders: dict of modality name to Keras layer or model, each mapping
            its modality to features `(batch, features)`. Widths may differ.
            There must be at least two.
        head: int, the number of classes; or a `keras.layers.Dense`; or a
            `keras.Sequential` that ends in one. It returns logits. Each other
            modality gets a new head like it.
        feature_dim: int. If given, a linear projection per modality brings
            its features to this width. Its gradients are scaled with the
            encoder's.
        fusion: `Fusion` layer. Defaults to `AdditiveFusion()`.
        alpha: float >= 0. How soon a difference counts. Defaults to `1.0`.
        beta: float >= 1. The largest factor of a modality that is behind.
            Defaults to `2.0`; the paper takes 10 for CREMA-D.
        **kwargs: `task`, `allow_nan`, `table` and `modality_dropout`, as for
            `MultimodalModel`; `name`, `dtype`.

    Call arguments:
        inputs: dict keyed by modality, and optionally `"presence"`, bool of
            shape `(batch, modalities)`.
        training: bool. Whether layers behave as in training.

    Returns:
        Fused logits, float32 of shape `(batch, classes)`.

    Raises:
        TypeError: If an encoder or `fusion` is of a wrong type.
        ValueError: If there are fewer than two modalities, an argument is out
            of its range, or encoders, head or inputs do not fit together.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.models.MLB(encoders, head=3, beta=10.0)
    >>> x = {"image": np.ones((2, 4)), "text": np.ones((2, 4))}
    >>> model.predict(x, verbose=0).shape
    (2, 3)

    Reference:
        Kontras et al., "Improving Multimodal Learning with Multi-Loss Gradient
        Modulation", BMVC 2024, section 3.
    """

    tasks = ("single_label", "multi_label")

    def __init__(
        self,
        encoders: Mapping[str, keras.layers.Layer],
        head: int | keras.layers.Layer,
        feature_dim: int | None = None,
        fusion: Any = None,
        alpha: float = 1.0,
        beta: float = 2.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(encoders, head, feature_dim, fusion, **kwargs)
        check_several(self)
        if not alpha >= 0 or not beta >= 1:
            raise ValueError(
                "`alpha` must be at least 0, and `beta` at least 1. "
                f"Received: alpha={alpha}, beta={beta}"
            )
        self.alpha = float(alpha)
        self.beta = float(beta)

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
        # A score of zero is as far behind as can be.
        ratio = others / ops.maximum(score, 1e-30)
        most = ops.where(ratio > 1, self.beta - 1, 1.0)
        factor = 1 + most * ops.tanh(self.alpha * (ratio - 1))
        valid = ops.logical_and(rivals, score + others > 0)
        return ops.where(valid, factor, ops.ones_like(factor))

    def modify_gradients(
        self, update: Update, gradients: list, outputs: Outputs, batch: Batch
    ) -> tuple[list, list]:
        """Scales the encoders' gradients."""
        factors = self.coefficients(outputs, batch)
        return for_encoders(
            self,
            update,
            gradients,
            lambda index, g: g * ops.cast(factors[index], g.dtype),
        ), []

    def get_config(self) -> dict:
        """Returns the constructor's arguments, serialized."""
        return {**super().get_config(), "alpha": self.alpha, "beta": self.beta}
