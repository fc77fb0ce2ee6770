"""Checks of what a user gives to a constructor, to `compile` and to `fit`."""

import contextlib
import contextvars
import inspect
import re
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_mla import training as backend
from keras_mla.layers.fusion import Fusion
from keras_mla.models import probabilities
from keras_mla.models.batch import RESERVED
from keras_mla.models.stack import leaves

# Names that cannot be modalities: reserved inputs, parts of the model, and
# prefixes of logs.
TAKEN = (*RESERVED, "fused", "head", "val", "weighted")
UNLABELLED = (
    "Samples without a label can be given a `sample_weight` of 0, or a class "
    "that the loss ignores (`SparseCategoricalCrossentropy(ignore_class=-1)`)."
)
# Names that every backend takes for weights, inputs and scopes.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")


def check_encoders(encoders: Any) -> None:
    """Raises unless `encoders` is a dict of distinct layers."""
    if not isinstance(encoders, Mapping) or not encoders:
        raise ValueError(
            "`encoders` must be a dict with at least one modality, such as "
            "{'image': image_encoder, 'text': text_encoder}. "
            f"Received: encoders={encoders}"
        )
    owners: dict[int, str] = {}
    parts = []  # Kept, as ids of what is gone are given again.
    for name, encoder in encoders.items():
        check_name(name)
        if not isinstance(encoder, keras.layers.Layer):
            raise TypeError(
                f"The encoder of modality {name!r} must be a Keras layer or "
                f"model. Received: encoders[{name!r}]={encoder} of type "
                f"{type(encoder).__name__}"
            )
        for part in _own_parts(encoder):
            parts.append(part)
            owner = owners.setdefault(id(part), name)
            if owner != name:
                raise ValueError(
                    f"Modalities {owner!r} and {name!r} share an encoder, a "
                    "layer of it or some of its weights "
                    f"({getattr(part, 'name', part)!r}; a layer that is not "
                    "built yet may have weights). Each needs an encoder "
                    "of its own: a shared one would be moved in the other's "
                    "updates and become two when the model is loaded. Make a "
                    "second one, for instance with "
                    "`keras.models.clone_model`."
                )


# Whether a model of version 0.1 is being loaded.
_as_before = contextvars.ContextVar("as_before", default=False)


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Lets pass what version 0.1 let pass, for the files that it saved."""
    token = _as_before.set(True)
    try:
        yield
    finally:
        _as_before.reset(token)


def check_name(name: Any) -> None:
    """Raises unless a modality can be called so."""
    if _as_before.get() and isinstance(name, str):
        return
    if (
        not isinstance(name, str)
        or not NAME.fullmatch(name)
        or name in TAKEN
        or name.startswith("val_")
    ):
        raise ValueError(
            "A modality must be named by a string of English letters, digits, "
            "'_' and '-' that begins with a letter or a digit, other than "
            f"{TAKEN} and names that begin with 'val_', which have a meaning "
            f"of their own. Received: {name!r}"
        )


def _own_parts(encoder: keras.layers.Layer) -> list:
    """Layers and weights that no two encoders may share."""
    layers = [
        layer
        for layer in backend.internals.sublayers(encoder)
        # One without weights can be shared, if it is sure to have none.
        if layer is encoder or not layer.built or layer.variables
    ]
    return [*layers, *encoder.variables]


def check_fusion(fusion: Any, default: type[Fusion]) -> Fusion:
    """Returns the fusion layer given, or a new one of the default class."""
    if fusion is not None and not isinstance(fusion, Fusion):
        raise TypeError(
            "`fusion` must be a fusion layer such as "
            f"`keras_mla.layers.{default.__name__}()`. "
            f"Received: fusion={fusion}"
        )
    return default() if fusion is None else fusion


def check_main(main: str | None, modalities: tuple[str, ...]) -> str:
    """Returns the name of the modality that others act on."""
    if len(modalities) < 2:
        raise ValueError(
            "This method conditions one modality on others: it needs at least "
            f"two. Received: encoders for {list(modalities)}"
        )
    if main is None:
        return modalities[-1]
    if main not in modalities:
        raise ValueError(
            f"`main` must be one of the modalities {list(modalities)}. "
            f"Received: main={main!r}"
        )
    return main


def make_head(head: Any) -> keras.layers.Layer:
    """Returns the head's layer, from a number of classes or a layer."""
    if isinstance(head, int) and not isinstance(head, bool):
        check_units(head, head)
        return keras.layers.Dense(head, name="head")
    last = head
    while isinstance(last, keras.Sequential) and last.layers:
        last = last.layers[-1]
    if not isinstance(last, keras.layers.Dense):
        raise ValueError(
            "`head` must be a number of classes, a `keras.layers.Dense`, or a "
            "`keras.Sequential` that ends in one. "
            f"Received: head={head} of type {type(head).__name__}"
            + (
                f", which ends in a {type(last).__name__}"
                if last is not head
                else ""
            )
        )
    inner = [part for part in leaves(head) if isinstance(part, keras.Model)]
    if inner:
        raise ValueError(
            "A head of several layers must be a plain `keras.Sequential` of "
            "layers and plain Sequentials, whose kernels can be found. "
            f"Received: head={head}, with {inner[0]} of type "
            f"{type(inner[0]).__name__}"
        )
    if last.activation is not keras.activations.linear:
        raise ValueError(
            "The head must return logits: its last `Dense` must have no "
            "activation. Losses and fusion apply the softmax themselves. "
            f"Received: activation={last.activation.__name__}"
        )
    check_units(last.units, head)
    return head


