"""M3AE from its two published formats."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_mla.encoders.checkpoints.read import read_checkpoint
from keras_mla.encoders.checkpoints.tables import (
    Table,
    block_rows,
    count_blocks,
    dense_rows,
    fill,
    heads_of,
    need,
    norm_rows,
    same,
)
from keras_mla.encoders.m3ae.autoencoder import M3AEAutoencoder
from keras_mla.encoders.m3ae.encoder import M3AE


def convert_m3ae(
    path: str | Path,
    modality: str | None = None,
    image_shape: tuple[int, int, int] = (256, 256, 3),
    patch_order: str | None = None,
    head_dim: int = 64,
    **kwargs: Any,
) -> M3AE | M3AEAutoencoder:
    """Reads M3AE from the Flax original or from its PyTorch port.

    The two differ in more than names. The original approximates GELU by a tanh
    and uses epsilon 1e-6 in its norms; the port does neither. The order of the
    values within a patch differs too. The result computes what the file's own
    implementation computes.

    Args:
        path: str or path. The file, see `read_checkpoint`.
        modality: str. `"image"` or `"text"` for an encoder. Defaults
            to `None`: the complete autoencoder, which only Flax files hold.
        image_shape: tuple. For images that are not 256 by 256 the positions
            of an encoder are spread over the original grid. Defaults to
            `(256, 256, 3)`.
        patch_order: str. `"channels_last"` for patches flattened
            row, column, channel, as the original does, and
            `"channels_first"` for channel, row, column, as the port's users
            do. A port's file that was converted from Flax and not trained
            since is still `"channels_last"`. Defaults to what is customary
            for the format.
        head_dim: int. Features of an attention head, which a file does not
            tell. Defaults to `64`, that of every published size.
        **kwargs: Passed on to `M3AE` or `M3AEAutoencoder`.

    Returns:
        An `M3AE` or an `M3AEAutoencoder`.

    Raises:
        ValueError: If the file is damaged or of another model.

    Example:
    Give the path of the published file, once it is downloaded:
    >>> keras_mla.encoders.convert_m3ae("m3ae_base.pkl", "text")
    Traceback (most recent call last):
        ...
    ValueError: There is no such file. Received: m3ae_base.pkl
    """
    arrays = read_checkpoint(path)
    flax = "text_embedding/embedding" in arrays
    if patch_order not in (None, "channels_first", "channels_last"):
        raise ValueError(
            "`patch_order` is 'channels_first' or 'channels_last'. "
            f"Received: patch_order={patch_order}"
        )
    last = (patch_order or ("channels_last" if flax else "")) == "channels_last"
    words_name = "text_embedding" + ("/embedding" if flax else ".weight")
    patches_name = "image_embedding" + ("/kernel" if flax else ".weight")
    words = need(arrays, words_name, "M3AE")
    patches = need(arrays, patches_name, "M3AE")
    width, channels = words.shape[1], image_shape[-1]
    patch_size = _side(patches.size // width, channels, patches_name)
    block = r"encoder/Block_(\d+)/" if flax else r"encoder\.blocks\.(\d+)\."
    shared = {
        "width": width,
        "depth": count_blocks(arrays, block),
        "num_heads": heads_of(width, head_dim),
        "image_shape": image_shape,
        "patch_size": patch_size,
        "vocabulary_size": words.shape[0],
        "approximate_gelu": flax,
        "epsilon": 1e-6 if flax else 1e-5,
    }

    def embed(array: np.ndarray) -> np.ndarray:
        array = array if flax else array.T
        if last:
            return array
        array = array.reshape(channels, patch_size, patch_size, width)
        return array.transpose(1, 2, 0, 3).reshape(-1, width)

    bias = "/bias" if flax else ".bias"
    table: Table = {
        "image_embedding/projection/kernel": (patches_name, embed),
        "image_embedding/projection/bias": (f"image_embedding{bias}", same),
        "text_embedding/words/embeddings": (words_name, same),
        "cls_token": ("cls_token", same),
    }
    computed = set()
    for name in ("image", "text"):
        computed.add(f"{name}_embedding/positions")
        table[f"{name}_embedding/type_embedding"] = (
            f"encoder_{name}_type_embedding",
            same,
        )

    def stack(name: str, depth: int) -> Table:
        norm = f"{name}/LayerNorm_0" if flax else f"{name}.layer_norm"
        rows = norm_rows(f"{name}/norm", norm, flax)
        for i in range(depth):
            theirs = f"{name}/Block_{i}" if flax else f"{name}.blocks.{i}"
            rows |= block_rows(f"{name}/block_{i}", theirs, 2 if flax else 1)
        return rows

    table |= stack("encoder", shared["depth"])
    if modality is not None:
        # A published encoder was trained on 256 by 256.
        grid = kwargs.pop("trained_grid", (256 // patch_size,) * 2)
        model = M3AE(modality, trained_grid=grid, **{**shared, **kwargs})
        other = {"image": "text", "text": "image"}[modality]
        table = {
            ours: row
            for ours, row in table.items()
            if not ours.startswith(f"{other}_embedding")
        }
        computed = {f"{modality}_embedding/positions"}
        ignored = [
            rf"{other}_embedding.*",
            rf"encoder_{other}_type_embedding",
            "decoder.*",
            ".*_mask_embedding",
        ]
        fill(model, arrays, table, ignored, computed)
        return model

    projection = need(
        arrays, "decoder_input_projection/kernel", "the complete M3AE"
    )
    depth = count_blocks(arrays, r"decoder/Block_(\d+)/")
    shared["decoder_width"] = projection.shape[1]
    shared["decoder_depth"] = depth
    shared.setdefault("decoder_num_heads", kwargs.pop("decoder_num_heads", 16))
    table |= stack("decoder", depth)
    table |= dense_rows("decoder_projection", "decoder_input_projection", flax)
    for name in ("image", "text"):
        table |= dense_rows(
            f"{name}_output", f"decoder_{name}_output/Dense_0", flax
        )
        table[f"{name}_mask_token"] = (f"{name}_mask_embedding", same)
        row = f"decoder_{name}_type_embedding"
        table[row] = (row, same)
        computed.add(f"decoder_{name}_positions")
    autoencoder = M3AEAutoencoder(**{**shared, **kwargs})
    fill(autoencoder, arrays, table, (), computed)
    return autoencoder


def _side(values: int, channels: int, name: str) -> int:
    """Returns the side of a patch from the number of its values."""
    side = round((values / channels) ** 0.5)
    if side * side * channels != values:
        raise ValueError(
            f"`{name}` embeds patches of {values} values, which is no square "
            f"with {channels} channels."
        )
    return side
