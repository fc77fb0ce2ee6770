"""How sure a difference between methods is."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.comparison import metrics
from keras_mla.comparison.metrics import Metric
from keras_mla.datasets.extras import need

# Differences of this size, relative to the values, are rounding errors.
ROUNDING = 1e-12
# Intervals from fewer groups are rough.
FEW_GROUPS = 10


@dataclasses.dataclass(frozen=True)
class Interval:
    """The mean of some values, and how far the values are from it.

    Attributes:
        mean: float.
        deviation: float. Sample standard deviation, with `count - 1` in the
            denominator. `None` for a single value.
        half_width: float. Half the width of Student's confidence interval of
            the mean. `None` for a single value.
        count: int. The number of values.
    """

    mean: float
    deviation: float | None
    half_width: float | None
    count: int

    def text(self, scale: float = 1.0, digits: int = 1) -> str:
        """Returns mean and deviation: `"97.1 ± 0.4"`, or `"97.1"`.

        Args:
            scale: float. Factor of both numbers, such as `Metric.scale`.
                Defaults to `1.0`.
            digits: int. How many decimals to show. Defaults to `1`.
        """
        text = metrics.number(scale * self.mean, digits)
        if self.deviation is None or np.isnan(self.deviation):
            return text
        return f"{text} ± {metrics.number(scale * self.deviation, digits)}"


def interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Returns mean, sample deviation and Student's confidence interval.

    Args:
        values: Sequence of floats, such as the scores of a method's seeds. A
            NaN among the values makes all results NaN.
        confidence: float. Between 0 and 1. Defaults to `0.95`.

    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If there are no values, or `confidence` is not between 0
            and 1.

    Example:
    >>> from keras_mla.comparison import statistics
    >>> statistics.interval([0.967, 0.971, 0.975]).text(100)
    '97.1 ± 0.4'

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
        Chapter 12.
    """
    array = np.asarray(values, "float64").reshape(-1)
    if not array.size:
        raise ValueError("An interval needs at least one value. Received: none")
    if not 0 < confidence < 1:
        raise ValueError(
            "`confidence` must be between 0 and 1. Received: "
            f"confidence={confidence}"
        )
    mean, count = float(array.mean()), len(array)
    if count == 1:
        return Interval(mean, None, None, 1)
    deviation = float(array.std(ddof=1))
    quantile = need("scipy.special", "compare methods").stdtrit(
        count - 1, (1 + confidence) / 2
    )
    return Interval(
        mean, deviation, float(quantile * deviation / count**0.5), count
    )


