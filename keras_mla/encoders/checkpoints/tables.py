"""Tables of names that lead from a checkpoint to a model, and their checks.

A table maps a path of ours (`encoder/block_0/qkv/kernel`) to the name in the
file and the function that brings its array into our layout.
"""

import re
from collections.abc import Callable, Iterable

import keras
import numpy as np

Arrays = dict[str, np.ndarray]
Table = dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]


def same(array: np.ndarray) -> np.ndarray:
    """Returns the array as it is in the file."""
    return array


def dense(array: np.ndarray) -> np.ndarray:
    """Brings PyTorch's `(out, in)` to Keras's `(in, out)`."""
    return array.T


def conv(array: np.ndarray) -> np.ndarray:
    """Brings `(out, in, rows, columns)` to `(rows, columns, in, out)`."""
    return array.transpose(2, 3, 1, 0)


def patch_conv(array: np.ndarray) -> np.ndarray:
    """Makes a dense kernel of a convolution over patches."""
    return conv(array).reshape(-1, array.shape[0])


# Our names of what a block holds, and those of the three originals.
_BLOCK = [
    # ours, PyTorch M3AE, Flax M3AE, CAV-MAE
    (
        "norm1/gamma",
        "layer_norm1.weight",
        "LayerNorm_0/scale",
        "norm1{}.weight",
    ),
    ("norm1/beta", "layer_norm1.bias", "LayerNorm_0/bias", "norm1{}.bias"),
    (
        "norm2/gamma",
        "layer_norm2.weight",
        "LayerNorm_1/scale",
        "norm2{}.weight",
    ),
    ("norm2/beta", "layer_norm2.bias", "LayerNorm_1/bias", "norm2{}.bias"),
    ("qkv/{}", "attention.qkv_linear", "Attention_0/Dense_0", "attn.qkv"),
    ("projection/{}", "attention.fc", "Attention_0/Dense_1", "attn.proj"),
    ("mlp_in/{}", "transformer_mlp.fc1", "TransformerMLP_0/fc1", "mlp.fc1"),
    ("mlp_out/{}", "transformer_mlp.fc2", "TransformerMLP_0/fc2", "mlp.fc2"),
]


def dense_rows(ours: str, theirs: str, flax: bool = False) -> Table:
    """Returns rows for kernel and bias of a dense layer."""
    if flax:
        return {
            f"{ours}/kernel": (f"{theirs}/kernel", same),
            f"{ours}/bias": (f"{theirs}/bias", same),
        }
    return {
        f"{ours}/kernel": (f"{theirs}.weight", dense),
        f"{ours}/bias": (f"{theirs}.bias", same),
    }


def norm_rows(ours: str, theirs: str, flax: bool = False) -> Table:
    """Returns rows for gamma and beta of a layer norm."""
    scale, bias = ("/scale", "/bias") if flax else (".weight", ".bias")
    return {
        f"{ours}/gamma": (theirs + scale, same),
        f"{ours}/beta": (theirs + bias, same),
    }


def block_rows(ours: str, theirs: str, column: int, suffix: str = "") -> Table:
    """Returns the rows of a transformer block.

    Args:
        ours: str. Our path of the block.
        theirs: str. The file's name of the block.
        column: int. The column of `_BLOCK` that names the file's parts.
        suffix: str. Names the norms of a CAV-MAE modality. Defaults to `""`.
    """
    table: Table = {}
    separator = "/" if column == 2 else "."
    for row in _BLOCK:
        name = theirs + separator + row[column]
        if "{}" in row[0]:
            table |= dense_rows(
                f"{ours}/{row[0]}".removesuffix("/{}"), name, column == 2
            )
        else:
            table[f"{ours}/{row[0]}"] = (name.format(suffix), same)
    return table


def fill(
    model: keras.Model,
    arrays: Arrays,
    table: Table,
    ignored: Iterable[str] = (),
    computed: Iterable[str] = (),
) -> None:
    """Fills every variable of a model from a file, or says what is wrong.

    Args:
        model: `keras.Model`. The model to fill.
        arrays: dict of the file's names to arrays.
        table: dict of our paths to the file's names and layout functions.
        ignored: iterable of str. Regular expressions of names in the file to
            leave out.
        computed: iterable of str. Our paths that no file holds, such as fixed
            positions.

    Raises:
        ValueError: If the file lacks an array, holds one that is neither used
            nor ignored, or one has another shape.
    """
    prefix = f"{model.name}/"
    variables = {
        v.path.removeprefix(prefix).removeprefix("backbone/"): v
        for v in model.weights
        if "seed_generator" not in v.path
    }
    unknown = set(variables) - set(table) - set(computed)
    if unknown or set(table) - set(variables):
        raise ValueError(
            "The table of names does not cover this model. Not covered: "
            f"{sorted(unknown)}; unknown: {sorted(set(table) - set(variables))}"
        )
    missing = sorted({name for name, _ in table.values()} - set(arrays))
    if missing:
        raise ValueError(
            f"The file lacks {len(missing)} arrays that this model needs, "
            f"such as {missing[:5]}. It is of another model, or incomplete."
        )
    used = {name for name, _ in table.values()}
    extra = sorted(
        name
        for name in set(arrays) - used
        if not any(re.fullmatch(pattern, name) for pattern in ignored)
    )
    if extra:
        raise ValueError(
            f"The file holds {len(extra)} arrays that this model has no place "
            f"for, such as {extra[:5]}. It is of another model."
        )
    for path, (name, layout) in table.items():
        value = layout(np.asarray(arrays[name], "float32"))
        shape = tuple(variables[path].shape)
        if value.shape != shape:
            raise ValueError(
                f"`{name}` has shape {arrays[name].shape}, which makes "
                f"{value.shape} in our layout, but the model needs {shape}."
            )
        variables[path].assign(value)


def count_blocks(arrays: Arrays, pattern: str) -> int:
    """Counts the numbered blocks of a file."""
    found = {m[1] for m in (re.match(pattern, name) for name in arrays) if m}
    return len(found)


def need(arrays: Arrays, name: str, what: str) -> np.ndarray:
    """Returns the array that every checkpoint of `what` has.

    Raises:
        ValueError: If the file has no array of that name.
    """
    if name not in arrays:
        raise ValueError(
            f"This is no checkpoint of {what}: it has no `{name}`, but for "
            f"instance {sorted(arrays)[:3]}."
        )
    return arrays[name]


def heads_of(width: int, head_dim: int) -> int:
    """Returns the number of attention heads of `head_dim` features.

    Raises:
        ValueError: If they do not make up the width.
    """
    if width % head_dim:
        raise ValueError(
            f"The file's width is {width}, which makes no whole number of "
            f"heads: num_heads={width}/{head_dim}. Pass the head's own size. "
            f"Received: head_dim={head_dim}"
        )
    return width // head_dim
