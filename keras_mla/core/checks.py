"""Checks of the arguments of constructors, `compile` and `fit`."""

import contextlib
import contextvars
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_mla.backend import internals
from keras_mla.core import probabilities
from keras_mla.core.batch import RESERVED
from keras_mla.layers.fusion import Fusion

# Names that cannot be modalities: reserved inputs, parts of the model, and
# prefixes of logs.
TAKEN = (*RESERVED, "fused", "head", "val", "weighted")
# Names that every backend accepts for weights, inputs and scopes.
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
    parts = []  # Kept, because ids of deleted objects are reused.
    for name, encoder in encoders.items():
        check_name(name)
        if not isinstance(encoder, keras.layers.Layer):
            raise TypeError(
                f"The encoder of modality {name!r} must be a Keras layer or "
                f"model. Received: encoders[{name!r}]={encoder} of type "
                f"{type(encoder).__name__}"
            )
        _check_loadable(name, encoder)
        for part in _own_parts(encoder):
            parts.append(part)
            owner = owners.setdefault(id(part), name)
            if owner != name:
                raise ValueError(
                    f"Modalities {owner!r} and {name!r} share an encoder, a "
                    "layer of it or some of its weights "
                    f"({getattr(part, 'name', part)!r}; a layer that is not "
                    "built yet may have weights). Each modality needs an "
                    "encoder of its own: updates of both modalities would "
                    "move a shared encoder, and loading the model would make "
                    "two of it. Make a second encoder, for instance with "
                    "`keras.models.clone_model`."
                )


# Layers of keras-hub that Keras can load inside their backbone alone: one has
# unknown arguments in its config, the other does not build its parts.
_OF_BACKBONES = ("ViTPatchingAndEmbedding", "RelativeEmbedding")


def _check_loadable(name: str, encoder: keras.layers.Layer) -> None:
    """Raises if an encoder could not be loaded from a file."""
    for layer in _outside_backbones(encoder):
        kind = type(layer)
        if kind.__name__ in _OF_BACKBONES and "keras_hub" in kind.__module__:
            raise ValueError(
                f"The encoder of modality {name!r} could not be loaded again: "
                f"keras-hub's layer {kind.__name__!r} can be loaded inside its "
                "backbone only. Call the backbone as a layer, "
                "`keras.Model(inputs, pooling(backbone(inputs)))`, in place of "
                "`backbone.input` and `backbone.output`."
            )


def _outside_backbones(layer: keras.layers.Layer) -> Iterator[Any]:
    """Yields the layers of functional models, but no backbone's."""
    if any(
        base.__name__ == "Backbone" and "keras_hub" in base.__module__
        for base in type(layer).__mro__
    ):
        return
    yield layer
    for part in layer.layers if isinstance(layer, keras.Model) else ():
        yield from _outside_backbones(part)


# Whether a model of version 0.1 is being loaded.
_as_before = contextvars.ContextVar("as_before", default=False)


@contextlib.contextmanager
def as_before() -> Iterator[None]:
    """Accepts what version 0.1 accepted, for the files that it saved."""
    token = _as_before.set(True)
    try:
        yield
    finally:
        _as_before.reset(token)


def check_name(name: Any) -> None:
    """Raises unless a modality can have the name."""
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
            "'_' and '-' that begins with a letter or a digit. The names "
            f"{TAKEN} and names that begin with 'val_' are reserved. "
            f"Received: {name!r}"
        )


def _own_parts(encoder: keras.layers.Layer) -> list:
    """Returns the layers and weights that no two encoders may share."""
    layers = [
        layer
        for layer in internals.sublayers(encoder)
        # A layer can be shared if it is built and has no weights.
        if layer is encoder or not layer.built or layer.variables
    ]
    return [*layers, *encoder.variables]


def check_table(table: Any, modalities: tuple[str, ...], units: int) -> None:
    """Raises unless a table makes inputs and labels for the model."""
    if table is None:
        return
    if not callable(getattr(table, "get_config", None)) or not hasattr(
        table, "modalities"
    ):
        raise ValueError(
            "`table` must be a `keras_mla.datasets.Table`. "
            f"Received: table={table!r}"
        )
    if set(table.modalities) != set(modalities):
        raise ValueError(
            f"The table makes the modalities {list(table.modalities)}, and the "
            f"encoders are for {list(modalities)}."
        )
    # An error says that the table is not adapted, if it is not.
    table.shapes  # noqa: B018
    if getattr(table, "label", None) is not None and table.units != units:
        raise ValueError(
            f"The table has labels for {table.units} outputs, and the head has "
            f"{units}: pass `head=table.units`."
        )


