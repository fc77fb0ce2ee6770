"""Metrics of test predictions, on all rows and on resampled rows."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from keras_mla.comparison.names import hint
from keras_mla.datasets.extras import need

_TASK = "compare methods"
# Bins of the calibration error, as in `ExpectedCalibrationError`.
BINS = 15
# Elements of the largest array that resampling makes at once: 16 MB.
ELEMENTS = 2**21
# Rows that `_accumulated` adds up at once.
STEP = 32

# A function of weights `(n, draws)` that returns an array `(draws,)`.
Sampler = Callable[[np.ndarray], np.ndarray]


def number(value: float, digits: int) -> str:
    """Returns a value as a table shows it; NaN is a dash."""
    return "–" if np.isnan(value) else f"{value:z.{digits}f}"


@dataclasses.dataclass(frozen=True)
class Metric:
    """A metric of a task, for a whole test set and for resampled rows.

    The metric is a function of labels `y` and outputs. Labels are classes
    `(n,)` or `(n, 1)` for `"single_label"`, zeros and ones `(n, units)` for
    `"multi_label"`, and numbers `(n,)` or `(n, units)` for `"regression"`.
    Outputs `(n, units)` are logits, or the predictions of a regression.

    A value that is not defined is NaN: AUROC of one class alone, mean average
    precision without a positive label, R² of equal labels, and any metric of
    no rows or of outputs that are not all finite.

    Attributes:
        name: str. The name that `named` finds the metric by.
        title: str. The name in tables.
        task: str. `"single_label"`, `"multi_label"` or `"regression"`.
        higher_is_better: bool.
        percent: bool. Whether tables show the value in percent.
        digits: int. How many decimals tables show.
        score: Function of checked labels and float64 outputs that returns the
            value.
        weigh: Function of checked labels and float64 outputs that returns the
            function of weights behind `sampler`.
    """

    name: str
    title: str
    task: str
    higher_is_better: bool
    percent: bool
    digits: int
    score: Callable[[np.ndarray, np.ndarray], float] = dataclasses.field(
        repr=False, compare=False
    )
    weigh: Callable[[np.ndarray, np.ndarray], Sampler] = dataclasses.field(
        repr=False, compare=False
    )

    @property
    def scale(self) -> float:
        """The factor from a value to what tables show: 100 for percent."""
        return 100.0 if self.percent else 1.0

    def text(self, value: float) -> str:
        """Returns a value as a table shows it: `"97.1"`; NaN is a dash."""
        return number(self.scale * value, self.digits)

    def __call__(self, y: Any, outputs: Any) -> float:
        """Returns the metric of all rows.

        Args:
            y: array. Labels.
            outputs: array `(n, units)`. Logits or predictions.

        Returns:
            float, NaN where the metric is not defined.

        Raises:
            ImportError: If scikit-learn is not installed.
            ValueError: If labels and outputs do not fit together.
        """
        y, outputs = _checked(self.task, y, outputs)
        if not len(y) or not np.isfinite(outputs).all():
            return float("nan")
        return float(self.score(y, outputs))

    def resampled(self, y: Any, outputs: Any, counts: Any) -> np.ndarray:
        """Returns the metric of resampled rows, for each draw.

        The result equals, up to rounding, the metric of the repeated rows:
        `metric(np.repeat(y, counts[d], axis=0),
        np.repeat(outputs, counts[d], axis=0))` for draw `d`.

        Args:
            y: array. Labels.
            outputs: array `(n, units)`. Logits or predictions.
            counts: int array `(draws, n)`. How often a draw has each row.

        Returns:
            Array `(draws,)`, float64.

        Raises:
            ImportError: If SciPy is not installed.
            ValueError: If the shapes do not fit together.
        """
        sample = self.sampler(y, outputs)
        counts = np.asarray(counts)
        if counts.ndim != 2 or counts.shape[1] != len(y):
            raise ValueError(
                f"`counts` must have the shape (draws, {len(y)}), a column "
                f"for each row. Received: shape {counts.shape}"
            )
        values = np.full(len(counts), np.nan)
        for block in blocks(len(counts), len(y), np.size(outputs[:1])):
            weights = np.ascontiguousarray(counts[block].T, dtype="float64")
            values[block] = sample(weights)
        values[~(counts > 0).any(axis=1)] = np.nan
        return values

    def sampler(self, y: Any, outputs: Any) -> Sampler:
        """Prepares the metric for resampled rows: sorts, once, what needs it.

        Args:
            y: array. Labels.
            outputs: array `(n, units)`. Logits or predictions.

        Returns:
            Function of float64 weights `(n, draws)`, the counts of `resampled`
            transposed, that returns an array `(draws,)`.
        """
        y, outputs = _checked(self.task, y, outputs)
        if not len(y) or not np.isfinite(outputs).all():
            return lambda weights: np.full(weights.shape[1], np.nan)
        sample = self.weigh(y, outputs)

        def quiet(weights: np.ndarray) -> np.ndarray:
            # A draw may lack what the metric divides by: NaN says so.
            with np.errstate(divide="ignore", invalid="ignore"):
                return sample(weights)

        return quiet


def blocks(draws: int, rows: int, units: int) -> Iterable[slice]:
    """Yields slices of draws whose weights and sums take little memory."""
    # Up to three sums for each unit are kept. 512 draws stay in the cache.
    width = max(1, min(512, ELEMENTS // max(rows, 3 * units, 1)))
    for start in range(0, draws, width):
        yield slice(start, min(start + width, draws))


def _checked(task: str, y: Any, outputs: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns labels in one shape, and outputs as float64."""
    y, outputs = np.asarray(y), np.asarray(outputs).astype("float64")
    if task == "regression" and outputs.ndim == 1:
        outputs = outputs[:, None]
    if outputs.ndim != 2 or len(outputs) != len(y):
        raise ValueError(
            "Outputs must have the shape (n, units), with a row for each "
            f"label. Received: outputs of shape {outputs.shape} and labels of "
            f"shape {y.shape}"
        )
    rows, units = outputs.shape
    if task == "single_label":
        if units < 2 or y.shape not in ((rows,), (rows, 1)):
            raise ValueError(
                "A single-label task has labels (n,) or (n, 1), a class each, "
                "and logits (n, classes) for at least 2 classes. Received: "
                f"labels of shape {y.shape}, outputs of shape {outputs.shape}"
            )
        classes = y.reshape(rows).astype("int64")
        if (classes != y.reshape(rows)).any() or (
            rows and not 0 <= classes.min() <= classes.max() < units
        ):
            raise ValueError(
                f"Labels must be classes from 0 to {units - 1}. Received: "
                f"labels from {y.min()} to {y.max()}"
            )
        return classes, outputs
    if y.size != outputs.size or y.ndim > 2:
        raise ValueError(
            f"Labels of the task {task!r} must have the shape of the outputs. "
            f"Received: labels of shape {y.shape}, outputs of shape "
            f"{outputs.shape}"
        )
    y = y.reshape(outputs.shape)
    if task == "regression":
        return y.astype("float64"), outputs
    if not ((y == 0) | (y == 1)).all():
        raise ValueError(
            "Labels of a multi-label task must be 0 or 1. Received: labels "
            f"from {y.min()} to {y.max()}"
        )
    return y.astype(bool), outputs


