from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.backend import kernels

# The error of h^T P h in float32, by |h|^2 and the square root of the width.
_ROUNDING = 0.375 * float(np.finfo("float32").eps)


@keras.saving.register_keras_serializable(package="keras_mla")
class GradientProjector(keras.layers.Layer):
    r"""Projects the gradient of a shared kernel away from past features.

    Holds the matrix $P$ and applies the update of recursive least squares. At
    each step, with $\bar h$ the mean of the kernel's inputs over the batch,

    $$q = \frac{P \bar h}{\alpha + \bar h^T P \bar h}, \qquad
      P \leftarrow P - q\, \bar h^T P, \qquad
      \nabla W \leftarrow P\, \nabla W,$$

    so that a step for one modality hardly changes the kernel's outputs for the
    mean features of earlier steps, including steps of other modalities. $P$
    starts as the identity; the very first step leaves the gradient and $P$
    unchanged. With `order="current"` and the first step as $t = 0$, the closed
    form is $P_t = (I + \frac1\alpha \sum_{i=1}^t \bar h_i \bar h_i^T)^{-1}$,
    which says what $\alpha$ means: a direction that has carried a total of
    $\alpha$ in squared mean features is closed by half.

    With $H$ the kernel's inputs and $D$ the gradient at its outputs,
    $P\, \nabla W = (H P)^T D$, which is cheaper where the units outnumber the
    batch. `product` computes it in the backward pass.

    Args:
        alpha: float > 0. The smaller it is, the sooner a direction is closed.
            The paper names it but gives no value. Defaults to `1.0`.
        order: `"current"` updates P with the mean feature of the step that is
            projected (Algorithm 1 of the paper), `"previous"` with the mean
            feature of the step before (the text of section 3.2). Defaults to
            `"current"`.
        forgetting: float in (0, 1]. `lambda` of an exponential window: after
            each update, `P <- lambda * P + (1 - lambda) * I`, so that closed
            directions open again. Defaults to `1.0`, no forgetting.
        normalize: bool. Whether to divide P by its Frobenius norm after each
            update, as the authors' published code does but their paper does
            not. Defaults to `False`.
        **kwargs: Arguments of `keras.layers.Layer`. Weights and results are
            float32 under any dtype policy.

    Call arguments:
        gradient: Tensor of shape `(features, units)`.
        feature: Tensor of shape `(features,)`, the mean of the kernel's input.

    Returns:
        The projected gradient, `(features, units)`, of the gradient's dtype.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> projector = keras_mla.layers.GradientProjector(alpha=1.0)
    >>> feature = np.array([1.0, 0.0], "float32")
    >>> gradient = np.ones((2, 3), "float32")
    >>> first = projector(gradient, feature)    # as it was
    >>> second = projector(gradient, feature)   # first row halved
    >>> keras.ops.convert_to_numpy(second)[:, 0]
    array([0.5, 1. ], dtype=float32)

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, Eqs. 3 to 5 and Algorithm 1.
    """

    def __init__(
        self,
        alpha: float = 1.0,
        order: str = "current",
        forgetting: float = 1.0,
        normalize: bool = False,
        **kwargs: Any,
    ) -> None:
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        if not alpha > 0:
            raise ValueError(
                "`alpha` must be greater than 0: it keeps the denominator of "
                f"the update of P positive. Received: alpha={alpha}"
            )
        if order not in ("current", "previous"):
            raise ValueError(
                "`order` must be 'current' or 'previous'. "
                f"Received: order={order!r}"
            )
        if not 0 < forgetting <= 1:
            raise ValueError(
                "`forgetting` must be greater than 0 and at most 1 (no "
                f"forgetting). Received: forgetting={forgetting}"
            )
        self.alpha = float(alpha)
        self.order = order
        self.forgetting = float(forgetting)
        self.normalize = bool(normalize)

    def build(
        self,
        gradient_shape: tuple[int, ...],
        feature_shape: tuple[int, ...] | None = None,
    ) -> None:
        """Creates P for a kernel of shape `(features, units)`."""
        size = gradient_shape[0]
        self.P = self.add_weight(
            shape=(size, size),
            initializer="identity",
            dtype="float32",
            trainable=False,
            autocast=False,
            name="P",
        )
        self.steps = self.add_weight(
            shape=(),
            initializer="zeros",
            dtype="int32",
            trainable=False,
            name="steps",
        )
        if self.order == "previous":
            self.previous = self.add_weight(
                shape=(size,),
                initializer="zeros",
                dtype="float32",
                trainable=False,
                autocast=False,
                name="previous",
            )

    def compute_output_shape(
        self,
        gradient_shape: tuple[int, ...],
        feature_shape: tuple[int, ...] | None = None,
    ) -> tuple[int, ...]:
        """Returns the gradient's shape."""
        return gradient_shape

    def call(self, gradient: Any, feature: Any) -> Any:
        """Takes a step and returns the projected gradient."""
        projected, advance = self.project(gradient, feature)
        advance()
        return projected

    @property
    def supports_products(self) -> bool:
        """Whether `product` may be used: P is neither opened nor normalized.

        Nor is it where a subclass has a `project` of its own.
        """
        own = type(self).project is not GradientProjector.project
        return not (self._rescales or own)

    def product(self, inputs: Any, kernel: Any) -> Any:
        """Multiplies a batch by a kernel, whose gradient P then multiplies.

        With `D` the gradient at the result, the kernel's gradient becomes
        `P inputs^T D`. If the units outnumber the batch, it is computed as
        `(inputs P)^T D`, which is cheaper. `project` takes this gradient with
        `projected=True`.

        Args:
            inputs: Tensor of shape `(batch, features)`.
            kernel: Tensor of shape `(features, units)`.

        Returns:
            Tensor of shape `(batch, units)`, of the dtype of `inputs`.
        """
        return kernels.projected_product(
            inputs, ops.convert_to_tensor(kernel), self.P.value
        )

    def project(
        self, gradient: Any, feature: Any, projected: bool = False
    ) -> tuple[Any, Callable]:
        """Computes the step without taking it.

        Args:
            gradient: Tensor of shape `(features, units)`.
            feature: Tensor of shape `(features,)`.
            projected: bool. Whether the gradient comes from `product`, which
                has multiplied it by the P of before the step. Its memory
                may then be used for the result.

        Returns:
            The projected gradient, and a function `advance(taken=None)` that
            takes the step. If `taken` is a bool scalar, `advance` takes the
            step only if it is true.
        """
        P = self.P.value
        started = self.steps.value > 0
        feature = ops.cast(feature, "float32")
        if self.order == "previous":
            h = self.previous.value
        else:
            h = kernels.zero_unless(started, feature)
        k = kernels.matrix_vector(P, h)
        # The outer product of a vector with itself is exactly symmetric, so
        # that P stays symmetric. Where h^T P h is no more than the rounding
        # error of its sum, the direction is closed, and a step would move P
        # below 0: so it does with large features.
        left = ops.sum(h * k)
        error = _ROUNDING * P.shape[0] ** 0.5 * ops.sum(h * h)
        scale = ops.where(left > error, (self.alpha + left) ** -0.5, 0.0)
        k = k * scale
        float_gradient = ops.cast(gradient, "float32")
        if self._rescales:
            rescaled = self._rescale(P - k[:, None] * k)
            P = ops.where(started, rescaled, P)
            result = P @ float_gradient
        elif projected:
            # k^T G is scale h^T P G.
            result = kernels.deflated(float_gradient, k, h * scale)
        else:
            result = kernels.deflated_product(P, k, float_gradient)

        def advance(taken: Any | None = None) -> None:
            one = 1 if taken is None else ops.cast(taken, "int32")
            kernels.add_to(self.steps, one)
            if self.order == "previous":
                kernels.assign_where(taken, self.previous, feature)
            if self._rescales:
                kernels.assign_where(taken, self.P, P)
            else:
                step = k if taken is None else kernels.zero_unless(taken, k)
                kernels.subtract_outer(self.P, step, result)

        return ops.cast(result, gradient.dtype), advance

    @property
    def _rescales(self) -> bool:
        return self.forgetting < 1 or self.normalize

    def _rescale(self, P: Any) -> Any:
        if self.forgetting < 1:
            identity = ops.eye(P.shape[0], dtype="float32")
            P = self.forgetting * P + (1 - self.forgetting) * identity
        if self.normalize:
            P = P / ops.sqrt(ops.sum(ops.square(P)))
        return P

    def reset(self) -> None:
        """Restores the state before training: P = I and no steps taken."""
        self.P.assign(ops.eye(self.P.shape[0], dtype="float32"))
        self.steps.assign(0)
        if self.order == "previous":
            self.previous.assign(ops.zeros(self.previous.shape))

    @property
    def trace(self) -> float:
        """Trace of P: the number of directions that are still open."""
        return float(np.trace(ops.convert_to_numpy(self.P)))

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "alpha": self.alpha,
            "order": self.order,
            "forgetting": self.forgetting,
            "normalize": self.normalize,
        }