def check_units(units: int, head: Any) -> None:
    """Raises unless a head has a logit for each of two classes or more."""
    if units < 2 and not _as_before.get():
        raise ValueError(
            "The number of classes must be at least 2: the head has a logit "
            "for each class, also where there are two, and `y` says which "
            "class is right. Use a head of 2 and "
            "`SparseCategoricalCrossentropy(from_logits=True)` for a yes or "
            f"no. Received: head={head} with {units} unit(s)"
        )


def number_of_classes(head: keras.layers.Layer) -> int:
    """Returns the number of logits of a checked head."""
    *_, last = leaves(head)
    return last.units


def check_features(name: str, feature: Any) -> None:
    """Raises unless an encoder's output is `(batch, features)`."""
    shape = getattr(feature, "shape", None)
    if shape is None or len(shape) != 2 or shape[1] is None:
        raise ValueError(
            f"The encoder of modality {name!r} must return one tensor of "
            "shape (batch, features), with `features` known. Pool or flatten "
            "its output, for instance with "
            "`keras.layers.GlobalAveragePooling1D`. Received: "
            + (
                type(feature).__name__
                if shape is None
                # A tracer's stand-in for an unknown size is not for users.
                else f"shape {_known(shape)}"
            )
        )


def _known(shape: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def check_widths(widths: dict[str, int]) -> None:
    """Raises unless all features, by modality, are of one width."""
    if len(set(widths.values())) > 1:
        raise ValueError(
            "A shared head needs features of one width. Pass `feature_dim=` "
            "to project each modality's features to it, or change the "
            "encoders. Received features of width "
            + ", ".join(f"{width} ({name})" for name, width in widths.items())
        )


def check_loss(loss: Any) -> None:
    """Raises unless `loss` is a single one that takes logits."""
    if loss is None or isinstance(loss, list | tuple | dict):
        raise ValueError(
            "`loss` must be a single loss, such as "
            "`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`. "
            f"Received: loss={loss}"
        )
    if getattr(loss, "reduction", "mean") in (None, "none"):
        raise ValueError(
            "The loss must reduce a batch to one number. "
            f"Received: reduction={loss.reduction}"
        )
    advice = probabilities.of_loss(loss)
    if advice:
        name = getattr(loss, "__name__", None) or type(loss).__name__
        raise ValueError(
            "The model returns logits, and this loss expects probabilities. "
            f"{advice} Received: loss={loss if isinstance(loss, str) else name}"
        )


def check_metrics(argument: str, metrics: Any) -> None:
    """Raises unless `metrics` is a flat list or `None`."""
    if metrics is not None and (
        not isinstance(metrics, list | tuple)
        or any(isinstance(metric, list | tuple | dict) for metric in metrics)
    ):
        raise ValueError(
            f"`{argument}` must be a list of metrics. Each is computed for "
            "the fused prediction and for every modality. "
            f"Received: {argument}={metrics}"
        )
    for metric in metrics or ():
        advice = probabilities.of_metric(metric)
        if advice:
            name = getattr(metric, "__name__", None) or type(metric).__name__
            raise ValueError(
                f"The model returns logits, and a metric in `{argument}` "
                f"expects probabilities. {advice} Received: "
                f"{metric if isinstance(metric, str) else name}"
            )


def check_optimizer(
    optimizer: Any, updates: int, multiplier: dict[str, float]
) -> None:
    """Raises if `optimizer` cannot make several updates of a batch."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if multiplier and optimizer.use_ema:
        raise ValueError(
            "`learning_rate_multiplier` and an optimizer with `use_ema=True` "
            "exclude each other: the moving average would take in the steps "
            "before they are scaled."
        )
    if multiplier and _is_a(optimizer, "ScheduleFreeAdamW"):
        raise ValueError(
            "`learning_rate_multiplier` and ScheduleFreeAdamW exclude each "
            "other: the optimizer keeps weights of its own, which would miss "
            "the scaling. Use AdamW."
        )
    if updates == 1:
        return
    name = type(optimizer).__name__
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "`gradient_accumulation_steps` is not supported with one update "
            "per modality: the steps accumulated would be those of different "
            "modalities. Use a larger batch. Received: "
            f"gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}"
        )
    reasons = {
        "Nadam": "its momentum schedule is one product shared by all "
        "weights, which every modality's update would decay again. "
        "Use `Adam`",
        "MultiOptimizer": "it takes gradients for all weights at a time "
        "only. Use one optimizer, and `learning_rate_multiplier` where parts "
        "of the model need different rates",
    }
    for refused, reason in reasons.items():
        if _is_a(optimizer, refused):
            raise ValueError(
                f"The optimizer {name} cannot be used with one update per "
                f"modality: {reason}. Received: optimizer={name}"
            )


def check_average(optimizer: Any, updates: int, presence: Any | None) -> None:
    """Raises if a moving average of weights would miss updates.

    Keras takes the average in an optimizer's step. Of several updates it is
    left to the last one, which a batch may skip.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer.use_ema and updates > 1 and presence is not None:
        raise ValueError(
            "An optimizer with `use_ema=True` cannot be used with "
            "x['presence'] and one update per modality: the average is taken "
            "in the last modality's update, which is not made where no sample "
            "has it. Use an optimizer without `use_ema`."
        )


def _is_a(optimizer: Any, name: str) -> bool:
    return any(base.__name__ == name for base in type(optimizer).__mro__)


def check_optimized(optimizer: Any, updates: Any) -> None:
    """Raises unless an optimizer knows the variables that it is to move."""
    if not optimizer.built:
        return
    known = {id(v) for v in backend.internals.optimized_variables(optimizer)}
    for update in updates:
        for variable in update.variables:
            if id(variable) not in known:
                raise ValueError(
                    f"The optimizer does not know the weight {variable.path!r}"
                    ", which has become trainable since the optimizer was "
                    "first used. Compile the model with a new optimizer."
                )


def check_class_weight(class_weight: Any, y: Any) -> None:
    """Raises if `class_weight` is given with unpaired labels."""
    if class_weight is not None and isinstance(y, dict):
        raise ValueError(
            "`class_weight` is not supported with `y` a dict (unpaired "
            "training). Give batches with a dict of sample weights, keyed by "
            "modality."
        )


def wants_classes(loss: Any) -> bool:
    """Tells whether a loss is known to take integer classes."""
    return isinstance(loss, keras.losses.SparseCategoricalCrossentropy)


def check_classes(
    name: str,
    y: Any,
    classes: int,
    loss: Any,
    sample_weight: Any | None,
    presence: Any | None,
) -> None:
    """Raises if an array holds labels that are no classes.

    Labels of samples that weigh nothing, or have no modality, may be anything.

    Args:
        name: The modality, or `""` for all.
        y: Array of labels.
        classes: The number of classes.
        loss: The compiled loss.
        sample_weight: Array of shape `(samples,)`, or `None`.
        presence: Array of shape `(samples, modalities)`, or `None`.
    """
    if not wants_classes(loss):
        return
    labels = _numpy(y)
    given = [_numpy(v) for v in (sample_weight, presence) if v is not None]
    if (
        labels.dtype.kind not in "iufb"
        or labels.ndim == 0
        or labels.size != len(labels)
        or any(v.ndim == 0 or len(v) != len(labels) for v in given)
    ):
        return  # Another check says what is wrong.
    labels = labels.reshape(-1)
    stray = (labels < 0) | (labels >= classes)
    if loss.ignore_class is not None:
        stray &= labels != loss.ignore_class
    if not stray.any():
        return
    if sample_weight is not None:
        stray &= _numpy(sample_weight).reshape(-1) != 0
    if presence is not None:
        stray &= _numpy(presence).astype(bool).any(axis=1)
    if stray.any():
        where = f" of modality {name!r}" if name else ""
        raise ValueError(
            f"Labels{where} must be classes from 0 to {classes - 1}, as the "
            f"head has {classes} units. Labels counted from 1 must be lowered "
            f"by 1. {UNLABELLED} Received: "
            f"{int(stray.sum())} other labels, among them "
            f"{labels[stray][0]}"
        )


def _numpy(value: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(value))


def check_labels(name: str, y: Any, logits: Any, loss: Any) -> None:
    """Raises unless labels fit the logits and the loss."""
    classes = logits.shape[-1]
    shape = tuple(y.shape)
    sparse = len(shape) == 1 or (len(shape) == 2 and shape[1] == 1)
    one_hot = len(shape) == 2 and shape[1] == classes
    where = f" of modality {name!r}" if name else ""
    if not sparse and not one_hot:
        raise ValueError(
            f"Labels{where} must have the shape (batch,), with a class in "
            f"each, or (batch, {classes}), one-hot. Received: shape {shape}"
        )
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    of_keras = (loss if inspect.isfunction(loss) else type(loss)).__module__
    if of_keras.partition(".")[0] != "keras":
        return  # A loss of the user's own takes what it takes.
    if not (sparse if wants_classes(loss) else one_hot):
        raise ValueError(
            f"Labels{where} of shape {shape} do not fit the loss "
            f"{getattr(loss, '__name__', type(loss).__name__)}: integer "
            "classes of shape (batch,) go with SparseCategoricalCrossentropy, "
            f"one-hot labels of shape (batch, {classes}) with the others."
        )


def check_multiplier(multiplier: Any, parts: list[str]) -> dict[str, float]:
    """Returns `learning_rate_multiplier` as a checked dict."""
    if multiplier is None:
        return {}
    if not isinstance(multiplier, Mapping):
        raise ValueError(
            "`learning_rate_multiplier` must be a dict with some of the keys "
            f"{parts}. Received: {multiplier}"
        )
    for name, value in multiplier.items():
        if name not in parts:
            raise ValueError(
                f"`learning_rate_multiplier` has the unknown key {name!r}. "
                f"The parts of this model are {parts}."
            )
        if not value >= 0:
            raise ValueError(
                "A learning-rate multiplier must be at least 0. "
                f"Received: {name!r}: {value}"
            )
    return {name: float(value) for name, value in multiplier.items()}
