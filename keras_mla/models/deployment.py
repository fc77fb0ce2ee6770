"""What serves a trained model: unimodal parts, weights, signatures."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_mla.models.batch import split_inputs


def signature_of(inputs: Any) -> Any:
    """Records shape (batch aside) and dtype of nested tensors."""
    if isinstance(inputs, dict):
        return {name: signature_of(value) for name, value in inputs.items()}
    dtype = keras.backend.standardize_dtype(inputs.dtype)
    if "float" in dtype:
        # Not the precision of one batch: encoders cast as they need.
        dtype = keras.config.floatx()
    return {"shape": [None, *inputs.shape[1:]], "dtype": dtype}


def input_of(encoder: keras.layers.Layer) -> Any | None:
    """The symbolic input that an encoder was made with, if it has one."""
    if isinstance(encoder, keras.Sequential):
        return encoder.inputs[0] if encoder.built and encoder.inputs else None
    return getattr(encoder, "input", None)


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


def symbolic_inputs(signature: Any) -> Any:
    """Returns symbolic tensors of a signature."""
    return map_signature(keras.KerasTensor, signature)


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
        for index, (name, logits) in enumerate(outputs.logits.items()):
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
    view = model._serving.view
    result = view.predict(x, batch_size=batch_size, verbose=0)
    return {name: result[name] for name in (*model.modalities, "fused")}