# === Probabilities ===


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _sigmoid(logits: np.ndarray) -> np.ndarray:
    power = np.exp(-np.abs(logits))  # It does not overflow.
    return np.where(logits >= 0, 1.0, power) / (1.0 + power)


def _log_odds(logits: np.ndarray) -> np.ndarray:
    """Returns each class's log-odds against the other classes.

    They order rows as probabilities do, without rounding to 1, which would tie
    the rows that a network is surest of.
    """
    shifted = logits - logits.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    # Sorted, so that classes in another order give the same sum: ties stay.
    rest = np.sort(powers, axis=1)[:, :-1].sum(axis=1, keepdims=True)
    others = np.where(powers == 1, rest, 1 + rest - powers)
    return shifted - np.log(np.maximum(others, np.finfo("float64").tiny))


def _logs(probabilities: np.ndarray) -> np.ndarray:
    """Returns logarithms of probabilities, clipped as scikit-learn does."""
    tiny = np.finfo("float64").eps
    return np.log(np.clip(probabilities, tiny, 1 - tiny))


# === Parts of resampled metrics ===


def _mean(values: np.ndarray) -> Sampler:
    """Returns the sampler of a metric that is the mean of a value per row."""
    return lambda weights: values @ weights / weights.sum(axis=0)


def _sparse(
    values: Any, groups: np.ndarray, rows: np.ndarray, shape: tuple[int, int]
) -> Any:
    """Returns a sparse matrix; `matrix @ weights` adds weights by groups."""
    values = np.broadcast_to(np.asarray(values, "float64"), groups.shape)
    return need("scipy.sparse", _TASK).csr_array(
        (values, (groups, rows)), shape=shape
    )


