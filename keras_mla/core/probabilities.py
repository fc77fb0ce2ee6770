"""Losses and metrics of Keras that expect probabilities, not logits."""

import functools
from collections.abc import Callable
from typing import Any

import keras

from keras_mla.backend import internals

_ON_SOFTMAX = (
    "Pass a function of labels and logits that applies it to "
    "`keras.ops.softmax(logits)`."
)
_AS_CROSSENTROPY = (
    "Pass `keras.losses.CategoricalCrossentropy(from_logits=True)`: for fixed "
    "labels the two differ by a constant."
)
# Losses without an argument `from_logits`: class, function, advice.
_LOSSES = (
    ("KLDivergence", "kl_divergence", _AS_CROSSENTROPY),
    ("Poisson", "poisson", _ON_SOFTMAX),
    ("Dice", "dice", _ON_SOFTMAX),
    ("Tversky", "tversky", _ON_SOFTMAX),
    (
        "CategoricalGeneralizedCrossEntropy",
        "categorical_generalized_cross_entropy",
        _ON_SOFTMAX,
    ),
)
# Losses and metrics that take `from_logits=True`: class and function.
_CROSSENTROPIES = {
    "sparse_categorical_crossentropy": "SparseCategoricalCrossentropy",
    "categorical_crossentropy": "CategoricalCrossentropy",
    "categorical_focal_crossentropy": "CategoricalFocalCrossentropy",
    "binary_crossentropy": "BinaryCrossentropy",
    "binary_focal_crossentropy": "BinaryFocalCrossentropy",
}
# Metrics that compare with a threshold of 0.5 unless another is given, and
# the argument for it.
_THRESHOLDED = {
    "BinaryAccuracy": "threshold",
    "BinaryIoU": "threshold",
    "Precision": "thresholds",
    "Recall": "thresholds",
    "TruePositives": "thresholds",
    "TrueNegatives": "thresholds",
    "FalsePositives": "thresholds",
    "FalseNegatives": "thresholds",
}
# Metrics that look at thresholds from 0 to 1, and have no form for logits.
_CURVES = (
    "PrecisionAtRecall",
    "RecallAtPrecision",
    "SensitivityAtSpecificity",
    "SpecificityAtSensitivity",
)


def of_loss(loss: Any) -> str:
    """Returns what to pass instead of a loss; `""` if it may take logits."""
    if isinstance(loss, str):
        return _of_name(loss, "losses", of_loss)
    if isinstance(loss, functools.partial):
        if loss.keywords.get("from_logits"):
            return ""
        return of_loss(loss.func)
    for function, name in _CROSSENTROPIES.items():
        if loss is getattr(keras.losses, function):
            return _crossentropy_advice("losses", name)
    if getattr(loss, "from_logits", True) is False:
        return _crossentropy_advice("losses", type(loss).__name__)
    for name, function, advice in _LOSSES:
        if loss is getattr(keras.losses, function, None):
            return advice
        if _is_plainly(loss, getattr(keras.losses, name, None), "call"):
            return advice
    return ""


def of_metric(metric: Any) -> str:
    """Returns what to pass instead of a metric; `""` if it may take logits."""
    if isinstance(metric, str):
        return _of_name(metric, "metrics", of_metric)
    if not isinstance(metric, keras.metrics.Metric):
        return of_loss(metric)  # A function, most often of a loss.
    name = type(metric).__name__
    if internals.takes_logits(metric) is False:
        return _crossentropy_advice("metrics", name)
    if type(metric) is keras.metrics.MeanMetricWrapper:
        function, arguments = internals.wrapped_function(metric)
        return "" if arguments.get("from_logits") else of_loss(function)
    if name in ("KLDivergence", "Poisson"):
        if _is_plainly(metric, getattr(keras.metrics, name), "update_state"):
            return dict((n, advice) for n, _, advice in _LOSSES)[name]
    if type(metric) is not getattr(keras.metrics, name, None):
        return ""  # A metric of the user's own.
    if name in _THRESHOLDED:
        argument = _THRESHOLDED[name]
        config = metric.get_config()
        default = config.get(argument) in (None, 0.5, [0.5])
        if default and config.get("top_k") is None:
            return (
                "For the class that scores highest, use "
                "`SparseCategoricalAccuracy` or `F1Score`. For a threshold on "
                f"logits, where 0 means a probability of 0.5, pass "
                f"`keras.metrics.{name}({argument}=0.0)`."
            )
    if name in ("F1Score", "FBetaScore") and metric.threshold is not None:
        return (
            "Without a `threshold`, it takes the class that scores highest: "
            f"pass `keras.metrics.{name}()`."
        )
    if name in _CURVES:
        return (
            "Its thresholds run from 0 to 1: compute the metric from the "
            "probabilities `keras.ops.softmax(model.predict(x))`."
        )
    return ""


def _of_name(name: str, module: str, judge: Callable[[Any], str]) -> str:
    """Returns advice on the object of a name in one of Keras's modules."""
    # Keras chooses the forms of these names by the labels.
    if name.lower() in ("accuracy", "acc"):
        return ""
    if name.lower() in ("ce", "crossentropy"):
        return _crossentropy_advice(module, "SparseCategoricalCrossentropy")
    try:
        return judge(getattr(keras, module).get(name))
    except ValueError:
        return ""  # Keras raises its own error.


def _crossentropy_advice(module: str, name: str) -> str:
    advice = f"Pass `keras.{module}.{name}(from_logits=True)`"
    if name == "SparseCategoricalCrossentropy":
        advice += (
            " for integer labels, for one-hot labels "
            f"`keras.{module}.CategoricalCrossentropy(from_logits=True)`"
        )
    return advice + "."


def _is_plainly(value: Any, base: type | None, method: str) -> bool:
    """Returns whether an object computes the same as a class of Keras."""
    return (
        base is not None
        and isinstance(value, base)
        and getattr(type(value), method) is getattr(base, method)
    )
