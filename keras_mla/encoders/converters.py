"""From the originals' checkpoints to our models: tables of names, checked.

A table maps a path of ours (`encoder/block_0/qkv/kernel`) to the name in the
file and the function that brings its array into our layout.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_mla.encoders.cavmae import CAVMAE
from keras_mla.encoders.cavmae_autoencoder import CAVMAEAutoencoder
from keras_mla.encoders.checkpoints import read_checkpoint
from keras_mla.encoders.m3ae import M3AE
from keras_mla.encoders.m3ae_autoencoder import M3AEAutoencoder
from keras_mla.encoders.resnet import ResNet18
from keras_mla.encoders.tokens import resize_positions

Arrays = dict[str, np.ndarray]
Table = dict[str, tuple[str, Callable[[np.ndarray], np.ndarray]]]


def same(array: np.ndarray) -> np.ndarray:
    """As it is in the file."""
    return array


def dense(array: np.ndarray) -> np.ndarray:
    """PyTorch's `(out, in)` to Keras's `(in, out)`."""
    return array.T


def conv(array: np.ndarray) -> np.ndarray:
    """PyTorch's `(out, in, rows, columns)` to `(rows, columns, in, out)`."""
    return array.transpose(2, 3, 1, 0)


def patch_conv(array: np.ndarray) -> np.ndarray:
    """A convolution over patches, as the kernel of a dense layer on them."""
    return conv(array).reshape(-1, array.shape[0])


# Our names of what a block holds, and those of the three originals.
_BLOCK = [
    # ours, PyTorch M3AE, Flax M3AE, CAV-MAE
    ("norm1/gamma", "layer_norm1.weight", "LayerNorm_0/scale", "norm1{}.weight"),
    ("norm1/beta", "layer_norm1.bias", "LayerNorm_0/bias", "norm1{}.bias"),
    ("norm2/gamma", "layer_norm2.weight", "LayerNorm_1/scale", "norm2{}.weight"),
    ("norm2/beta", "layer_norm2.bias", "LayerNorm_1/bias", "norm2{}.bias"),
    ("qkv/{}", "attention.qkv_linear", "Attention_0/Dense_0", "attn.qkv"),
    ("projection/{}", "attention.fc", "Attention_0/Dense_1", "attn.proj"),
    ("mlp_in/{}", "transformer_mlp.fc1", "TransformerMLP_0/fc1", "mlp.fc1"),
    ("mlp_out/{}", "transformer_mlp.fc2", "TransformerMLP_0/fc2", "mlp.fc2"),
]


def _dense(ours: str, theirs: str, flax: bool = False) -> Table:
    """Kernel and bias of a dense layer."""
    if flax:
        return {
            f"{ours}/kernel": (f"{theirs}/kernel", same),
            f"{ours}/bias": (f"{theirs}/bias", same),
        }
    return {
        f"{ours}/kernel": (f"{theirs}.weight", dense),
        f"{ours}/bias": (f"{theirs}.bias", same),
    }


def _norm(ours: str, theirs: str, flax: bool = False) -> Table:
    """Gamma and beta of a layer norm."""
    scale, bias = ("/scale", "/bias") if flax else (".weight", ".bias")
    return {
        f"{ours}/gamma": (theirs + scale, same),
        f"{ours}/beta": (theirs + bias, same),
    }


