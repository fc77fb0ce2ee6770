"""Export of a model to SavedModel and ONNX."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_mla.backend import internals, step
from keras_mla.core import onnx_check, onnx_file


def export(
    model: Any,
    exported: Any,
    write: Callable,
    filepath: Any,
    format: str,
    verbose: bool | None,
    options: Mapping[str, Any],
    names: Sequence[str],
    verify: bool,
) -> None:
    """Exports a multimodal model, as `ServedModel.export` says.

    Args:
        model: The multimodal model.
        exported: What is exported: the model, or a view of it.
        write: Keras's export of it.
        filepath: Where to write to.
        format: str.
        verbose: bool. Whether to print what is done.
        options: Further arguments of Keras's export, `input_signature` among
            them.
        names: Names of the outputs, in order.
        verify: bool. Whether to compare an ONNX file with the model.
    """
    signature = options["input_signature"]
    sizes = _unknown_sizes(model, signature)
    options = {"format": format, **options}
    on_jax = keras.backend.backend() == "jax"
    if on_jax and format == "tf_saved_model" and sizes:
        # Gradients of convolutions need known sizes.
        options = {"jax2tf_kwargs": {"with_gradient": False}, **options}
    if format != "onnx":
        _write(write, filepath, sizes, verbose=verbose, **options)
        return
    inputs = onnx_file.check(signature, names, verify)
    with onnx_file.replacing(filepath) as path:
        _write(write, path, sizes, verbose=False, **options)
        onnx_file.finish(path, inputs, names)
        if verify:
            rough = internals.is_rough(model)
            onnx_check.compare(path, exported, signature, inputs, sizes, rough)
    if verbose or verbose is None:
        print(f"Saved artifact at '{os.fspath(filepath)}'.")


def _unknown_sizes(model: Any, signature: Any) -> dict[str, int]:
    """Returns a size for each input that has an axis of unknown size."""
    whole = isinstance(signature, list) and len(signature) == 1
    specs = signature[0] if whole else None
    sizes: dict[str, int] = {}
    if not isinstance(specs, dict):
        return sizes
    for name in model.modalities:
        for spec in keras.tree.flatten(specs.get(name)):
            if spec is not None and None in spec.shape[1:]:
                sizes[spec.name] = model.placeholder_of(name)
    return sizes


def _write(
    write: Callable, path: Any, sizes: Mapping[str, int], **options: Any
) -> None:
    """Lets Keras write, and says what to do if it fails."""
    try:
        with step.exporting(), internals.exported_sizes(sizes):
            write(path, **options)
    except (ImportError, Warning):
        raise
    except Exception as error:
        advice = _advice(error, options["format"], sizes)
        if not advice:
            raise
        raise ValueError(advice) from error


def _advice(error: Exception, format: str, sizes: Mapping[str, int]) -> str:
    """Returns what to do where an export failed, if that is known."""
    backend = keras.backend.backend()
    if backend == "jax" and sizes:
        return (
            f"JAX cannot export the model with sizes of {list(sizes)} unknown. "
            "Give their encoders a `keras.Input` of a known size; or save the "
            "model, load it with KERAS_BACKEND=tensorflow, and export it "
            f"there. JAX says: {error}"
        )
    if format == "onnx":
        return (
            f"The model cannot be exported to ONNX from {backend}. Save it, "
            "load it with another KERAS_BACKEND, and export it there. The "
            f"exporter says: {error}"
        )
    return ""