def _by_class(classes: np.ndarray, rows: np.ndarray, units: int) -> Any:
    """Returns the matrix that adds the weights of these rows by class."""
    return _sparse(1.0, classes[rows], rows, (units, len(classes)))


def _class_counts(y: np.ndarray, logits: np.ndarray) -> Sampler:
    """Counts each class's rows, predictions and hits: `(3, units, draws)`."""
    predicted, units = logits.argmax(axis=1), logits.shape[1]
    rows = np.arange(len(y))
    matrix = need("scipy.sparse", _TASK).vstack(
        [
            _by_class(y, rows, units),
            _by_class(predicted, rows, units),
            _by_class(y, rows[y == predicted], units),
        ],
        format="csr",
    )
    return lambda weights: (matrix @ weights).reshape(3, units, -1)


def _label_counts(y: np.ndarray, logits: np.ndarray) -> Sampler:
    """Counts each label's rows, predictions and hits: `(3, units, draws)`."""
    predicted, units = logits > 0, logits.shape[1]
    matrix = need("scipy.sparse", _TASK).csr_array(
        np.hstack([y, predicted, y & predicted]).T.astype("float64")
    )
    return lambda weights: (matrix @ weights).reshape(3, units, -1)


def _ratio(above: Any, below: Any) -> Any:
    """Divides; nothing by nothing is 0."""
    return np.where(below > 0, above / np.where(below > 0, below, 1), 0.0)


def _f1(counts: np.ndarray) -> np.ndarray:
    true, predicted, hits = counts
    return _ratio(2 * hits, true + predicted)


def _steps(
    scores: np.ndarray, positive: np.ndarray, sides: Sequence[Any]
) -> tuple[Any, Any]:
    """Sorts rows once, for sums over all pairs of a positive and a negative.

    The distinct scores of positive rows are steps, from the lowest. Sums of
    negatives are needed at these steps alone.

    Args:
        scores: float array `(n,)`.
        positive: bool array `(n,)`.
        sides: `("right",)` or similar. A negative counts from the first step
            that is at least as high (`"left"`) or higher (`"right"`); half
            from each of the two steps if both are named.

    Returns:
        Two sparse matrices `(steps, n)`. With weights of the rows, the first
        gives the positives at each step. The second gives the negatives by
        which each step exceeds the step below it.
    """
    steps, step = np.unique(scores[positive], return_inverse=True)
    shape = (len(steps), len(scores))
    negatives = np.flatnonzero(~positive)
    first = np.concatenate(
        [np.searchsorted(steps, scores[negatives], side) for side in sides]
    )
    rows = np.tile(negatives, len(sides))
    kept = first < len(steps)
    return (
        _sparse(1.0, step, np.flatnonzero(positive), shape),
        _sparse(1 / len(sides), first[kept], rows[kept], shape),
    )


def _accumulated(values: np.ndarray) -> np.ndarray:
    """Returns cumulative sums along the first axis, in place."""
    rows, columns = values.shape
    if columns < 64:
        return np.cumsum(values, axis=0, out=values)
    # `np.cumsum` takes up to seven times as long for many columns: sums of
    # `STEP` rows first, then what all rows before add.
    whole = rows - rows % STEP
    steps = values[:whole].reshape(-1, STEP, columns)
    for i in range(1, STEP):
        steps[:, i] += steps[:, i - 1]
    for before, step in zip(steps[:-1], steps[1:], strict=True):
        step += before[-1]
    for i in range(max(whole, 1), rows):
        values[i] += values[i - 1]
    return values


# === Single label ===


def _accuracy(y: np.ndarray, logits: np.ndarray) -> float:
    return need("sklearn.metrics", _TASK).accuracy_score(
        y, logits.argmax(axis=1)
    )


def _accuracy_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    return _mean((y == logits.argmax(axis=1)).astype("float64"))