def _block(ours: str, theirs: str, column: int, suffix: str = "") -> Table:
    """A transformer block; `suffix` names the norms of CAV-MAE's modalities."""
    table: Table = {}
    separator = "/" if column == 2 else "."
    for row in _BLOCK:
        name = theirs + separator + row[column]
        if "{}" in row[0]:
            table |= _dense(
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
        model: the model to fill.
        arrays: dict of the file's names to arrays.
        table: dict of our paths to the file's names and layout functions.
        ignored: regular expressions of names in the file to leave out.
        computed: paths of ours that no file holds, such as fixed positions.

    Raises:
        ValueError: if the file lacks an array, holds one that is neither used
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


def convert_resnet18(
    path: str | Path,
    input_shape: tuple[int | None, ...] = (3, 224, 224, 3),
    **kwargs: Any,
) -> ResNet18:
    """ResNet-18 from a checkpoint of torchvision or timm.

    For spectrograms, `input_shape` has three entries and one channel: the
    first convolution's kernels are summed over colour.

    Args:
        path: str or path of the file (see `read_checkpoint`).
        input_shape: tuple, as in `ResNet18`. Defaults to
            `(3, 224, 224, 3)`, three frames.
        **kwargs: passed on to `ResNet18`.

    Returns:
        A `ResNet18`.

    Raises:
        ValueError: if the file is damaged or of another model.

    Example:

    ```python
    encoder = keras_mla.encoders.convert_resnet18("resnet18-f37072fd.pth")
    ```
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
        table |= _norm(ours, theirs)
        table[f"{ours}/moving_mean"] = (f"{theirs}.running_mean", same)
        table[f"{ours}/moving_variance"] = (f"{theirs}.running_var", same)
    fill(model, arrays, table, [r"fc\..*", r".*\.num_batches_tracked"])
    return model


def _count(arrays: Arrays, pattern: str) -> int:
    """How many numbered blocks a file holds."""
    found = {m[1] for m in (re.match(pattern, name) for name in arrays) if m}
    return len(found)


def _need(arrays: Arrays, name: str, what: str) -> np.ndarray:
    if name not in arrays:
        raise ValueError(
            f"This is no checkpoint of {what}: it has no `{name}`, but for "
            f"instance {sorted(arrays)[:3]}."
        )
    return arrays[name]


def _heads(width: int, head_dim: int) -> int:
    if width % head_dim:
        raise ValueError(
            f"The file's width is {width}, which makes no whole number of "
            f"heads: num_heads={width}/{head_dim}. Pass the head's own size. "
            f"Received: head_dim={head_dim}"
        )
    return width // head_dim


def _side(values: int, channels: int, name: str) -> int:
    """The side of a patch from the number of its values."""
    side = round((values / channels) ** 0.5)
    if side * side * channels != values:
        raise ValueError(
            f"`{name}` embeds patches of {values} values, which is no square "
            f"with {channels} channels."
        )
    return side


def convert_m3ae(
    path: str | Path,
    modality: str | None = None,
    image_shape: tuple[int, int, int] = (256, 256, 3),
    patch_order: str | None = None,
    head_dim: int = 64,
    **kwargs: Any,
) -> M3AE | M3AEAutoencoder:
    """M3AE from the Flax original or from its PyTorch port.

    The two differ in more than names: the original approximates GELU by a
    tanh and uses epsilon 1e-6 in its norms, the port neither; and the order of
    the values within a patch differs. The result computes what the file's own
    implementation computes.

    Args:
        path: str or path of the file (see `read_checkpoint`).
        modality: optional str. `"image"` or `"text"` for an encoder. Defaults
            to `None`: the complete autoencoder, which only Flax files hold.
        image_shape: tuple. For images that are not 256 by 256 the positions
            of an encoder are spread over the original grid. Defaults to
            `(256, 256, 3)`.
        patch_order: optional str. `"channels_last"` for patches flattened
            row, column, channel, as the original does, and
            `"channels_first"` for channel, row, column, as the port's users
            do. A port's file that was converted from Flax and not trained
            since is still `"channels_last"`. Defaults to what is customary
            for the format.
        head_dim: int. Features of an attention head, which a file does not
            tell. Defaults to `64`, that of every published size.
        **kwargs: passed on to `M3AE` or `M3AEAutoencoder`.

    Returns:
        An `M3AE` or an `M3AEAutoencoder`.

    Raises:
        ValueError: if the file is damaged or of another model.

    Example:

    ```python
    encoder = keras_mla.encoders.convert_m3ae("m3ae_base.pkl", "text")
    ```
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
    words = _need(arrays, words_name, "M3AE")
    patches = _need(arrays, patches_name, "M3AE")
    width, channels = words.shape[1], image_shape[-1]
    patch_size = _side(patches.size // width, channels, patches_name)
    block = r"encoder/Block_(\d+)/" if flax else r"encoder\.blocks\.(\d+)\."
    shared = {
        "width": width,
        "depth": _count(arrays, block),
        "num_heads": _heads(width, head_dim),
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
        rows = _norm(f"{name}/norm", norm, flax)
        for i in range(depth):
            theirs = f"{name}/Block_{i}" if flax else f"{name}.blocks.{i}"
            rows |= _block(f"{name}/block_{i}", theirs, 2 if flax else 1)
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

    projection = _need(
        arrays, "decoder_input_projection/kernel", "the complete M3AE"
    )
    depth = _count(arrays, r"decoder/Block_(\d+)/")
    shared["decoder_width"] = projection.shape[1]
    shared["decoder_depth"] = depth
    shared.setdefault(
        "decoder_num_heads", kwargs.pop("decoder_num_heads", 16)
    )
    table |= stack("decoder", depth)
    table |= _dense("decoder_projection", "decoder_input_projection", flax)
    for name in ("image", "text"):
        table |= _dense(f"{name}_output", f"decoder_{name}_output/Dense_0", flax)
        table[f"{name}_mask_token"] = (f"{name}_mask_embedding", same)
        row = f"decoder_{name}_type_embedding"
        table[row] = (row, same)
        computed.add(f"decoder_{name}_positions")
    autoencoder = M3AEAutoencoder(**{**shared, **kwargs})
    fill(autoencoder, arrays, table, (), computed)
    return autoencoder


def convert_cavmae(
    path: str | Path,
    modality: str | None = None,
    input_shape: tuple[int, int, int] | None = None,
    head_dim: int = 64,
    **kwargs: Any,
) -> CAVMAE | CAVMAEAutoencoder:
    """CAV-MAE from the original's PyTorch files, pretrained or fine-tuned.

    Position embeddings are resampled when spectrogram or image have another
    size than the checkpoint's. The audio grid of the original always has
    eight rows, for 128 mel bands.

    Args:
        path: str or path of the file (see `read_checkpoint`).
        modality: optional str. `"audio"` or `"image"` for an encoder. Defaults
            to `None`: the complete autoencoder, which only pretrained files
            hold.
        input_shape: optional tuple. Of an encoder's input, as in `CAVMAE`.
        head_dim: int. Features of an attention head. Defaults to `64`.
        **kwargs: passed on to `CAVMAE` or `CAVMAEAutoencoder`.

    Returns:
        A `CAVMAE` or a `CAVMAEAutoencoder`.

    Raises:
        ValueError: if the file is damaged or of another model.

    Example:

    ```python
    encoder = keras_mla.encoders.convert_cavmae("audio_model.21.pth", "audio")
    ```
    """
    arrays = read_checkpoint(path)
    width = _need(arrays, "patch_embed_a.proj.weight", "CAV-MAE").shape[0]
    depth = _count(arrays, r"blocks_a\.(\d+)\.")
    shared_depth = _count(arrays, r"blocks_u\.(\d+)\.")
    shared = {
        "width": width,
        "num_heads": _heads(width, head_dim),
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
            table |= _block(f"blocks/block_{i}", f"blocks_{letter}.{i}", 3)
        for i in range(shared_depth):
            table |= _block(
                f"shared/block_{i}", f"blocks_u.{i}", 3, f"_{letter}"
            )
        table |= _norm("shared/norm", f"norm_{letter}")
        unused += [
            rf"(patch_embed|blocks|norm|modality|pos_embed)_{other}(\..*)?",
            rf"blocks_u\.\d+\.norm[12](_{other})?\.(weight|bias)",
            r"norm\.(weight|bias)",
            r"decoder_.*",
            "mask_token",
        ]
        fill(model, arrays, table, unused)
        return model

    projection = _need(arrays, "decoder_embed.weight", "the complete CAV-MAE")
    shared["decoder_width"] = projection.shape[0]
    shared["decoder_depth"] = _count(arrays, r"decoder_blocks\.(\d+)\.")
    autoencoder = CAVMAEAutoencoder(**{**shared, **kwargs})
    table = _dense("decoder_projection", "decoder_embed")
    table["mask_token"] = ("mask_token", same)
    table |= _norm("joint_norm", "norm")
    for name, letter in letters.items():
        grid = autoencoder.embeddings[name].grid
        table |= embedding(name, grid)
        table |= _norm(f"{name}_norm", f"norm_{letter}")
        table |= _dense(f"{name}_output", f"decoder_pred_{letter}")
        for i in range(depth):
            table |= _block(
                f"{name}_blocks/block_{i}", f"blocks_{letter}.{i}", 3
            )
        for i in range(shared_depth):
            for row, (theirs, layout) in _block(
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
        table |= _block(f"shared_{i}", f"blocks_u.{i}", 3)
    table |= _norm("decoder/norm", "decoder_norm")
    for i in range(shared["decoder_depth"]):
        table |= _block(f"decoder/block_{i}", f"decoder_blocks.{i}", 3)
    fill(autoencoder, arrays, table, unused)
    return autoencoder
