"""The choice of a fusion that is fitted to all experts at once."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from keras_mla.core.calibration import pool
from keras_mla.core.calibration.samples import Samples, subsets_of
from keras_mla.core.calibration.temperature import (
    best_scale,
    by_name,
    effective_number,
    temperatures,
    variances,
)
from keras_mla.core.tasks import Task
from keras_mla.layers.fusion import (
    AverageFusion,
    Fusion,
    InverseVarianceFusion,
    PoolFusion,
)

FOLDS = 5
# Weights that have a value for each expert.
OF_EXPERTS = ("temperature", "weight", "variance")


# The values of a fusion layer's weights, by name.
Values = dict[str, Any]


class Candidate(NamedTuple):
    """A fusion to choose.

    Attributes:
        fit: Function from samples to the values of the layer's weights.
        fused: Function from these and samples to fused logits.
        layer: Class of the layer that a model gets.
        margin: By how many standard errors it must be better than a simpler
            fusion.
    """

    fit: Callable[[Samples], Values]
    fused: Callable[[Values, Samples], np.ndarray]
    layer: type[Fusion] = AverageFusion
    margin: float = 1.0


def average(values: Values, samples: Samples) -> np.ndarray:
    """Returns the average over present experts, times `scale`."""
    count = np.maximum(samples.present.sum(axis=1), 1)
    total = pool.weighted_sum(samples.present, samples.logits)
    return values["scale"] * total / count[:, None]


def pooled(values: Values, samples: Samples) -> np.ndarray:
    """Returns the pool of `temperature`, `weight` and `bias`."""
    logits = samples.logits / values["temperature"][:, None]
    found = pool.Pool(values["weight"], values["bias"])
    return found.fused(logits, samples.present)


def exact(values: Values, samples: Samples) -> np.ndarray:
    """Returns the average weighted by the inverse of `variance`."""
    precision = samples.present / values["variance"]
    precision /= np.maximum(precision.sum(axis=1, keepdims=True), 1e-300)
    return pool.weighted_sum(precision, samples.logits)


def fit_jointly(model: Any, samples: Samples) -> dict[str, Any]:
    """Chooses a fusion, fits it, and gives it to the model."""
    found = candidates(model, samples)
    kept, gains = choose(model.task, found, samples)
    values = found[kept].fit(samples)
    layer = found[kept].layer()
    model.replace_fusion(layer)
    for name, value in values.items():
        getattr(layer, name).assign(np.asarray(value, "float32"))
    told = {
        name: by_name(model, value) if name in OF_EXPERTS else value
        for name, value in values.items()
    }
    return {"fusion": kept, "gain": gains, **told}


def choose(
    task: Task, found: dict[str, Candidate], samples: Samples
) -> tuple[str, dict[str, dict]]:
    """Returns the name of the fusion to keep, and what the others gain.

    A fusion is kept in place of a simpler one only if its cross-fitted
    negative log-likelihood is lower by more than `margin` standard errors of
    the difference.
    """
    kept, *others = found
    if len(samples.y) < 2 * FOLDS:
        return kept, {}
    share = samples.weight / samples.weight.sum()

    def losses(name: str) -> np.ndarray:
        (logits,) = cross_fitted(found[name], samples)
        return task.losses(logits, samples.y)

    best, gains = losses(kept), {}
    for name in others:
        other = losses(name)
        mean = float(share @ (best - other))
        spread = share @ (share * (best - other - mean) ** 2)
        error = float(np.sqrt(spread * len(share) / (len(share) - 1)))
        gains[name] = {"over": kept, "mean": mean, "standard_error": error}
        if mean > found[name].margin * error:
            kept, best = name, other
    return kept, gains


def cross_fitted(
    candidate: Candidate, samples: Samples, *others: Samples
) -> list[np.ndarray]:
    """Returns fused logits of each sample by a fusion fitted to others.

    Args:
        candidate: The fusion.
        samples: What is fitted to, and predicted.
        *others: The same samples with other presence, predicted too.

    Returns:
        List of arrays `(samples, units)`, for `samples` and each of `others`.
    """
    order = np.random.default_rng(0).permutation(len(samples.y))
    if samples.y.ndim == 1:  # Classes: each fold has its share of each.
        order = order[np.argsort(samples.y[order], kind="stable")]
    fold: np.ndarray = np.zeros(len(order), int)
    fold[order] = np.arange(len(order)) % FOLDS
    shown = [samples, *others]
    result = [np.zeros((len(order), one.logits.shape[2])) for one in shown]
    for index in range(FOLDS):
        held = fold == index
        values = candidate.fit(samples.take(~held))
        for found, one in zip(result, shown, strict=True):
            found[held] = candidate.fused(values, one.take(held))
    return result


def candidates(model: Any, samples: Samples) -> dict[str, Candidate]:
    """Returns fusions by name, the simplest first."""
    task = model.task
    if not task.certain:
        return {
            "average": Candidate(lambda some: {"scale": 1.0}, average),
            "inverse variance": Candidate(
                lambda some: {"variance": variances(some)},
                exact,
                InverseVarianceFusion,
            ),
        }

    def fit_average(some: Samples) -> Values:
        z = average({"scale": 1.0}, some)
        ridge = 1 / effective_number(some.weight)
        return {"scale": best_scale(task, z, some.y, some.weight, ridge)}

    def fit_pool(some: Samples, biased: bool = False) -> Values:
        # Of few samples, almost any temperature is best.
        temperature = temperatures(task, some)
        found = pool.fit(
            task,
            patterns(model, some, temperature),
            some.y,
            effective_number(some.weight),
            biased,
        )
        return {"temperature": temperature, **found._asdict()}

    result = {
        "average": Candidate(fit_average, average),
        "pool": Candidate(fit_pool, pooled, PoolFusion),
    }
    if not len(task.unseen(samples.y, samples.logits.shape[2])):
        # It learns how frequent classes are too, which may change.
        result["pool with bias"] = Candidate(
            lambda some: fit_pool(some, True), pooled, PoolFusion, margin=2.0
        )
    return result


def patterns(
    model: Any, samples: Samples, temperature: np.ndarray
) -> list[pool.Pattern]:
    """Returns what a pool is fitted to.

    Half of a sample's weight is on the modalities that it has, and half on
    subsets of them, equally; all of it on the former if it has only one.
    """
    weight = samples.weight / samples.weight.sum()
    count = len(subsets_of(len(model.modalities)))
    shown = [samples.seen(model, index) for index in range(count)]
    counted = [
        some.presence.any(axis=1)
        & (some.presence != samples.presence).any(axis=1)
        for some in shown
    ]
    number = np.sum(counted, axis=0) if shown else np.zeros(len(weight))
    own = np.where(number > 0, 0.5, 1.0) * weight
    each = 0.5 * weight / np.maximum(number, 1)
    scaled = samples.logits / temperature[:, None]
    result = [pool.Pattern(scaled, samples.present, own)]
    for some, here in zip(shown, counted, strict=True):
        if here.any():
            if some.logits is not samples.logits:
                scaled = some.logits / temperature[:, None]
            result.append(pool.Pattern(scaled, some.present, each * here))
    return result
