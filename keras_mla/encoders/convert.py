"""Turns a published checkpoint into a `.keras` file, from the command line.

```
python -m keras_mla.encoders.convert \
    --model=m3ae-text --input=m3ae_base.pkl --output=m3ae_text.keras
```
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_mla.encoders.cavmae.convert import convert_cavmae
from keras_mla.encoders.m3ae.convert import convert_m3ae
from keras_mla.encoders.resnet.convert import convert_resnet18

MODELS = {
    "resnet18": "ResNet-18 of torchvision or timm",
    "m3ae": "M3AE's complete autoencoder (Flax)",
    "m3ae-image": "M3AE's encoder for images (Flax or PyTorch)",
    "m3ae-text": "M3AE's encoder for text (Flax or PyTorch)",
    "cavmae": "CAV-MAE's complete autoencoder",
    "cavmae-audio": "CAV-MAE's encoder for audio",
    "cavmae-image": "CAV-MAE's encoder for images",
}


def convert(
    model: str,
    path: str | Path,
    input_shape: Sequence[int] | None = None,
    patch_order: str | None = None,
    head_dim: int | None = None,
) -> keras.Model:
    """Reads a checkpoint into the model of that name.

    Args:
        model: str. One of `MODELS`.
        path: str or path. The checkpoint.
        input_shape: sequence of int. Shape of the input without the batch.
            Not for `"m3ae-text"`, `"m3ae"` and `"cavmae"`.
        patch_order: str. Order of the values in M3AE's patches, as in
            `convert_m3ae`.
        head_dim: int. Features of an attention head. Defaults to `64`.

    Returns:
        A `keras.Model` with the checkpoint's weights.

    Raises:
        ValueError: If the file is damaged or of another model, or an option
            does not belong to the model.
    """
    if model not in MODELS:
        raise ValueError(
            f"`model` must be one of {sorted(MODELS)}. Received: model={model}"
        )
    family, _, modality = model.partition("-")
    kwargs: dict[str, Any] = {}
    if input_shape is not None:
        if model in ("m3ae-text", "m3ae", "cavmae"):
            raise ValueError(
                f"{MODELS[model]} takes no input shape. "
                f"Received: input_shape={tuple(input_shape)}"
            )
        name = "image_shape" if family == "m3ae" else "input_shape"
        kwargs[name] = tuple(input_shape)
    if patch_order is not None:
        if family != "m3ae":
            raise ValueError(
                "Only checkpoints of M3AE come in two patch orders. "
                f"Received: model={model}, patch_order={patch_order}"
            )
        kwargs["patch_order"] = patch_order
    if head_dim is not None:
        kwargs["head_dim"] = head_dim
    if family == "resnet18":
        if head_dim is not None:
            raise ValueError(
                "ResNet-18 has no attention heads. "
                f"Received: head_dim={head_dim}"
            )
        return convert_resnet18(path, **kwargs)
    if family == "m3ae":
        return convert_m3ae(path, modality or None, **kwargs)
    return convert_cavmae(path, modality or None, **kwargs)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: sequence of str. Defaults to the command line's.

    Returns:
        int. `0`, or `1` after an error, which is printed.
    """
    parser = argparse.ArgumentParser(
        prog="python -m keras_mla.encoders.convert",
        description="Converts a published checkpoint to a .keras file.",
        epilog="; ".join(f"{name}: {text}" for name, text in MODELS.items()),
    )
    parser.add_argument("--model", required=True, choices=sorted(MODELS))
    parser.add_argument("--input", required=True, help="the checkpoint")
    parser.add_argument("--output", required=True, help="ends in .keras")
    parser.add_argument(
        "--input-shape",
        type=lambda text: [int(n) for n in text.split(",")],
        help="without the batch, such as 1024,128,1",
    )
    parser.add_argument(
        "--patch-order", choices=["channels_first", "channels_last"]
    )
    parser.add_argument(
        "--head-dim", type=int, help="features of a head, if not 64"
    )
    options = parser.parse_args(arguments)
    if not options.output.endswith(".keras"):
        parser.error(f"--output must end in .keras, not {options.output}")
    try:
        model = convert(
            options.model,
            options.input,
            options.input_shape,
            options.patch_order,
            options.head_dim,
        )
    except (ValueError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    model.save(options.output)
    print(f"{options.output}: {model.count_params():,} parameters")
    return 0


if __name__ == "__main__":
    sys.exit(main())
