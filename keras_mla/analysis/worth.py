import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.analysis.figure import panels, saved
from keras_mla.analysis.shapley import shapley_values
from keras_mla.core import heads
from keras_mla.core.arrays import full_presence
from keras_mla.core.losses import labelled


@dataclasses.dataclass
class Worth:
    """The worth of each modality to a model's fused prediction.

    Attributes:
        shapley: dict from each modality to its Shapley value. The values add
            up to `total`.
        standard_error: dict from each modality to the standard error of its
            sampled value; `None` if the values are exact.
        values: dict from each subset of modalities that was evaluated, a
            tuple in the model's order, to its value. `()` is the prior.
        total: float. The value of all modalities, less the prior's value.
        measure: Name of what is measured.
    """

    shapley: dict[str, float]
    standard_error: dict[str, float] | None
    values: dict[tuple[str, ...], float]
    total: float
    measure: str

    def plot(self, path: Any = None) -> Any:
        """Draws a bar for each modality, with the standard error if sampled.

        Args:
            path: File to save the figure to; the extension sets the format.
                Defaults to `None`, which saves nothing.

        Returns:
            The `matplotlib.figure.Figure`.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        figure, (axis,) = panels()
        errors = self.standard_error
        axis.bar(
            list(self.shapley),
            list(self.shapley.values()),
            yerr=None if errors is None else list(errors.values()),
            color=[f"C{index}" for index in range(len(self.shapley))],
            capsize=3,
        )
        axis.axhline(0, color="gray", linewidth=0.8)
        axis.set_ylabel(f"Shapley value ({self.measure})")
        axis.set_title(f"sum {self.total:.3g}")
        return saved(figure, path)


def modality_worth(
    model: Any,
    x: dict[str, Any],
    y: Any,
    value: Any = "log_likelihood",
    prior_labels: Any = None,
    batch_size: int | None = None,
    permutations: int | None = None,
    seed: int = 0,
) -> Worth:
    """Returns what each modality adds to the fused prediction.

    The value of a subset of modalities is the score of the model's fused
    prediction if all other modalities are absent. A modality that a sample
    lacks stays absent. A sample without any modality of the subset is
    predicted by the prior, the best constant prediction: the frequencies of
    the labels, or for regression their mean. A modality's worth is its
    Shapley value.

    The worth depends on how the model predicts without a modality: a method
    that was never trained with absent modalities may make too much of one.

    Args:
        model: A fitted model of the library.
        x: dict of inputs as for `predict`; `presence` may be among them.
        y: Labels, one array for all modalities.
        value: What to measure; larger is better. `"log_likelihood"` is the
            mean over samples in nats (for regression minus half the mean
            squared error); `"accuracy"`, for classes or labels; a
            `keras.metrics.Metric`, or the name of one, on labels and logits;
            or a function from labels and logits, both NumPy arrays, to a
            number. Defaults to `"log_likelihood"`.
        prior_labels: Labels that the prior is computed from, such as those of
            training. Defaults to `None`, which means `y`. So that no
            likelihood is zero, half a sample stands for a class that they
            lack, and for the value of a label that they lack.
        batch_size: int. Batch size of the prediction. Defaults to 32.
        permutations: int. The number of orders of the modalities to sample.
            Defaults to `None`, which is exact up to ten modalities and samples
            200 orders of more modalities.
        seed: int. The seed of the sampled orders. Defaults to `0`.

    Returns:
        A `Worth`, which draws a figure by its method `plot`.

    Raises:
        ValueError: If inputs or labels do not fit the model, or `value` is not
            for the model's task.

    Example:
    >>> encoders = {
    ...     name: keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)])
    ...     for name in ("image", "text")
    ... }
    >>> model = keras_mla.MLA(encoders, head=3)
    >>> x = {"image": np.ones((6, 4)), "text": np.zeros((6, 4))}
    >>> worth = keras_mla.analysis.modality_worth(
    ...     model, x, np.array([0, 1, 2, 0, 1, 2])
    ... )
    >>> list(worth.values)
    [(), ('image',), ('text',), ('image', 'text')]
    >>> bool(np.isclose(sum(worth.shapley.values()), worth.total))
    True

    Reference:
        Shapley, "A Value for n-Person Games", 1953. Hu et al., "SHAPE: An
        Unified Approach to Evaluate the Contribution and Cooperation of
        Individual Modalities", IJCAI 2022.
    """
    if isinstance(y, dict):
        raise ValueError(
            "The worth of modalities is about the fused prediction, which "
            "needs all modalities of the same samples: `y` must be one array. "
            f"Received: a dict with the keys {list(y)}"
        )
    x = model.prepare_inputs(x)
    names = tuple(model.modalities)
    y = np.asarray(ops.convert_to_numpy(y))
    presence = full_presence(names, x)
    units = heads.number_of_units(model.head)
    if len(presence) != len(y):
        raise ValueError(
            "`y` must have a label for each sample. Received: "
            f"{len(y)} labels and {len(presence)} samples"
        )
    counted = labelled(model, y)
    labels = y if prior_labels is None else prior_labels
    labels = np.asarray(ops.convert_to_numpy(labels))
    labels = labels[labelled(model, labels)]
    empty = prior(model.task.name, model.task.labels_of(labels, units), units)
    measure, score = _score(model, value, units)

    def of_subset(subset: tuple[str, ...]) -> float:
        kept = presence & [name in subset for name in names]
        known = kept.any(axis=1)
        logits = np.tile(empty, (len(y), 1))
        if known.any():
            found = model.predict(
                {**x, "presence": kept}, batch_size=batch_size, verbose=0
            )
            logits[known] = found[known]
        return score(y[counted], logits[counted])

    game = shapley_values(of_subset, names, permutations, seed)
    values = dict(sorted(game.values.items(), key=lambda item: len(item[0])))
    total = values[names] - values[()]
    return Worth(game.shares, game.errors, values, total, measure)


def prior(
    task: str,
    labels: np.ndarray,
    units: int,
    weight: np.ndarray | None = None,
) -> np.ndarray:
    """Returns the best constant prediction.

    So that no likelihood is zero, half a sample stands for a class that the
    labels lack, and for the value of a label that they lack.

    Args:
        task: str. `"single_label"`, `"multi_label"` or `"regression"`.
        labels: array `(samples,)` of classes, or `(samples, units)`.
        units: int. Number of outputs.
        weight: array `(samples,)`, how often each sample counts. Defaults to
            once.

    Returns:
        float64 array `(units,)`: logits, or the values of a regression.

    Raises:
        ValueError: If there are no labels.
    """
    if not len(labels):
        raise ValueError("A prior needs labels. Received: no label")
    if task == "single_label":
        counts = np.bincount(labels.reshape(-1), weight, minlength=units)
        shares = np.maximum(counts.astype("float64"), 0.5)
        return np.log(shares / shares.sum())
    labels = labels.reshape(-1, units).astype("float64")
    mean = np.average(labels, axis=0, weights=weight)
    if task == "regression":
        return mean
    least = 0.5 / len(labels)
    share = np.clip(mean, least, 1 - least)
    return np.log(share / (1 - share))


def _score(
    model: Any, value: Any, units: int
) -> tuple[str, Callable[[np.ndarray, np.ndarray], float]]:
    """Returns the name of a measure, and a function of labels and logits."""
    task = model.task
    if value == "log_likelihood":

        def likelihood(y: np.ndarray, logits: np.ndarray) -> float:
            labels = task.labels_of(y, units)
            weight = np.ones(len(y))
            return -task.negative_log_likelihood(logits, labels, weight)

        return "log-likelihood", likelihood
    if value == "accuracy":
        if not task.certain:
            raise ValueError(
                "A regression has no accuracy: use `value='log_likelihood'` "
                "or `keras.metrics.R2Score()`. Received: value='accuracy'"
            )
        return "accuracy", lambda y, logits: _accuracy(task, y, logits)
    if isinstance(value, str):
        value = keras.metrics.get(value)
    if isinstance(value, keras.metrics.Metric):
        return value.name, lambda y, logits: _measured(value, y, logits)
    if not callable(value):
        raise ValueError(
            "`value` must be 'log_likelihood', 'accuracy', a metric, or a "
            f"function of labels and logits. Received: value={value!r}"
        )
    name = getattr(value, "__name__", "value")

    def of_function(y: np.ndarray, logits: np.ndarray) -> float:
        found = ops.convert_to_numpy(value(y, logits))
        return float(np.mean(found))  # A function of Keras is per sample.

    return name, of_function


def _accuracy(task: Any, y: np.ndarray, logits: np.ndarray) -> float:
    """Returns the share of right classes, or of right labels."""
    labels = task.labels_of(y, logits.shape[1])
    if task.name == "multi_label":
        return float(((logits > 0) == (labels > 0.5)).mean())
    return float((logits.argmax(axis=1) == labels).mean())


def _measured(metric: Any, y: np.ndarray, logits: np.ndarray) -> float:
    metric.reset_state()
    metric.update_state(y, logits.astype("float32"))
    result = float(np.mean(ops.convert_to_numpy(metric.result())))
    metric.reset_state()
    return result