def _balanced_accuracy(y: np.ndarray, logits: np.ndarray) -> float:
    # `balanced_accuracy_score` warns of predicted classes that do not occur.
    return need("sklearn.metrics", _TASK).recall_score(
        y,
        logits.argmax(axis=1),
        labels=np.unique(y),
        average="macro",
        zero_division=0,
    )


def _balanced_accuracy_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    count = _class_counts(y, logits)

    def sample(weights: np.ndarray) -> np.ndarray:
        true, _, hits = count(weights)
        return _ratio(hits, true).sum(axis=0) / (true > 0).sum(axis=0)

    return sample


def _f1_score(y: np.ndarray, predicted: np.ndarray, average: str) -> float:
    return need("sklearn.metrics", _TASK).f1_score(
        y, predicted, average=average, zero_division=0
    )


def _f1_macro(y: np.ndarray, logits: np.ndarray) -> float:
    return _f1_score(y, logits.argmax(axis=1), "macro")


def _f1_macro_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    count = _class_counts(y, logits)

    def sample(weights: np.ndarray) -> np.ndarray:
        counts = count(weights)
        occurs = counts[0] + counts[1] > 0
        return _f1(counts).sum(axis=0) / occurs.sum(axis=0)

    return sample


def _f1_weighted(y: np.ndarray, logits: np.ndarray) -> float:
    return _f1_score(y, logits.argmax(axis=1), "weighted")


def _f1_weighted_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    count = _class_counts(y, logits)

    def sample(weights: np.ndarray) -> np.ndarray:
        counts = count(weights)
        return (_f1(counts) * counts[0]).sum(axis=0) / counts[0].sum(axis=0)

    return sample


