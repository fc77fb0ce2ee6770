"""Checks of what a user gives to a constructor and to `compile`."""

import functools
import inspect
from collections.abc import Mapping
from typing import Any

import keras

from keras_mla.layers.fusion import Fusion
from keras_mla.models.batch import RESERVED
from keras_mla.models.stack import leaves

# Beside the reserved inputs: other parts of a model, and a prefix of logs.
TAKEN = (*RESERVED, "fused", "head", "val")


def check_encoders(encoders: Any) -> None:
    """Raises unless `encoders` is a dict of distinct layers."""
    if not isinstance(encoders, Mapping) or not encoders:
        raise ValueError(
            "`encoders` must be a dict with at least one modality, such as "
            "{'image': image_encoder, 'text': text_encoder}. "
            f"Received: encoders={encoders}"
        )
    owners: dict[int, str] = {}
    for name, encoder in encoders.items():
        if not isinstance(name, str) or not name or name in TAKEN:
            raise ValueError(
                f"A modality must be named by a string other than {TAKEN}, "
                f"which have a meaning of their own. Received: {name!r}"
            )
        if not isinstance(encoder, keras.layers.Layer):
            raise TypeError(
                f"The encoder of modality {name!r} must be a Keras layer or "
                f"model. Received: encoders[{name!r}]={encoder} of type "
                f"{type(encoder).__name__}"
            )
        for part in [encoder, *encoder.variables]:
            owner = owners.setdefault(id(part), name)
            if owner != name:
                raise ValueError(
                    f"Modalities {owner!r} and {name!r} share an encoder or "
                    "some of its weights. Each needs an encoder of its own: "
                    "a shared one would be moved in the other's updates and "
                    "become two when the model is loaded. Make a second one, "
                    "for instance with `keras.models.clone_model`."
                )


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
        if head < 2:
            raise ValueError(
                "`head` given as a number of classes must be at least 2. "
                f"Received: head={head}"
            )
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
    return head


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
    if not _takes_logits(loss):
        name = getattr(loss, "__name__", None) or type(loss).__name__
        raise ValueError(
            "The model returns logits, so the loss must be told: pass an "
            "object such as "
            "`keras.losses.SparseCategoricalCrossentropy(from_logits=True)`, "
            "for one-hot labels "
            "`keras.losses.CategoricalCrossentropy(from_logits=True)`. "
            f"Received: loss={loss if isinstance(loss, str) else name}"
        )


def _takes_logits(loss: Any) -> bool:
    """Whether a loss is not known to expect probabilities."""
    if isinstance(loss, str):
        return not ("crossentropy" in loss.lower() or loss.lower() == "ce")
    if isinstance(loss, functools.partial):
        return bool(loss.keywords.get("from_logits")) or _takes_logits(
            loss.func
        )
    if loss in (
        keras.losses.sparse_categorical_crossentropy,
        keras.losses.categorical_crossentropy,
        keras.losses.binary_crossentropy,
    ):
        return False
    return getattr(loss, "from_logits", True) is not False


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
        if any(base.__name__ == refused for base in type(optimizer).__mro__):
            raise ValueError(
                f"The optimizer {name} cannot be used with one update per "
                f"modality: {reason}. Received: optimizer={name}"
            )


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
    wants_classes = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    if not (sparse if wants_classes else one_hot):
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
