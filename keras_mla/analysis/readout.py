import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_mla.core.tasks import TASKS

# Strengths of the penalty, in units of scikit-learn's `alpha` and `1 / C`.
PENALTIES = (0.01, 0.1, 1.0, 10.0, 100.0)


@dataclasses.dataclass
class Readout:
    """A linear read-out of features, and its score.

    Attributes:
        score: float. The share of right classes or right labels on the test
            samples; for regression, the coefficient of determination, a mean
            over targets.
        penalty: float. The chosen strength of the penalty.
        selection: dict from each penalty to its score on validation samples.
    """

    score: float
    penalty: float
    selection: dict[float, float]


def linear_readout(
    train: tuple[Any, Any],
    test: tuple[Any, Any],
    validation: tuple[Any, Any] | None = None,
    task: str = "single_label",
    penalties: Sequence[float] = PENALTIES,
    seed: int = 0,
) -> Readout:
    """Fits a linear read-out to features, and scores it on test samples.

    The read-out is a logistic regression (one for each label, if samples have
    several), or a ridge regression, with a squared penalty. Features are
    standardised by the training samples. The strength of the penalty is
    chosen on validation samples, never on test samples. scikit-learn is
    needed.

    Args:
        train: Features `(samples, width)` and labels.
        test: Features and labels that the score is computed on.
        validation: Features and labels that the penalty is chosen on. Defaults
            to `None`, which holds out a fifth of the training samples for the
            choice and then fits all of them.
        task: `"single_label"` (labels are classes `(samples,)`),
            `"multi_label"` (zeros and ones `(samples, labels)`) or
            `"regression"` (`(samples, targets)`).
        penalties: Strengths of the penalty to choose from.
        seed: int. The seed of the samples that are held out. Defaults to `0`.

    Returns:
        A `Readout`.

    Raises:
        ImportError: If scikit-learn is not installed.
        ValueError: If the task is unknown, there is no penalty, or features
            and labels do not fit together.

    Example:
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(0, 3, 90)
    >>> x = np.eye(3)[y] + 0.01 * rng.normal(size=(90, 3))
    >>> readout = keras_mla.analysis.linear_readout(
    ...     (x[:60], y[:60]), (x[60:], y[60:])
    ... )
    >>> readout.score
    1.0

    Reference:
        Alain and Bengio, "Understanding intermediate layers using linear
        classifier probes", ICLR 2017 workshop.
    """
    if task not in TASKS:
        raise ValueError(
            f"`task` must be one of {list(TASKS)}. Received: task={task!r}"
        )
    if not penalties or min(penalties) <= 0:
        raise ValueError(
            "`penalties` must be at least one number greater than 0. "
            f"Received: penalties={penalties}"
        )
    x, y = _arrays("train", train)
    x_test, y_test = _arrays("test", test)
    fit_x, fit_y = x, y
    if validation is None:
        held = np.random.default_rng(seed).permutation(len(x))
        size = max(1, len(x) // 5)
        chosen_on = x[held[:size]], y[held[:size]]
        fit_x, fit_y = x[held[size:]], y[held[size:]]
    else:
        chosen_on = _arrays("validation", validation)
    selection = {
        float(penalty): _fit_and_score(
            task, float(penalty), fit_x, fit_y, *chosen_on
        )
        for penalty in penalties
    }
    # Of equal scores, the strongest penalty.
    best = max(selection, key=lambda penalty: (selection[penalty], penalty))
    score = _fit_and_score(task, best, x, y, x_test, y_test)
    return Readout(score, best, selection)


def _arrays(what: str, data: Any) -> tuple[np.ndarray, np.ndarray]:
    x, y = (np.asarray(ops.convert_to_numpy(part)) for part in data)
    if x.ndim != 2 or len(x) != len(y) or not len(x):
        raise ValueError(
            f"`{what}` must hold features `(samples, width)` and a label for "
            f"each sample. Received: shapes {x.shape} and {y.shape}"
        )
    return x.astype("float64"), y


def _fit_and_score(
    task: str,
    penalty: float,
    x: np.ndarray,
    y: np.ndarray,
    x_test: np.ndarray,
    y_test: np.ndarray,
) -> float:
    try:
        from sklearn import linear_model, multiclass, pipeline, preprocessing
    except ImportError as error:
        raise ImportError(
            "Linear read-outs need scikit-learn: install `keras-mla[analysis]`."
        ) from error
    classifier = linear_model.LogisticRegression(C=1 / penalty, max_iter=2000)
    if task == "regression":
        model = linear_model.Ridge(alpha=penalty)
    elif task == "multi_label":
        # Labels that all samples have, or none, need no classifier.
        varied = (y != y[:1]).any(axis=0)
        right = float((y_test[:, ~varied] == y[0, ~varied]).sum())
        y, y_test_varied = y[:, varied], y_test[:, varied]
        if varied.any():
            fitted = pipeline.make_pipeline(
                preprocessing.StandardScaler(),
                multiclass.OneVsRestClassifier(classifier),
            ).fit(x, y)
            found = fitted.predict(x_test).reshape(y_test_varied.shape)
            right += float((found == y_test_varied).sum())
        return right / y_test.size
    else:
        if (y == y[0]).all():
            return float((y_test == y[0]).mean())
        model = classifier
    scaler = preprocessing.StandardScaler()
    fitted = pipeline.make_pipeline(scaler, model).fit(x, y)
    return float(fitted.score(x_test, y_test))
