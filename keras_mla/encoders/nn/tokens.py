"""From images and spectrograms to tokens: patches and positions."""

from typing import Any

import numpy as np
from keras import ops


def patchify(images: Any, patch_size: int) -> Any:
    """Cuts images into square patches, row by row.

    Args:
        images: tensor `(batch, height, width, channels)`; both sides must be
            known and multiples of `patch_size`.
        patch_size: int. Side of a patch.

    Returns:
        A tensor `(batch, patches, patch_size * patch_size * channels)`; within
        a patch the order is row, column, channel.

    Example:
    >>> image = np.arange(16.0).reshape(1, 4, 4, 1)
    >>> patches = keras_mla.encoders.patchify(image, 2)
    >>> keras.ops.convert_to_numpy(patches)[0, 1].tolist()
    [2.0, 3.0, 6.0, 7.0]
    """
    height, width, channels = images.shape[1:]
    rows, columns = height // patch_size, width // patch_size
    x = ops.reshape(
        images, (-1, rows, patch_size, columns, patch_size, channels)
    )
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (-1, rows * columns, patch_size**2 * channels))


def unpatchify(patches: Any, patch_size: int, grid: tuple[int, int]) -> Any:
    """Puts the patches of `patchify` together again.

    Args:
        patches: tensor `(batch, rows * columns, values)`.
        patch_size: int. Side of a patch.
        grid: tuple `(rows, columns)`.

    Returns:
        A tensor `(batch, height, width, channels)`.

    Example:
    >>> patches = np.zeros((1, 4, 12))
    >>> tuple(keras_mla.encoders.unpatchify(patches, 2, (2, 2)).shape)
    (1, 4, 4, 3)
    """
    rows, columns = grid
    channels = patches.shape[-1] // patch_size**2
    x = ops.reshape(
        patches, (-1, rows, columns, patch_size, patch_size, channels)
    )
    x = ops.transpose(x, (0, 1, 3, 2, 4, 5))
    return ops.reshape(
        x, (-1, rows * patch_size, columns * patch_size, x.shape[-1])
    )


def check_patches(
    shape: tuple[int, ...], patch_size: int, what: str
) -> tuple[int, int]:
    """Returns the grid of patches of an input; names the input in an error.

    Args:
        shape: tuple of two or three ints, the two sides first.
        patch_size: int. Side of a patch.
        what: str. The argument's name, for the error.

    Returns:
        A tuple `(rows, columns)`.

    Raises:
        ValueError: If a side is no multiple of the patch size.
    """
    height, width = shape[:2]
    if height < 1 or width < 1 or height % patch_size or width % patch_size:
        raise ValueError(
            f"Both sides of `{what}` must be multiples of the patch size. "
            f"Received: {what}={tuple(shape)}, patch_size={patch_size}"
        )
    return height // patch_size, width // patch_size


def check_image(inputs: Any, shape: tuple[int, ...], what: str) -> None:
    """Refuses inputs that have another shape than the model was made for.

    Args:
        inputs: tensor.
        shape: tuple without the batch.
        what: str. What the model reads, for the error.

    Raises:
        ValueError: If the shapes differ.
    """
    if tuple(inputs.shape[1:]) != tuple(shape):
        raise ValueError(
            f"This model reads {what} of shape {(None, *shape)}. "
            f"Received: inputs.shape={tuple(inputs.shape)}"
        )