def _ranked_classes(
    y: np.ndarray, logits: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns scores and positives of the classes that AUROC averages over."""
    scores = _log_odds(logits)
    classes = range(1, 2) if logits.shape[1] == 2 else range(logits.shape[1])
    found = [(scores[:, c], y == c) for c in classes]
    return [(s, p) for s, p in found if p.any() and not p.all()]


def _auroc(y: np.ndarray, logits: np.ndarray) -> float:
    area = need("sklearn.metrics", _TASK).roc_auc_score
    areas = [area(p, scores) for scores, p in _ranked_classes(y, logits)]
    return float(np.mean(areas)) if areas else float("nan")


def _auroc_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    # A negative counts below higher positives, and half below equal ones.
    classes = [
        _steps(scores, positive, ("left", "right"))
        for scores, positive in _ranked_classes(y, logits)
    ]

    def sample(weights: np.ndarray) -> np.ndarray:
        rows = weights.sum(axis=0)
        total, occur = np.zeros_like(rows), np.zeros_like(rows)
        for positives, increments in classes:
            here = positives @ weights
            below = _accumulated(increments @ weights)
            positive = here.sum(axis=0)
            pairs = positive * (rows - positive)
            total += _ratio(np.einsum("kd,kd->d", here, below), pairs)
            occur += pairs > 0
        return total / occur

    return sample


def _log_loss(y: np.ndarray, logits: np.ndarray) -> float:
    return need("sklearn.metrics", _TASK).log_loss(
        y, _softmax(logits), labels=np.arange(logits.shape[1])
    )


def _log_loss_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    return _mean(-_logs(_softmax(logits)[np.arange(len(y)), y]))


def _gaps(y: np.ndarray, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns each row's bin of confidence, and hit less confidence."""
    confidence = _softmax(logits).max(axis=1)
    # Bins are closed above, as in `ExpectedCalibrationError`.
    bins = np.clip(np.ceil(confidence * BINS).astype("int64") - 1, 0, BINS - 1)
    return bins, (y == logits.argmax(axis=1)) - confidence


def _ece(y: np.ndarray, logits: np.ndarray) -> float:
    bins, gaps = _gaps(y, logits)
    return np.abs(np.bincount(bins, gaps, BINS)).sum() / len(y)


def _ece_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    bins, gaps = _gaps(y, logits)
    matrix = _sparse(gaps, bins, np.arange(len(y)), (BINS, len(y)))
    return lambda w: np.abs(matrix @ w).sum(axis=0) / w.sum(axis=0)


# === Multi-label ===


def _map(y: np.ndarray, logits: np.ndarray) -> float:
    precision = need("sklearn.metrics", _TASK).average_precision_score
    found = [
        precision(positive, scores)
        for positive, scores in zip(y.T, logits.T, strict=True)
        if positive.any()
    ]
    return float(np.mean(found)) if found else float("nan")


def _map_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    # From the highest score down: negatives count that are as high or higher.
    labels = [
        _steps(-scores, positive, ("left",))
        for positive, scores in zip(y.T, logits.T, strict=True)
        if positive.any()
    ]

    def sample(weights: np.ndarray) -> np.ndarray:
        total = np.zeros(weights.shape[1])
        occur = np.zeros(weights.shape[1])
        for positives, increments in labels:
            here = positives @ weights
            hits = _accumulated(here.copy())
            found = _accumulated(increments @ weights)
            found += hits
            # Counts: what is below 1 is 0, and so is what is divided by it.
            here *= np.divide(hits, np.maximum(found, 1, out=found), out=found)
            total += _ratio(here.sum(axis=0), hits[-1])
            occur += hits[-1] > 0
        return total / occur

    return sample


def _labels_f1_macro(y: np.ndarray, logits: np.ndarray) -> float:
    # One label is a column for scikit-learn too only if it is not its one.
    scores = [
        _f1_score(true, predicted, "binary")
        for true, predicted in zip(y.T, logits.T > 0, strict=True)
    ]
    return float(np.mean(scores))


def _labels_f1_macro_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    count = _label_counts(y, logits)
    return lambda weights: _f1(count(weights)).mean(axis=0)


def _labels_f1_micro(y: np.ndarray, logits: np.ndarray) -> float:
    return _f1_score(y.ravel(), logits.ravel() > 0, "binary")


def _labels_f1_micro_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    count = _label_counts(y, logits)
    return lambda weights: _f1(count(weights).sum(axis=1))


def _exact_match(y: np.ndarray, logits: np.ndarray) -> float:
    return float(((logits > 0) == y).all(axis=1).mean())


def _exact_match_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    return _mean(((logits > 0) == y).all(axis=1).astype("float64"))


def _labels_log_loss(y: np.ndarray, logits: np.ndarray) -> float:
    return need("sklearn.metrics", _TASK).log_loss(
        y.ravel(), _sigmoid(logits).ravel(), labels=[False, True]
    )


def _labels_log_loss_sampler(y: np.ndarray, logits: np.ndarray) -> Sampler:
    p = _sigmoid(logits)
    return _mean(-_logs(np.where(y, p, 1 - p)).mean(axis=1))


# === Regression ===


def _mae(y: np.ndarray, predictions: np.ndarray) -> float:
    return need("sklearn.metrics", _TASK).mean_absolute_error(y, predictions)


def _mae_sampler(y: np.ndarray, predictions: np.ndarray) -> Sampler:
    return _mean(np.abs(y - predictions).mean(axis=1))


def _rmse(y: np.ndarray, predictions: np.ndarray) -> float:
    return need("sklearn.metrics", _TASK).root_mean_squared_error(
        y, predictions
    )


def _rmse_sampler(y: np.ndarray, predictions: np.ndarray) -> Sampler:
    squares = _mean(((y - predictions) ** 2).T)
    return lambda weights: np.sqrt(squares(weights)).mean(axis=0)


def _r2(y: np.ndarray, predictions: np.ndarray) -> float:
    varied = (y != y[:1]).any(axis=0)
    if not varied.any():
        return float("nan")
    return need("sklearn.metrics", _TASK).r2_score(
        y[:, varied], predictions[:, varied], multioutput="uniform_average"
    )


def _r2_sampler(y: np.ndarray, predictions: np.ndarray) -> Sampler:
    varied = (y != y[:1]).any(axis=0)
    if not varied.any():
        return lambda weights: np.full(weights.shape[1], np.nan)
    y, predictions = y[:, varied], predictions[:, varied]
    centred = y - y.mean(axis=0)
    values = np.hstack([centred, centred**2, (y - predictions) ** 2]).T

    def spread(column: np.ndarray, weights: np.ndarray) -> float:
        """Returns the squared deviations of drawn labels; NaN if equal."""
        column, weights = column[weights > 0], weights[weights > 0]
        if (column == column[:1]).all():
            return float("nan")
        return weights @ (column - np.average(column, weights=weights)) ** 2

    def sample(weights: np.ndarray) -> np.ndarray:
        sums = (values @ weights).reshape(3, y.shape[1], -1)
        spreads = sums[1] - sums[0] ** 2 / weights.sum(axis=0)
        # What the difference leaves of nearly equal labels is rounding error.
        for unit, draw in np.argwhere(~(spreads > 1e-6 * sums[1])):
            spreads[unit, draw] = spread(y[:, unit], weights[:, draw])
        defined = ~np.isnan(spreads)
        parts = np.where(defined, 1 - sums[2] / spreads, 0.0)
        return parts.sum(axis=0) / defined.sum(axis=0)

    return sample


# Whether higher is better, whether in percent, and digits.
_SHARE, _ERROR, _LOSS = (True, True, 1), (False, True, 1), (False, False, 3)
# Columns: name, title, the three above, and the functions.
_TABLE: dict[str, list[tuple]] = {
    "single_label": [
        ("accuracy", "Accuracy", *_SHARE, _accuracy, _accuracy_sampler),
        (
            "balanced_accuracy",
            "Balanced accuracy",
            *_SHARE,
            _balanced_accuracy,
            _balanced_accuracy_sampler,
        ),
        ("f1_macro", "Macro F1", *_SHARE, _f1_macro, _f1_macro_sampler),
        (
            "f1_weighted",
            "Weighted F1",
            *_SHARE,
            _f1_weighted,
            _f1_weighted_sampler,
        ),
        ("auroc", "AUROC", *_SHARE, _auroc, _auroc_sampler),
        ("log_loss", "Log loss", *_LOSS, _log_loss, _log_loss_sampler),
        ("ece", "ECE", *_ERROR, _ece, _ece_sampler),
    ],
    "multi_label": [
        ("map", "mAP", *_SHARE, _map, _map_sampler),
        (
            "f1_macro",
            "Macro F1",
            *_SHARE,
            _labels_f1_macro,
            _labels_f1_macro_sampler,
        ),
        (
            "f1_micro",
            "Micro F1",
            *_SHARE,
            _labels_f1_micro,
            _labels_f1_micro_sampler,
        ),
        (
            "exact_match",
            "Exact match",
            *_SHARE,
            _exact_match,
            _exact_match_sampler,
        ),
        (
            "log_loss",
            "Log loss",
            *_LOSS,
            _labels_log_loss,
            _labels_log_loss_sampler,
        ),
    ],
    "regression": [
        ("mae", "MAE", *_LOSS, _mae, _mae_sampler),
        ("rmse", "RMSE", *_LOSS, _rmse, _rmse_sampler),
        ("r2", "R²", True, False, 3, _r2, _r2_sampler),
    ],
}

# Metrics by task and name. The first metric of a task is its default.
METRICS: dict[str, dict[str, Metric]] = {
    task: {
        name: Metric(name, title, task, *rest) for name, title, *rest in table
    }
    for task, table in _TABLE.items()
}


def named(task: str, name: str | None = None) -> Metric:
    """Returns a metric of a task.

    Args:
        task: str. `"single_label"`, `"multi_label"` or `"regression"`.
        name: str. A name among `METRICS[task]`, in any case; `-`, `_` and a
            space are equal. Defaults to `"accuracy"`, `"map"` or `"mae"`.

    Raises:
        ValueError: If there is no such task or metric.

    Example:
    >>> from keras_mla.comparison import metrics
    >>> metric = metrics.named("single_label", "Log-loss")
    >>> metric.text(metric([0, 1], [[0.0, 0.0], [0.0, 0.0]]))
    '0.693'
    """
    if task not in METRICS:
        raise ValueError(
            f"`task` must be one of {sorted(METRICS)}. Received: task={task!r}"
        )
    known = METRICS[task]
    if name is None:
        return next(iter(known.values()))
    key = _key(name)
    if key not in known:
        raise ValueError(
            f"A metric of the task {task!r} must be one of {list(known)}."
            f"{hint(key, known, 0.5)} Received: {name!r}"
        )
    return known[key]


def check(name: str | None) -> None:
    """Raises unless a metric of some task has a name.

    Raises:
        ValueError: If there is no such metric.
    """
    known = dict.fromkeys(
        key for of_task in METRICS.values() for key in of_task
    )
    if name is not None and _key(name) not in known:
        raise ValueError(
            f"`metric` must be one of {list(known)}."
            f"{hint(_key(name), known, 0.5)} Received: metric={name!r}"
        )


def _key(name: str) -> str:
    return str(name).strip().lower().replace("-", "_").replace(" ", "_")
