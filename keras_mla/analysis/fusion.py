import dataclasses
import itertools
from typing import Any

import numpy as np
from keras import ops

from keras_mla.analysis.figure import panels, saved
from keras_mla.analysis.worth import prior
from keras_mla.core.calibration import joint
from keras_mla.core.calibration.joint import Candidate, Values
from keras_mla.core.calibration.pool import weighted_sum
from keras_mla.core.calibration.quality import quality
from keras_mla.core.calibration.samples import (
    ALL_SUBSETS,
    Samples,
    fused_by,
    predicted,
    subsets_of,
)
from keras_mla.core.calibration.temperature import temperatures
from keras_mla.core.tasks import Task
from keras_mla.layers import EntropyFusion

Subset = tuple[str, ...]
ENTROPY, ORACLE = "entropy weights", "best weight per sample"
_STEPS = 10
_DRAWS = 500


@dataclasses.dataclass
class FusionReport:
    """How good several fusions of a model's predictions are.

    Attributes:
        scores: dict from each subset of modalities, a tuple in the model's
            order, to a dict from each fusion to its `"accuracy"`,
            `"negative_log_likelihood"` and expected `"calibration_error"`; for
            regression to its `"mean_squared_error"` alone.
        samples: dict from each subset to the number of samples that have any
            of its modalities.
        covariance: dict from each modality to the covariance of its entropy
            weight and its loss over samples. Empty for regression.
        standard_error: dict from each modality to the standard error of its
            covariance.
    """

    scores: dict[Subset, dict[str, dict[str, float]]]
    samples: dict[Subset, int]
    covariance: dict[str, float]
    standard_error: dict[str, float]

    def plot(self, path: Any = None) -> Any:
        """Draws each measure of each fusion, with a color for each subset.

        Args:
            path: File to save the figure to; the extension sets the format.
                Defaults to `None`, which saves nothing.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        first = next(iter(self.scores.values()))
        measures = list(next(iter(first.values())))
        figure, axes = panels(len(measures))
        for axis, measure in zip(axes, measures, strict=True):
            for subset, found in self.scores.items():
                axis.plot(
                    [scores[measure] for scores in found.values()],
                    list(found),
                    "o",
                    label=" + ".join(subset),
                )
            axis.set_xlabel(measure.replace("_", " "))
            axis.invert_yaxis()
        # Beside the panels: with three modalities it has seven entries.
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right center")
        return saved(figure, path)


def fusion_report(
    model: Any, validation_data: Any, batch_size: int | None = None
) -> FusionReport:
    r"""Compares ways to fuse a model's unimodal predictions.

    The fusions are the average; the product with the class prior; MLA's
    entropy weights; and the pools that `calibrate(method="joint")` chooses
    among. For regression they are the average, and the weights by inverse
    variances. What a fusion has to fit (average and entropy weights a factor
    to the logits, the product temperatures and prior), it fits to four fifths
    of the samples, in turn, and predicts the others, so that no sample is
    predicted by a fit to itself. Then they predict with subsets of the
    modalities: all of them; of more than five modalities single ones, all but
    one, and all. With one modality all fusions give its own prediction, up to
    temperature and bias.

    The best weight per sample is an oracle: of many weightings of the experts'
    calibrated predictions (nonnegative, with the sum 1, in steps of a tenth, or
    at random beyond three experts) it takes one that is right, and of these
    the most likely. It is an upper bound, nearly, of what weights can do; a
    bias or a prior may do more.

    A weight by sample can help only where it is smaller if the modality's
    loss is larger: where the covariance of weight and loss is negative. Where
    it is not below zero by some standard errors, a weight by sample is of no
    use, whatever the oracle reaches.

    Args:
        model: A fitted model of the library with a `fusion` layer.
        validation_data: As for `model.calibrate`: `(x, y)` or
            `(x, y, sample_weight)`, or an iterable of such batches, not used
            for training.
        batch_size: int. Batch size of the prediction. Defaults to 32.

    Returns:
        A `FusionReport`, which draws a figure by its method `plot`.

    Raises:
        ImportError: If SciPy is not installed.
        ValueError: If the method has no fusion layer, there are fewer than ten
            samples, or a modality has none.

    Example:
    ```python
    report = keras_mla.analysis.fusion_report(model, (x_val, y_val))
    report.scores["image", "text"]["pool"]["accuracy"]
    report.plot("fusion.svg")
    ```

    Reference:
        Zhang et al., "Provable Dynamic Fusion for Low-Quality Multimodal
        Data", ICML 2023, Theorem 1 (the covariance).
    """
    if model.fusion is None:
        raise ValueError(
            f"{type(model).__name__} joins features and does not fuse unimodal "
            "predictions. Methods with a `fusion` layer, such as MLA and "
            "LateFusion, have a report of it."
        )
    return report_of(model, predicted(model, validation_data, batch_size))


def report_of(model: Any, samples: Samples) -> FusionReport:
    """Returns the report of predictions of validation data."""
    if len(samples.y) < 2 * joint.FOLDS:
        raise ValueError(
            f"A report needs at least {2 * joint.FOLDS} samples in "
            f"`validation_data`. Received: {len(samples.y)}"
        )
    shown = _shown(model, samples)
    scores: dict[Subset, dict] = {subset: {} for subset in shown}
    certain = model.task.certain
    entropy = EntropyFusion(model.task.name) if certain else None
    for name, candidate in _fusions(model, samples).items():
        given = [samples, *shown.values()]
        if name == ENTROPY:
            given = [_of_one(entropy, some) for some in given]
        _, *found = joint.cross_fitted(candidate, *given)
        for (subset, some), logits in zip(shown.items(), found, strict=True):
            scores[subset][name] = scores_of(model.task, logits, some)
    temperature = np.ones(samples.logits.shape[1])
    if certain:
        temperature = temperatures(model.task, samples)
    for subset, some in shown.items():  # It knows the labels in any case.
        logits = _oracle(model.task, some, temperature)
        scores[subset][ORACLE] = scores_of(model.task, logits, some)
    covariance, error = _covariances(model, samples, entropy)
    counts = {s: int(_known(some).sum()) for s, some in shown.items()}
    return FusionReport(scores, counts, covariance, error)


def _shown(model: Any, samples: Samples) -> dict[Subset, Samples]:
    """Returns what is seen of samples, by subset, small ones first."""
    names = tuple(model.modalities)
    found: dict[Subset, Samples] = {}
    for index, seen in enumerate(subsets_of(len(names))):
        if len(names) <= ALL_SUBSETS or seen.sum() in (1, len(names) - 1):
            subset = tuple(n for n, s in zip(names, seen, strict=True) if s)
            found.setdefault(subset, samples.seen(model, index))
    order = sorted(
        found, key=lambda one: (len(one), [names.index(n) for n in one])
    )
    return {**{subset: found[subset] for subset in order}, names: samples}


def _known(samples: Samples) -> np.ndarray:
    return np.any(samples.presence, axis=1)


def _fusions(model: Any, samples: Samples) -> dict[str, Candidate]:
    """Returns the fusions to compare, by name."""
    task = model.task
    found = joint.candidates(model, samples)
    if not task.certain:
        return found

    units = samples.logits.shape[2]

    def fit_product(some: Samples) -> Values:
        return {
            "temperature": temperatures(task, some),
            "prior": prior(task.name, some.y, units, some.weight),
        }

    def product(values: Values, some: Samples) -> np.ndarray:
        logits = some.logits / values["temperature"][:, None]
        count = some.present.sum(axis=1, keepdims=True)
        fused = weighted_sum(some.present, logits)
        return fused - (count - 1) * values["prior"]

    return {
        "average": found["average"],
        "product": Candidate(fit_product, product),
        # Their weighted sums get a factor, as the average does.
        ENTROPY: found["average"],
        **found,
    }


def _of_one(fusion: Any, samples: Samples) -> Samples:
    """Returns samples with the fused prediction as their only expert."""
    fused = fused_by(fusion, samples.logits, samples.present)
    known: np.ndarray = np.any(samples.present, axis=1, keepdims=True)
    return samples._replace(logits=fused[:, None], present=known)


def _oracle(
    task: Task, samples: Samples, temperature: np.ndarray
) -> np.ndarray:
    """Returns logits fused by the weights that suit each label best."""
    logits = samples.logits / temperature[:, None]
    best = np.zeros(logits[:, 0].shape)
    least = np.full(len(best), np.inf)
    for weight in _weightings(logits.shape[1]):
        share = samples.present * weight
        total = share.sum(axis=1, keepdims=True)
        share = share / np.where(total > 0, total, 1)
        z = weighted_sum(share, logits)
        loss = task.losses(z, samples.y)
        if task.certain:  # A right prediction goes before any lower loss.
            loss = loss + 1e6 * (1 - _right(z, samples.y))
        better = (total[:, 0] > 0) & (loss < least)
        best[better], least[better] = z[better], loss[better]
    return best


def _weightings(experts: int) -> np.ndarray:
    """Returns weights with the sum 1, `(weightings, experts)`."""
    even = np.full((1, experts), 1 / experts)
    if experts <= 3:
        steps = itertools.product(range(_STEPS + 1), repeat=experts)
        grid = [s for s in steps if sum(s) == _STEPS]
        return np.concatenate([even, np.array(grid) / _STEPS])
    draws = np.random.default_rng(0).dirichlet(np.ones(experts), _DRAWS)
    return np.concatenate([np.eye(experts), even, draws])


def scores_of(
    task: Task, logits: np.ndarray, samples: Samples
) -> dict[str, float]:
    """Returns the measures of one fusion, as `FusionReport.scores` has them."""
    known = _known(samples)
    logits, some = logits[known], samples.take(known)
    found = quality(task, logits, some)
    if not task.certain:
        return {"mean_squared_error": 2 * found["negative_log_likelihood"]}
    right = np.average(_right(logits, some.y), weights=some.weight)
    return {"accuracy": float(right), **found}


def _right(logits: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Returns whether classes are right, or the share of right labels."""
    if y.ndim == 2:
        return ((logits > 0) == (y > 0.5)).mean(axis=1)
    return logits.argmax(axis=1) == y


def _covariances(
    model: Any, samples: Samples, entropy: Any
) -> tuple[dict[str, float], dict[str, float]]:
    """Returns covariances of weight and loss, and their standard errors."""
    found: dict[str, float] = {}
    errors: dict[str, float] = {}
    if entropy is None:
        return found, errors
    weights = np.asarray(
        ops.convert_to_numpy(
            entropy.weights_of(
                ops.convert_to_tensor(samples.logits, "float32"),
                ops.convert_to_tensor(samples.present),
            )
        )
    )
    for index, name in enumerate(model.experts):
        here = samples.present[:, index]
        losses = model.task.losses(samples.logits[here, index], samples.y[here])
        share = samples.weight[here] / samples.weight[here].sum()
        weight = weights[here, index]
        products = (weight - share @ weight) * (losses - share @ losses)
        found[name] = float(share @ products)
        spread = (share**2) @ (products - found[name]) ** 2
        errors[name] = float(np.sqrt(spread))
    return found, errors
