"""Compares an ONNX file with the model that it was exported from."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

# Differences that are rounding, of outputs of about 1, by the model's dtype.
_ROUNDING = {"float32": 1e-4, "float64": 1e-4}
_ROUGH = 5e-2


def compare(
    path: Any,
    model: Any,
    signature: Any,
    names: Sequence[str],
    sizes: Mapping[str, int],
) -> None:
    """Raises unless a file predicts as a model does.

    Both get the same random numbers. Unknown sizes take several values, as
    exporters that trace a model may fix what depends on them.

    Args:
        path: Path of the file, which is removed if it is wrong.
        model: What was exported.
        signature: The `InputSpec`s of its inputs.
        names: Names of the inputs in the file. It may lack unused ones.
        sizes: dict of inputs of unknown size to a size that the model takes.

    Raises:
        ValueError: If the file is wrong.
    """
    specs = keras.tree.flatten(signature)
    if any(spec.dtype == "string" for spec in specs):
        return
    where = "its known sizes"
    try:
        session = _session(path)
        for rows, moved in _tries(sizes):
            where = f"{rows} row(s)"
            if sizes:
                now = {name: max(1, n + moved) for name, n in sizes.items()}
                where += f" and the sizes {now}"
            x = _random(signature, rows, sizes, moved)
            try:
                wanted = model(*x, training=False)
            except Exception:  # Layers raise errors of any kind.
                continue  # The model does not take these sizes either.
            given = dict(zip(names, keras.tree.flatten(x), strict=True))
            _check(session, given, wanted, model.compute_dtype)
    except Exception as error:
        os.remove(path)
        raise ValueError(
            f"The ONNX file does not predict as the model does, with {where}: "
            f"{error}. It was removed. The exporter of "
            f"{keras.backend.backend()} fixes what depends on a size, or lacks "
            "an operation. Give encoders a `keras.Input` of known sizes; or "
            "save the model, load it with another KERAS_BACKEND, and export it "
            "there."
        ) from error


def _session(path: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # Errors are raised.
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )


def _tries(sizes: Mapping[str, int]) -> Iterator[tuple[int, int]]:
    """Yields numbers of rows, and what to add to unknown sizes."""
    yield from ((3, 0), (1, 0))
    if sizes:
        # Odd and even ones.
        yield from ((1, -1), (2, 3), (4, -5))


def _random(
    signature: Any, rows: int, sizes: Mapping[str, int], moved: int
) -> Any:
    rng = np.random.default_rng(0)

    def draw(spec: Any) -> np.ndarray:
        size = max(1, sizes.get(spec.name, 1) + moved)
        shape = (rows, *(n or size for n in spec.shape[1:]))
        dtype = keras.backend.standardize_dtype(spec.dtype)
        if "float" in dtype:
            return rng.normal(size=shape).astype(dtype)
        # Tokens, masks and presence: each row has something.
        drawn: np.ndarray = rng.random(shape) < 0.7
        drawn[:, :1] = True
        return drawn.astype(dtype)

    return keras.tree.map_structure(draw, signature)


def _check(
    session: Any, given: dict[str, np.ndarray], wanted: Any, dtype: str
) -> None:
    """Raises `ValueError` if the outputs of a session are others."""
    asked = [value.name for value in session.get_inputs()]
    found = session.run(None, {name: given[name] for name in asked})
    for one, other in zip(found, keras.tree.flatten(wanted), strict=True):
        other = keras.ops.convert_to_numpy(other)
        largest: Any = np.nanmax(np.abs(other), initial=1)
        tolerance = _ROUNDING.get(dtype, _ROUGH) * largest
        if not np.allclose(one, other, 0, tolerance, equal_nan=True):
            raise ValueError(f"it differs by {np.abs(one - other).max():.2g}")