@dataclasses.dataclass(frozen=True)
class Difference:
    """A method's metric less the reference's, and how sure it is.

    Attributes:
        mean: float. The difference on the test rows, of means over seeds. It
            is a plain difference: below 0 for a better method if lower values
            are better.
        low: float. Lower end of the 95 % percentile interval.
        high: float. Upper end of the 95 % percentile interval.
        p: float. Two-sided p-value of no difference.
        p_holm: float. `p` corrected for the number of methods compared.
        better: bool. Whether the method's metric is better than the
            reference's.
    """

    mean: float
    low: float
    high: float
    p: float
    p_holm: float
    better: bool


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Corrects p-values for several tests, by Holm's step-down procedure.

    With m p-values in ascending order, the i-th is multiplied by m - i + 1. A
    corrected value is at least the corrected values before it, and at most 1.

    Args:
        p_values: Sequence of floats. A NaN is no test: it stays NaN and does
            not count.

    Returns:
        Array of the corrected p-values, in the order given.

    Example:
    >>> from keras_mla.comparison import statistics
    >>> statistics.holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]

    Reference:
        Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
        Scandinavian Journal of Statistics 6, 1979.
    """
    p = np.array(p_values, "float64").reshape(-1)
    tests = np.flatnonzero(~np.isnan(p))
    order = tests[np.argsort(p[tests], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    p[order] = np.minimum(np.maximum.accumulate(factors * p[order]), 1.0)
    return p


def compare_rows(
    metric: Metric,
    y: Any,
    outputs: Mapping[str, Sequence[Any]],
    reference: str,
    draws: int = 10_000,
    seed: int = 0,
    groups: Any = None,
) -> dict[str, Difference]:
    """Compares methods with a reference by a paired bootstrap of test rows.

    Each draw takes `n` test rows with replacement, the same rows for all
    methods and seeds. With groups, it takes as many groups as there are, each
    with all of its rows. In each draw, a method's metric is its mean over
    seeds. The differences from the reference over all draws give the interval
    and the p-value. With `c` the number of draws on the rarer side of 0, draws
    at 0 included, the p-value is twice `(1 + c) / (1 + draws)`, at most 1.

    The result speaks of other test rows from the same source, for the models
    at hand. It does not speak of other seeds or other training data. Rows must
    be independent: rows of one speaker or patient are not, and `groups` must
    name the speaker or patient of each row. An interval from fewer than
    `FEW_GROUPS` groups is rough. Even if all `g` groups agree, the p-value is
    at least `2 ** (1 - g)`, as in a sign test. One group says nothing: the
    interval and the p-value are NaN.

    Draws are left out in which the metric is not defined, for one of the two
    methods. If no draws remain, or the metric of all rows is not defined, the
    numbers are NaN.

    Args:
        metric: `Metric`.
        y: array. Labels of the test rows.
        outputs: dict of method to a list of arrays `(n, units)`, one for each
            seed, all for the rows of `y`.
        reference: str. The method that the other methods are compared with.
        draws: int. Defaults to `10_000`.
        seed: int. Seed of the draws. Defaults to `0`.
        groups: array `(n,)`. The group of each row. Defaults to `None`, each
            row for itself.

    Returns:
        dict of method to `Difference`, for all methods but the reference.

    Raises:
        ImportError: If scikit-learn or SciPy is not installed.
        ValueError: If the reference is no method, a method has no outputs,
            labels, outputs and groups do not fit together, or `draws` is less
            than 1.

    Example:
    >>> from keras_mla.comparison import metrics, statistics
    >>> y = np.arange(100) % 2
    >>> right = np.eye(2)[y]
    >>> found = statistics.compare_rows(
    ...     metrics.named("single_label"), y,
    ...     {"good": [right], "constant": [np.zeros((100, 2))]}, "constant",
    ... )
    >>> found["good"].mean, found["good"].p < 0.01
    (0.5, True)

    Reference:
        Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
        Chapter 13 (percentile intervals). Davison and Hinkley, "Bootstrap
        Methods and their Application", 1997, Section 3.8 (groups).
    """
    if reference not in outputs:
        raise ValueError(
            f"`reference` must be one of {list(outputs)}. Received: "
            f"reference={reference!r}"
        )
    for method, arrays in outputs.items():
        if not len(arrays):
            raise ValueError(
                "Each method needs the outputs of at least one seed. "
                f"Received: none for {method!r}"
            )
    if draws < 1:
        raise ValueError(f"`draws` must be at least 1. Received: draws={draws}")
    members = None if groups is None else _members(groups, len(y))
    samplers = {
        method: [metric.sampler(y, array) for array in arrays]
        for method, arrays in outputs.items()
    }
    values = {method: np.empty(draws) for method in outputs}
    rng, rows = np.random.default_rng(seed), len(y)
    units = np.size(outputs[reference][0][:1])
    for block in metrics.blocks(draws, rows, units):
        count = block.stop - block.start
        if members is None:
            weights = _draw(rng, rows, count)
        else:
            weights = _draw(rng, members.max() + 1, count)[members]
        for method, functions in samplers.items():
            values[method][block] = np.mean(
                [sample(weights) for sample in functions], axis=0
            )
    means = {
        method: float(np.mean([metric(y, array) for array in arrays]))
        for method, arrays in outputs.items()
    }
    found = {
        method: _difference(
            means[method],
            means[reference],
            values[method],
            values[reference],
            metric.higher_is_better,
            None if members is None else members.max() + 1,
        )
        for method in outputs
        if method != reference
    }
    corrected = holm([difference.p for difference in found.values()])
    return {
        method: dataclasses.replace(difference, p_holm=float(p))
        for (method, difference), p in zip(
            found.items(), corrected, strict=True
        )
    }


def _draw(rng: np.random.Generator, rows: int, draws: int) -> np.ndarray:
    """Returns how often each draw takes each row: float64 `(rows, draws)`."""
    counts = np.empty((draws, rows))
    # Draw by draw: counts of one draw stay in the cache.
    for count, taken in zip(
        counts, rng.integers(0, rows, (draws, rows)), strict=True
    ):
        count[:] = np.bincount(taken, minlength=rows)
    return np.ascontiguousarray(counts.T)


def _members(groups: Any, rows: int) -> np.ndarray:
    """Returns each row's group as a number, counted as groups appear."""
    groups = np.asarray(groups)
    if groups.shape != (rows,):
        raise ValueError(
            f"`groups` must have the shape ({rows},), a group for each label. "
            f"Received: shape {groups.shape}"
        )
    _, first, members = np.unique(
        groups, return_index=True, return_inverse=True
    )
    return np.argsort(np.argsort(first))[members.reshape(-1)]


def _exact_zeros(differences: Any, one: Any, other: Any) -> Any:
    """Returns differences with 0 for those that are rounding errors."""
    # Means of the same seeds in another order differ in their last bits.
    small = ROUNDING * (np.abs(one) + np.abs(other))
    return np.where(np.abs(differences) <= small, 0.0, differences)


def _difference(
    mean: float,
    reference: float,
    values: np.ndarray,
    references: np.ndarray,
    higher_is_better: bool,
    groups: int | None,
) -> Difference:
    """Returns the difference, with a `p_holm` that is not corrected."""
    observed = float(_exact_zeros(mean - reference, mean, reference))
    drawn = _exact_zeros(values - references, values, references)
    drawn = drawn[~np.isnan(drawn)]
    if np.isnan(observed) or not len(drawn) or groups == 1:
        nan = float("nan")
        return Difference(observed, nan, nan, nan, nan, False)
    low, high = np.percentile(drawn, [2.5, 97.5])
    rarer = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = float(min(1.0, 2 * (1 + rarer) / (1 + len(drawn))))
    if groups is not None:
        p = max(p, 2.0 ** (1 - groups))
    better = observed > 0 if higher_is_better else observed < 0
    return Difference(observed, float(low), float(high), p, p, better)
