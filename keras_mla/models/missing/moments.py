"""The distance of two distributions by their central moments."""

from typing import Any

from keras import ops


def moment_discrepancy(
    x: Any,
    y: Any,
    x_present: Any | None = None,
    y_present: Any | None = None,
    moments: int = 5,
    span: float = 1.0,
) -> tuple[Any, Any]:
    r"""Returns the central moment discrepancy of two sets of samples.

    $$\frac{\lVert E x - E y \rVert}{s} + \sum_{k=2}^{K}
      \frac{\lVert c_k(x) - c_k(y) \rVert}{s^k}, \qquad
      c_k(x) = E (x - E x)^k,$$

    for values in an interval of length s. $10^{-12}$ is added under each root,
    so that gradients are finite where moments are equal.

    Args:
        x: Tensor of shape `(samples, width)`.
        y: Tensor of shape `(samples, width)`.
        x_present: Bool tensor of shape `(samples,)`: the samples that count.
            `None` counts all.
        y_present: As `x_present`, for `y`.
        moments: int. The number K of moments. Defaults to `5`.
        span: float. The length s of the interval. Defaults to `1.0`.

    Returns:
        The discrepancy, a float32 scalar, which is zero if either set has no
        sample; and whether both have samples, a float32 scalar of 0 or 1.

    Reference:
        Zellinger et al., "Central Moment Discrepancy (CMD) for
        Domain-Invariant Representation Learning", ICLR 2017, Definition 2.
    """
    (x_moments, x_some), (y_moments, y_some) = (
        _moments(ops.cast(values, "float32"), present, moments)
        for values, present in ((x, x_present), (y, y_present))
    )
    total = 0.0
    for power, (a, b) in enumerate(
        zip(x_moments, y_moments, strict=True), start=1
    ):
        distance = ops.sqrt(ops.sum(ops.square(a - b)) + 1e-12)
        total = total + distance / span**power
    both = x_some * y_some
    return both * total, both


def _moments(values: Any, present: Any | None, moments: int) -> tuple:
    """Returns the mean and the central moments of rows that count."""
    weights = ops.ones_like(values[:, :1])
    if present is not None:
        weights = ops.cast(present[:, None], values.dtype)
        # Rows that do not count may hold NaN.
        values = ops.where(present[:, None], values, ops.zeros_like(values))
    number = ops.sum(weights)

    def mean(of: Any) -> Any:
        return ops.sum(of * weights, axis=0) / ops.maximum(number, 1)

    first = mean(values)
    centred = values - first
    higher, power = [], centred
    for _ in range(2, moments + 1):
        power = power * centred
        higher.append(mean(power))
    return [first, *higher], ops.cast(number > 0, values.dtype)
