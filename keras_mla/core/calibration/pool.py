"""The fit of a log-linear pool, by NumPy in float64 and SciPy."""

from typing import NamedTuple

import numpy as np

from keras_mla.core.tasks import Task


class Pool(NamedTuple):
    """The numbers of a pool, as `PoolFusion` has them.

    Attributes:
        weight: array `(experts,)`, not negative.
        bias: array `(units,)`.
    """

    weight: np.ndarray
    bias: np.ndarray

    def fused(self, logits: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Returns fused logits, from logits divided by temperatures.

        Args:
            logits: array `(samples, experts, units)`.
            present: bool array `(samples, experts)`.
        """
        return weighted_sum(present * self.weight, logits) + self.bias


class Pattern(NamedTuple):
    """What is seen of samples, and how much this counts.

    Attributes:
        logits: float64 array `(samples, experts, units)`, divided by
            temperatures.
        present: bool array `(samples, experts)`.
        share: array `(samples,)`. All shares of all patterns sum to 1.
    """

    logits: np.ndarray
    present: np.ndarray
    share: np.ndarray

    def counted(self, y: np.ndarray) -> tuple["Pattern", np.ndarray]:
        """Returns the samples that count, and their labels."""
        rows = np.flatnonzero(self.share)
        if len(rows) == len(self.share):  # Indexing would copy.
            return self, y
        return Pattern(*(values[rows] for values in self)), y[rows]


def weighted_sum(weight: np.ndarray, logits: np.ndarray) -> np.ndarray:
    """Returns the sum of the experts' logits, each times its weight.

    Args:
        weight: array `(samples, experts)`, numbers or bools.
        logits: array `(samples, experts, units)`.
    """
    return np.matmul(weight.astype("float64")[:, None], logits)[:, 0]


def fit(
    task: Task,
    patterns: list[Pattern],
    y: np.ndarray,
    samples: float,
    biased: bool,
) -> Pool:
    r"""Returns the pool of the smallest fused negative log-likelihood.

    It minimises, over weights $w_m \ge 0$ and a bias $b$,

    $$\sum_i \sum_P q_{iP}\, \ell\Big(\sum_{m \in P} w_m z_{im} + b,\ y_i\Big)
      + \frac1{2n} \Big(\sum_m (w_m - 1)^2 + |b|^2\Big),$$

    which is convex: the ridge says, as strongly as one sample would, that
    weights are 1 and the bias is 0.

    Args:
        task: The task, which gives the loss of a sample.
        patterns: What is seen.
        y: Labels, as `task.labels_of` returns them.
        samples: float. The number of samples, n.
        biased: bool. Whether there is a bias.
    """
    from scipy.optimize import minimize

    experts, units = patterns[0].logits.shape[1:]
    counted = [pattern.counted(y) for pattern in patterns]

    def objective(numbers: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = numbers[:experts], numbers[experts:]
        now = Pool(weight, bias if biased else np.zeros(units))
        slope = np.concatenate([weight - 1, bias]) / samples
        value = 0.5 * samples * float(slope @ slope)
        for (z, present, q), labels in counted:
            fused = now.fused(z, present)
            losses, slopes = task.losses_and_slopes(fused, labels)
            value += float(q @ losses)
            of_experts = np.matmul(z, slopes[..., None])[..., 0]
            slope[:experts] += q @ (of_experts * present)
            if biased:
                slope[experts:] += q @ slopes
        return value, slope

    start = np.concatenate([np.ones(experts), np.zeros(units * biased)])
    bounds = [(0.0, None)] * experts + [(None, None)] * (units * biased)
    found = minimize(
        objective,
        start,
        jac=True,
        bounds=bounds,
        method="L-BFGS-B",
        options={"maxiter": 1000, "ftol": 1e-10, "gtol": 1e-6},
    ).x
    bias = found[experts:] if biased else np.zeros(units)
    return Pool(found[:experts], bias)
