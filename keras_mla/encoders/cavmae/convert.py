"""CAV-MAE from the original's PyTorch files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_mla.encoders.cavmae.autoencoder import CAVMAEAutoencoder
from keras_mla.encoders.cavmae.encoder import CAVMAE
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
    patch_conv,
    same,
)
from keras_mla.encoders.nn.tokens import resize_positions


def convert_cavmae(
    path: str | Path,
    modality: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    head_dim: int = 64,
    **kwargs: Any,
) -> CAVMAE | CAVMAEAutoencoder:
    """Reads CAV-MAE from the original's files, pretrained or fine-tuned.

    The files are PyTorch's. Position embeddings are resampled when spectrogram
    or image have another size than the checkpoint's. The audio grid of the
    original always has eight rows, for 128 mel bands.

    Args:
        path: str or path. The file, see `read_checkpoint`.
        modality: str. `"audio"` or `"image"` for an encoder. Defaults
            to `None`: the complete autoencoder, which only pretrained files
            hold.
        input_shape: tuple. Shape of an encoder's input, as in `CAVMAE`.
        head_dim: int. Features of an attention head. Defaults to `64`.
        **kwargs: Passed on to `CAVMAE` or `CAVMAEAutoencoder`.

    Returns:
        A `CAVMAE` or a `CAVMAEAutoencoder`.

    Raises:
        ValueError: If the file is damaged or of another model.

    Example:
    Give the path of the published file, once it is downloaded:
    >>> keras_mla.encoders.convert_cavmae("audio_model.21.pth", "audio")
    Traceback (most recent call last):
        ...
    ValueError: There is no such file. Received: audio_model.21.pth
    """
    arrays = read_checkpoint(path)
    width = need(arrays, "patch_embed_a.proj.weight", "CAV-MAE").shape[0]
    depth = count_blocks(arrays, r"blocks_a\.(\d+)\.")
    shared_depth = count_blocks(arrays, r"blocks_u\.(\d+)\.")
    shared = {
        "width": width,
        "num_heads": heads_of(width, head_dim),
        "depth": depth,
        "shared_depth": shared_depth,
        "patch_size": arrays["patch_embed_a.proj.weight"].shape[-1],
    }
    letters = {"audio": "a", "image": "v"}

    def positions(name: str, grid: tuple[int, int]) -> Callable:
        def resize(table: np.ndarray) -> np.ndarray:
            count = table.shape[1]
            rows = 8 if name == "audio" else round(count**0.5)
            return resize_positions(table[0], (rows, count // rows), grid)

        return resize

    def embedding(name: str, grid: tuple[int, int]) -> Table:
        letter, ours = letters[name], f"{name}_embedding"
        projection = f"patch_embed_{letter}.proj"
        return {
            f"{ours}/projection/kernel": (f"{projection}.weight", patch_conv),
            f"{ours}/projection/bias": (f"{projection}.bias", same),
            f"{ours}/positions": (
                f"pos_embed_{letter}",
                positions(name, grid),
            ),
            f"{ours}/type_embedding": (f"modality_{letter}", same),
        }

    # Every block of the original carries three pairs of norms; only those
    # that all modalities share use more than the first.
    unused = [
        r"(blocks_[av]|decoder_blocks)\.\d+\.norm[12]_[av]\.(weight|bias)",
        r"mlp_head\..*",
    ]
    if modality is not None:
        if input_shape is not None:
            kwargs["input_shape"] = input_shape
        model = CAVMAE(modality, **{**shared, **kwargs})
        letter = letters[modality]
        other = letters[{"audio": "image", "image": "audio"}[modality]]
        table = embedding(modality, model.embedding.grid)
        for i in range(depth):
            table |= block_rows(f"blocks/block_{i}", f"blocks_{letter}.{i}", 3)
        for i in range(shared_depth):
            table |= block_rows(
                f"shared/block_{i}", f"blocks_u.{i}", 3, f"_{letter}"
            )
        table |= norm_rows("shared/norm", f"norm_{letter}")
        unused += [
            rf"(patch_embed|blocks|norm|modality|pos_embed)_{other}(\..*)?",
            rf"blocks_u\.\d+\.norm[12](_{other})?\.(weight|bias)",
            r"norm\.(weight|bias)",
            r"decoder_.*",
            "mask_token",
        ]
        fill(model, arrays, table, unused)
        return model

    projection = need(arrays, "decoder_embed.weight", "the complete CAV-MAE")
    shared["decoder_width"] = projection.shape[0]
    shared["decoder_depth"] = count_blocks(arrays, r"decoder_blocks\.(\d+)\.")
    autoencoder = CAVMAEAutoencoder(**{**shared, **kwargs})
    table = dense_rows("decoder_projection", "decoder_embed")
    table["mask_token"] = ("mask_token", same)
    table |= norm_rows("joint_norm", "norm")
    for name, letter in letters.items():
        grid = autoencoder.embeddings[name].grid
        table |= embedding(name, grid)
        table |= norm_rows(f"{name}_norm", f"norm_{letter}")
        table |= dense_rows(f"{name}_output", f"decoder_pred_{letter}")
        for i in range(depth):
            table |= block_rows(
                f"{name}_blocks/block_{i}", f"blocks_{letter}.{i}", 3
            )
        for i in range(shared_depth):
            for row, (theirs, layout) in block_rows(
                f"shared_{i}", f"blocks_u.{i}", 3, f"_{letter}"
            ).items():
                if "/norm" in row:
                    row = row.replace("/gamma", f"_{name}/gamma")
                    row = row.replace("/beta", f"_{name}/beta")
                    table[row] = (theirs, layout)
        table[f"decoder_{name}_type_embedding"] = (
            f"decoder_modality_{letter}",
            same,
        )
        table[f"decoder_{name}_positions"] = (
            f"decoder_pos_embed_{letter}",
            positions(name, grid),
        )
    for i in range(shared_depth):
        table |= block_rows(f"shared_{i}", f"blocks_u.{i}", 3)
    table |= norm_rows("decoder/norm", "decoder_norm")
    for i in range(shared["decoder_depth"]):
        table |= block_rows(f"decoder/block_{i}", f"decoder_blocks.{i}", 3)
    fill(autoencoder, arrays, table, unused)
    return autoencoder