def check_fusion(fusion: Any) -> None:
    """Raises unless `fusion` is a fusion layer or `None`."""
    if fusion is not None and not isinstance(fusion, Fusion):
        raise TypeError(
            "`fusion` must be a fusion layer such as "
            f"`keras_mla.layers.AverageFusion()`. Received: fusion={fusion}"
        )


def check_experts(
    experts: Sequence[str], modalities: tuple[str, ...], logs: Iterable[str]
) -> None:
    """Raises unless a method's experts and logs have names of their own."""
    added = experts[len(modalities) :]
    if (
        tuple(experts[: len(modalities)]) != modalities
        or len(set(experts)) < len(experts)
        or set(added).intersection(TAKEN)
    ):
        raise ValueError(
            "`experts` must be the modalities, in their order, and then names "
            f"that are not among {TAKEN}. Received: {tuple(experts)}"
        )
    own = {"loss", "fused_loss", *(f"{name}_loss" for name in experts)}
    taken = sorted(own.intersection(logs))
    if taken:
        raise ValueError(
            "A method's own logs must not be called as those that every "
            f"method has: {sorted(own)}. Received: {taken}"
        )


def check_main(main: str | None, modalities: tuple[str, ...]) -> str:
    """Returns the name of the main modality, by default the last one."""
    if len(modalities) < 2:
        raise ValueError(
            "This method conditions one modality on others, and needs at "
            f"least two. Received: encoders for {list(modalities)}"
        )
    if main is None:
        return modalities[-1]
    if main not in modalities:
        raise ValueError(
            f"`main` must be one of the modalities {list(modalities)}. "
            f"Received: main={main!r}"
        )
    return main


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
                # Hides a tracer's placeholder for an unknown size.
                else f"shape {_known(shape)}"
            )
        )


def _known(shape: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)


def check_widths(widths: dict[str, int]) -> None:
    """Raises unless the features of all modalities have one width."""
    if len(set(widths.values())) > 1:
        raise ValueError(
            "A shared head needs features of one width. Pass `feature_dim=` "
            "to project each modality's features to it, or change the "
            "encoders. Received features of width "
            + ", ".join(f"{width} ({name})" for name, width in widths.items())
        )


def check_loss(loss: Any) -> None:
    """Raises unless `loss` is a single loss that takes logits."""
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
            "The model returns logits, but this loss expects probabilities. "
            f"{advice} Received: loss={loss if isinstance(loss, str) else name}"
        )


def check_metrics(argument: str, metrics: Any) -> None:
    """Raises unless `metrics` is `None` or a list of metrics of logits."""
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
                f"The model returns logits, but a metric in `{argument}` "
                f"expects probabilities. {advice} Received: "
                f"{metric if isinstance(metric, str) else name}"
            )


def check_class_weight(class_weight: Any, y: Any) -> None:
    """Raises if `class_weight` is given with unpaired labels."""
    if class_weight is not None and isinstance(y, dict):
        raise ValueError(
            "`class_weight` is not supported with `y` a dict (unpaired "
            "training). Pass `sample_weight` as a dict keyed by modality "
            "instead."
        )


def check_shared(model: Any, replicas: int, micro_batches: int) -> None:
    """Raises if a method that needs a whole batch would get parts of it.

    Args:
        model: The model.
        replicas: int. The number of replicas that share a batch.
        micro_batches: int. The number of parts that a replica computes.
    """
    if not model.whole_batch or replicas * micro_batches == 1:
        return
    raise ValueError(
        f"{type(model).__name__} needs all rows of a batch at once: "
        f"{model.whole_batch}. Please train on one device, without "
        f"`micro_batches`. Received: {replicas} replicas, "
        f"micro_batches={micro_batches}"
    )


def check_micro_batches(number: Any, model: Any, loss: Any) -> int:
    """Returns `micro_batches`, checked.

    Args:
        number: The argument.
        model: The model.
        loss: The `SampleLoss`.
    """
    if not isinstance(number, int) or isinstance(number, bool) or number < 1:
        raise ValueError(
            "`micro_batches` must be an int of at least 1: the number of parts "
            "of a batch that are computed one after the other. "
            f"Received: micro_batches={number!r}"
        )
    check_shared(model, 1, number)
    if number > 1 and loss.needs_whole_batch:
        raise ValueError(
            f"`micro_batches` and the loss's reduction={loss.reduction!r} "
            "exclude each other: the parts of a batch cannot know its sum. "
            "Use the reduction 'sum_over_batch_size', the default."
        )
    return number
