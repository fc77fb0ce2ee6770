"""ResNet-18 from checkpoints of torchvision and timm."""

from pathlib import Path
from typing import Any

import numpy as np

from keras_mla.encoders.checkpoints.read import read_checkpoint
from keras_mla.encoders.checkpoints.tables import (
    Table,
    conv,
    fill,
    norm_rows,
    same,
)
from keras_mla.encoders.resnet.encoder import ResNet18


def convert_resnet18(
    path: str | Path,
    input_shape: tuple[int | None, ...] = (3, 224, 224, 3),
    **kwargs: Any,
) -> ResNet18:
    """Reads ResNet-18 from a checkpoint of torchvision or timm.

    For spectrograms, `input_shape` has three entries and one channel: the
    first convolution's kernels are summed over colour.

    Args:
        path: str or path. The file, see `read_checkpoint`.
        input_shape: tuple, as in `ResNet18`. Defaults to
            `(3, 224, 224, 3)`, three frames.
        **kwargs: Passed on to `ResNet18`.

    Returns:
        A `ResNet18`.

    Raises:
        ValueError: If the file is damaged or of another model.

    Example:
    Give the path of the published file, once it is downloaded:
    >>> keras_mla.encoders.convert_resnet18("resnet18.pth")
    Traceback (most recent call last):
        ...
    ValueError: There is no such file. Received: resnet18.pth
    """
    arrays = read_checkpoint(path)
    model = ResNet18(input_shape, **kwargs)
    channels = input_shape[-1]

    def first(array: np.ndarray) -> np.ndarray:
        if channels == 1:
            array = array.sum(axis=1, keepdims=True)
        return conv(array)

    table: Table = {"conv1_conv/kernel": ("conv1.weight", first)}
    norms = {"conv1_bn": "bn1"}
    for stack in range(4):
        for block in range(2):
            ours = f"stack{stack}_block{block}"
            theirs = f"layer{stack + 1}.{block}"
            pairs = [("1", "conv1", "bn1"), ("2", "conv2", "bn2")]
            if stack and not block:
                pairs.append(("0", "downsample.0", "downsample.1"))
            for part, convolution, norm in pairs:
                table[f"{ours}_{part}_conv/kernel"] = (
                    f"{theirs}.{convolution}.weight",
                    conv,
                )
                norms[f"{ours}_{part}_bn"] = f"{theirs}.{norm}"
    for ours, theirs in norms.items():
        table |= norm_rows(ours, theirs)
        table[f"{ours}/moving_mean"] = (f"{theirs}.running_mean", same)
        table[f"{ours}/moving_variance"] = (f"{theirs}.running_var", same)
    fill(model, arrays, table, [r"fc\..*", r".*\.num_batches_tracked"])
    return model
