"""Reads checkpoint files into NumPy arrays without running what is in them."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mla.encoders.checkpoints.unpickler import (
    ForbiddenError,
    Record,
    Unpickler,
)


def read_checkpoint(path: str | Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a checkpoint under their names.

    The suffix tells the format: `.safetensors`; `.npz`; `.pth`, `.pt` and
    `.bin` of PyTorch, read with `weights_only=True`; `.msgpack` of Flax; and
    `.pkl` of Flax, read by an unpickler that makes arrays and containers and
    nothing else. The names of nested dicts are joined by `/`. The prefix
    `module.` of wrapped PyTorch models is removed.

    Args:
        path: str or path. The file.

    Returns:
        A dict of names to arrays.

    Raises:
        ValueError: If the file does not exist, has another suffix, is
            truncated or of another format, or holds anything but data.
        ImportError: If the package that reads the format is missing.

    Example:
    >>> import os, tempfile
    >>> path = os.path.join(tempfile.mkdtemp(), "weights.npz")
    >>> np.savez(path, kernel=np.zeros((2, 3)))
    >>> arrays = keras_mla.encoders.read_checkpoint(path)
    >>> arrays["kernel"].shape
    (2, 3)
    """
    path = Path(path)
    if path.suffix not in _READERS:
        raise ValueError(
            f"A checkpoint is one of {', '.join(_READERS)}. "
            f"Received: {path.name}"
        )
    if not path.is_file():
        raise ValueError(f"There is no such file. Received: {path}")
    try:
        content = _READERS[path.suffix](path)
    except ImportError:
        raise
    except ForbiddenError as error:
        raise ValueError(
            f"{path.name} asks to run `{error}`, which data never needs. It "
            "was not run. Do not use this file."
        ) from error
    except Exception as error:
        raise ValueError(
            f"{path.name} is truncated, damaged or no {path.suffix} file: "
            f"{type(error).__name__}: {error}"
        ) from error
    arrays = _flatten(_unwrap(content))
    if not arrays:
        raise ValueError(
            f"{path.name} holds no arrays. Received: {type(content).__name__}"
        )
    short = {name.removeprefix("module."): a for name, a in arrays.items()}
    if len(short) < len(arrays):
        twice = [name for name in short if f"module.{name}" in arrays]
        raise ValueError(
            f"{path.name} holds arrays both with and without the prefix "
            f"`module.`, such as {sorted(set(twice) & set(arrays))[:3]}."
        )
    return short


def _read_safetensors(path: Path) -> Any:
    try:
        from safetensors.numpy import load_file
    except ImportError as error:
        raise ImportError(
            "Reading .safetensors needs the package safetensors. "
            'Install it with `pip install "keras-mla[hub]"`.'
        ) from error
    return load_file(path)


def _read_npz(path: Path) -> Any:
    if not zipfile.is_zipfile(path):
        raise ValueError("not a zip archive")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise ForbiddenError("pickled objects") from error
        raise


def _read_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ImportError(
            f"Reading {path.suffix} files needs PyTorch. Install it, or save "
            "the checkpoint as .safetensors."
        ) from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = str(error)
        if "GLOBAL" in message or "class" in message.lower():
            words = message.split("GLOBAL ")[-1].split()
            name = words[0] if words else "code"
            raise ForbiddenError(name) from error
        raise

    def to_numpy(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: to_numpy(item) for key, item in value.items()}
        if isinstance(value, torch.Tensor):
            if value.dtype == torch.bfloat16:
                value = value.float()
            return value.detach().numpy()
        return value

    return to_numpy(content)


def _read_msgpack(path: Path) -> Any:
    try:
        import msgpack
    except ImportError as error:
        raise ImportError(
            "Reading Flax's .msgpack files needs the package msgpack: "
            "`pip install msgpack`."
        ) from error

    def extension(code: int, data: bytes) -> Any:
        # Flax stores arrays (1) and NumPy scalars (3) as shape, dtype, bytes.
        if code not in (1, 3):
            raise ForbiddenError(f"msgpack extension {code}")
        shape, dtype, buffer = msgpack.unpackb(data, raw=True)
        dtype = np.dtype(dtype.decode())
        return np.frombuffer(buffer, dtype).reshape(shape)

    with path.open("rb") as file:
        return msgpack.unpack(
            file, ext_hook=extension, raw=False, strict_map_key=False
        )


def _read_pickle(path: Path) -> Any:
    with path.open("rb") as file:
        return Unpickler(file).load()


_READERS: dict[str, Callable[[Path], Any]] = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".pth": _read_torch,
    ".pt": _read_torch,
    ".bin": _read_torch,
    ".msgpack": _read_msgpack,
    ".pkl": _read_pickle,
}


def _unwrap(content: Any) -> Any:
    """Finds the parameters inside of a training state."""
    while True:
        if isinstance(content, Record):
            content = content.state
        if isinstance(content, tuple) and len(content) == 2:
            # The state of an object with slots.
            content = {**(content[0] or {}), **(content[1] or {})}
        if not isinstance(content, dict):
            return content
        for name in ("state", "params", "state_dict", "model"):
            if isinstance(content.get(name), dict | Record):
                content = content[name]
                break
        else:
            return content


def _flatten(content: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Returns the arrays of nested dicts, named by their paths."""
    arrays = {}
    if isinstance(content, dict):
        for key, value in content.items():
            arrays.update(_flatten(value, f"{prefix}/{key}" if prefix else key))
    elif isinstance(content, np.ndarray) and content.dtype != object:
        arrays[prefix] = content
    return arrays
