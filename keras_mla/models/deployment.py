"""What serves a trained model: unimodal parts, weights, signatures."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mla import training as backend
from keras_mla.models.batch import split_inputs
from keras_mla.models.entrances import check_arrays


def signature_of(inputs: Any) -> Any:
    """Records shape (batch aside) and dtype of nested tensors."""
    if isinstance(inputs, dict):
        return {name: signature_of(value) for name, value in inputs.items()}
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if "float" in dtype:
        # Not the precision of one batch: encoders cast as they need.
        dtype = keras.config.floatx()
    # What is not an int is a tracer's stand-in for a size yet unknown.
    sizes = [n if isinstance(n, int) else None for n in inputs.shape[1:]]
    return {"shape": [None, *sizes], "dtype": dtype}


def ends_of(encoder: keras.layers.Layer) -> tuple[Any, Any]:
    """Returns the symbolic input and output that an encoder was made with.

    Both are `None` where it has not been called on a symbolic input.
    """
    if isinstance(encoder, keras.Sequential):
        if not (encoder.built and encoder.inputs):
            return None, None
        return encoder.inputs[0], encoder.outputs[0]
    try:
        return encoder.input, encoder.output
    except (AttributeError, ValueError):  # None, or several.
        return None, None


def plain(signature: Any) -> Any:
    """Returns a signature in plain dicts and lists, for JSON."""
    if isinstance(signature, dict):
        return {name: plain(value) for name, value in signature.items()}
    return list(signature) if isinstance(signature, list) else signature


def map_signature(make: Callable, signature: Any, name: str = "") -> Any:
    """Calls `make(shape, dtype, name)` for each tensor of a signature."""
    if set(signature) == {"shape", "dtype"}:
        return make(
            shape=tuple(signature["shape"]),
            dtype=signature["dtype"],
            name=name,
        )
    return {
        key: map_signature(make, value, f"{name}_{key}" if name else key)
        for key, value in signature.items()
    }


# In the place of sizes that are not known, one after the other is tried.
PLACEHOLDERS = (16, 64, 256, 4, 1)


def encode_symbolically(encoder: keras.layers.Layer, signature: Any) -> Any:
    """Returns the symbolic output of an encoder, which this builds.

    Not every layer can be traced with unknown sizes on every backend, so
    placeholders take their place. The width of features does not depend on
    them.
    """

    def attempt(placeholder: int) -> Any:
        def make(shape: tuple, dtype: str, name: str) -> Any:
            sizes = [placeholder if n is None else n for n in shape[1:]]
            return keras.KerasTensor((None, *sizes), dtype, name=name)

        return encoder(map_signature(make, signature))

    tried = PLACEHOLDERS if has_unknown_sizes(signature) else PLACEHOLDERS[:1]
    first: Exception | None = None
    for placeholder in tried:
        try:
            return attempt(placeholder)
        except Exception as error:  # Of any kind, as layers differ.
            first = first or error
    assert first is not None
    raise first


def has_unknown_sizes(signature: Any) -> bool:
    """Tells whether any size but that of the batch is unknown."""
    if set(signature) == {"shape", "dtype"}:
        return None in signature["shape"][1:]
    return any(map(has_unknown_sizes, signature.values()))


def check_built(model: Any, what: str) -> None:
    """Raises unless the model knows its inputs."""
    if model._signature is None:
        raise ValueError(
            f"{what} needs a built model: its inputs are not known yet. Call "
            "the model on a batch first, or give encoders that know their "
            "input (made with `keras.Input`)."
        )


def export_signature(model: Any, presence: bool) -> list:
    """The inputs of an exported model, by name, as `keras.InputSpec`."""
    check_built(model, "`export`")
    specs = map_signature(keras.InputSpec, model._signature)
    if presence:
        specs["presence"] = keras.InputSpec(
            shape=(None, len(model.modalities)), dtype="bool", name="presence"
        )
    return [specs]


def unimodal_model(model: Any, name: str) -> keras.Model:
    """See `MultimodalClassifier.unimodal`."""
    if name not in model.modalities:
        raise ValueError(
            f"There is no modality {name!r}. The model's modalities are "
            f"{list(model.modalities)}."
        )
    check_built(model, "`unimodal`")

    def make(shape: tuple, dtype: str, name: str, modality: str = name) -> Any:
        return keras.Input(shape[1:], dtype=dtype, name=name or modality)

    inputs = map_signature(make, model._signature[name])
    feature = model.encode(name, inputs, None)
    logits, _ = model.unimodal_pass(name, feature, None)
    unimodal = keras.Model(
        inputs, ops.cast(logits, "float32"), name=f"{model.name}_{name}"
    )
    unimodal(inputs)  # Keras exports models that have been called.
    return unimodal


class _ModalityView(keras.Model):
    """A model's logits per modality, and their weights, as outputs."""

    def __init__(self, model: Any) -> None:
        super().__init__(name="modality_view", autocast=False)
        self.model = model

    def call(self, inputs: dict) -> dict:
        model = self.model
        inputs, presence = split_inputs(model.modalities, inputs)
        outputs = model.forward_pass(model.modalities, inputs, False, presence)
        weights = model.fusion_weights(outputs, presence)
        result = {"fused": model.fuse(outputs, presence)}
        for index, name in enumerate(model.modalities):
            logits = outputs.logits[name]
            if presence is not None:
                logits = ops.where(
                    presence[:, index, None], logits, ops.zeros_like(logits)
                )
            result[name] = {"logits": logits, "weight": weights[:, index]}
        return result


def predict_modalities(model: Any, x: Any, batch_size: int | None) -> dict:
    """See `MultimodalClassifier.predict_modalities`."""
    if model._serving.view is None:
        model._serving.view = _ModalityView(model)
    check_arrays(model.modalities, x)
    view = model._serving.view
    with backend.keeping_weights(view):
        result = view.predict(x, batch_size=batch_size, verbose=0)
    return {name: result[name] for name in (*model.modalities, "fused")}
