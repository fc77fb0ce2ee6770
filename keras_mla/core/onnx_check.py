"""Compares an ONNX file with the model that it was exported from."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

_LOG = logging.getLogger("keras_mla")
# Differences that are rounding, of outputs of about 1: of float32, and where
# some layer computes with fewer digits.
_ROUNDING, _ROUGH = 1e-4, 5e-2


def compare(
    path: Any,
    model: Any,
    signature: Any,
    names: Sequence[str],
    sizes: Mapping[str, int],
    rough: bool,
) -> None:
    """Raises unless a file predicts as a model does.

    Both get the same random numbers. Unknown sizes take several values, as
    exporters that trace a model may fix what depends on them. A warning of the
    logger `keras_mla` says so if nothing could be compared.

    Args:
        path: Path of the file.
        model: What was exported.
        signature: The `InputSpec`s of its inputs.
        names: Names of the inputs in the file. It may lack unused ones.
        sizes: dict of inputs of unknown size to a size that the model takes.
        rough: bool. Whether a layer computes with fewer digits than float32.

    Raises:
        ValueError: If the file is wrong.
    """
    specs = keras.tree.flatten(signature)
    compared = 0
    where = "its first input"
    try:
        session = _session(path)
        for rows, moved, positive in _tries(specs, sizes):
            draw = _Draw(rows, sizes, moved, positive)
            where = f"{rows} row(s)"
            if sizes:
                now = {s.name: draw.shape(s)[1:] for s in specs}
                where += f" and the sizes { {n: now[n] for n in sizes} }"
            try:
                x = keras.tree.map_structure(draw, signature)
                wanted = model(*x, training=False)
            except Exception:  # Layers raise errors of any kind.
                continue  # The model does not take these sizes either.
            given = dict(zip(names, keras.tree.flatten(x), strict=True))
            compared += _check(session, given, wanted, rough)
    except Exception as error:
        raise ValueError(
            f"The ONNX file did not predict as the model does, with {where}: "
            f"{error}. It was not kept. The exporter of "
            f"{keras.backend.backend()} fixes what depends on a size, or lacks "
            "an operation. Give encoders a `keras.Input` of known sizes; or "
            "save the model, load it with another KERAS_BACKEND, and export it "
            "there."
        ) from error
    if not compared:
        _LOG.warning(
            "The ONNX file %s was not compared with the model: random numbers "
            "are no input of it, or its predictions are not finite. Compare "
            "them on inputs of your own.",
            path,
        )


def _session(path: Any) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # Errors are raised.
    return onnxruntime.InferenceSession(
        os.fspath(path), options, providers=["CPUExecutionProvider"]
    )


def _tries(
    specs: Sequence[Any], sizes: Mapping[str, int]
) -> Iterator[tuple[int, int, bool]]:
    """Yields rows, what to add to unknown sizes, and whether to be positive."""
    [*known] = {spec.shape[0] for spec in specs if spec.shape[0]}
    # Not all models take negative numbers.
    for rows, moved, positive in (
        (3, 0, True),
        (3, 0, False),
        (1, 0, True),
        # Odd and even sizes.
        (1, -1, True),
        (2, 3, True),
        (4, -5, True),
    ):
        if not moved or sizes:
            yield (known[0] if known else rows), moved, positive


class _Draw:
    """Draws random inputs of one number of rows and one size."""

    def __init__(
        self, rows: int, sizes: Mapping[str, int], moved: int, positive: bool
    ) -> None:
        self.rng = np.random.default_rng(0)
        self.rows, self.sizes = rows, sizes
        self.moved, self.positive = moved, positive

    def shape(self, spec: Any) -> tuple[int, ...]:
        """Returns a shape in which unknown axes have different sizes."""
        size = self.sizes.get(spec.name, 1)
        # Pictures are not squares.
        moved = (self.moved, -2 * self.moved)
        return (
            self.rows,
            *(
                n or max(1, size + moved[i % 2])
                for i, n in enumerate(spec.shape[1:])
            ),
        )

    def __call__(self, spec: Any) -> np.ndarray:
        shape = self.shape(spec)
        dtype = keras.backend.standardize_dtype(spec.dtype)
        drawn: np.ndarray
        if "float" in dtype:
            drawn = self.rng.random(shape) + 0.1
            if not self.positive:
                drawn = self.rng.normal(size=shape)
            return drawn.astype(dtype)
        # Tokens, masks and presence: each row has something.
        drawn = self.rng.random(shape) < 0.7
        if drawn.ndim > 1 and drawn.shape[1]:
            rows = np.arange(len(drawn))
            first = rows % drawn.shape[1] if spec.name == "presence" else 0
            drawn[rows, first] = True
        return drawn.astype(dtype)


def _check(
    session: Any, given: dict[str, np.ndarray], wanted: Any, rough: bool
) -> bool:
    """Raises `ValueError` if the outputs of a session are others.

    Returns:
        Whether there was a finite number to compare.
    """
    asked = [value.name for value in session.get_inputs()]
    found = session.run(None, {name: given[name] for name in asked})
    compared = False
    for one, other in zip(found, keras.tree.flatten(wanted), strict=True):
        other = keras.ops.convert_to_numpy(other)
        finite = np.isfinite(other)
        compared |= bool(finite.any())
        largest: Any = np.max(np.abs(other), initial=1, where=finite)
        tolerance = (_ROUGH if rough else _ROUNDING) * largest
        if not np.allclose(one, other, 0, tolerance, equal_nan=True):
            raise ValueError(f"it differs by {np.abs(one - other).max():.2g}")
    return compared