def sincos_1d(width: int, positions: np.ndarray) -> np.ndarray:
    """Returns sine and cosine embeddings of positions on a line.

    Feature `i < width / 2` is `sin(p / 10000^(2i / width))`; the second half
    holds the cosines.

    Args:
        width: int. Features of an embedding; must be even.
        positions: float array `(tokens,)`.

    Returns:
        A float64 array `(tokens, width)`.

    Raises:
        ValueError: If `width` is odd.
    """
    if width % 2:
        raise ValueError(
            "Sine and cosine embeddings need an even width on each axis. "
            f"Received: width={width}"
        )
    frequencies = 10000.0 ** (-2.0 * np.arange(width // 2) / width)
    angles = np.asarray(positions, "float64")[:, None] * frequencies
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def sincos_2d(
    width: int,
    grid: tuple[int, int],
    trained_grid: tuple[int, int] | None = None,
) -> np.ndarray:
    """Returns sine and cosine embeddings of an image's patches, row by row.

    The first half of the features tells the column, the second the row.

    Args:
        width: int. Features of an embedding; a multiple of four.
        grid: tuple `(rows, columns)` of patches.
        trained_grid: tuple `(rows, columns)`. The grid that a network
            was trained on: positions are then spread over the extent of that
            grid, so that the network sees a larger or smaller image as the
            same scene in another resolution. Defaults to `grid`.

    Returns:
        A float64 array `(rows * columns, width)`.

    Raises:
        ValueError: If `width` is not a multiple of four.
    """
    if width % 4:
        raise ValueError(
            "Sine and cosine embeddings of an image need a width that is a "
            f"multiple of four. Received: width={width}"
        )
    axes = []
    for size, trained in zip(grid, trained_grid or grid, strict=True):
        # Centres of cells, so that equal grids give 0, 1, 2, ... exactly.
        axes.append((np.arange(size) + 0.5) * trained / size - 0.5)
    rows, columns = np.meshgrid(*axes, indexing="ij")
    return np.concatenate(
        [
            sincos_1d(width // 2, columns.ravel()),
            sincos_1d(width // 2, rows.ravel()),
        ],
        axis=1,
    )


def resize_positions(
    table: np.ndarray, grid: tuple[int, int], new_grid: tuple[int, int]
) -> np.ndarray:
    """Resamples a table of learned position embeddings to another grid.

    The interpolation is bicubic (a = -0.75, cell centres aligned, edges
    repeated), as is customary to fine-tune a vision transformer at another
    resolution.

    Args:
        table: float array `(rows * columns, width)`.
        grid: tuple `(rows, columns)` of the table.
        new_grid: tuple `(rows, columns)` wanted.

    Returns:
        A float array `(new_rows * new_columns, width)` of the table's dtype.

    Raises:
        ValueError: If the table does not have `rows * columns` rows.

    Example:
    >>> table = np.zeros((14 * 14, 8))
    >>> keras_mla.encoders.resize_positions(table, (14, 14), (16, 16)).shape
    (256, 8)
    """
    if table.ndim != 2 or table.shape[0] != grid[0] * grid[1]:
        raise ValueError(
            "A table of positions has one row per cell of its grid. Received: "
            f"table.shape={table.shape}, grid={tuple(grid)}"
        )
    if tuple(grid) == tuple(new_grid):
        return table
    rows, columns = (
        _cubic(old, new) for old, new in zip(grid, new_grid, strict=True)
    )
    cells: Any = table.reshape(*grid, -1).astype("float64")
    cells = np.einsum("ri,cj,ijw->rcw", rows, columns, cells, optimize=True)
    return cells.reshape(-1, table.shape[1]).astype(table.dtype)


def _cubic(old: int, new: int) -> np.ndarray:
    """Returns the `(new, old)` matrix of cubic convolution, a = -0.75."""
    a = -0.75
    centres = (np.arange(new) + 0.5) * old / new - 0.5
    matrix = np.zeros((new, old))
    for offset in range(-1, 3):
        cell = np.floor(centres) + offset
        t = np.abs(centres - cell)
        near = (a + 2) * t**3 - (a + 3) * t**2 + 1
        far = a * (t**3 - 5 * t**2 + 8 * t - 4)
        cell = np.clip(cell, 0, old - 1).astype(int)
        np.add.at(matrix, (np.arange(new), cell), np.where(t <= 1, near, far))
    return matrix


def check_pooling(pooling: str | None) -> None:
    """Raises unless an encoder can pool tokens so.

    Args:
        pooling: `"mean"`, or `None` to return the tokens.

    Raises:
        ValueError: If it is neither.
    """
    if pooling not in ("mean", None):
        raise ValueError(
            "`pooling` must be 'mean' or None, for a sequence of tokens. "
            f"Received: pooling={pooling!r}"
        )
