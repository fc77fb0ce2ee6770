"""ResNet-18 without its top, for spectrograms and for video frames."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.backend.kernels import batch_norm
from keras_mla.encoders.hub import import_hub, load_preset


@keras.saving.register_keras_serializable(package="keras_mla")
class ResNet18(keras.Model):
    """ResNet-18 features, averaged over everything but the channels.

    Keras Hub's `ResNetBackbone` with basic blocks, whose layers are called one
    by one in the form that is fastest on each backend. Three-dimensional inputs
    are images or spectrograms; four-dimensional ones are videos, whose frames
    go through the network one by one and are averaged. Use `audio_resnet18`
    and `video_resnet18`, which also load weights.

    Args:
        input_shape: tuple without the batch: `(height, width, channels)` or
            `(frames, height, width, channels)`. Sizes may be `None`, except
            for the channels.
        **kwargs: Arguments of `keras.Model`: `name`, `dtype`.

    Call arguments:
        inputs: float tensor `(batch, *input_shape)`.
        training: bool. Whether to apply batch normalization.

    Returns:
        A tensor `(batch, 512)` of the compute dtype.

    Raises:
        ValueError: If `input_shape` has neither three nor four entries or
            leaves the channels open.
        ImportError: If Keras Hub is not installed.

    Example:
    >>> encoder = keras_mla.encoders.ResNet18((32, 32, 3))
    >>> tuple(encoder(np.zeros((2, 32, 32, 3), "float32")).shape)
    (2, 512)

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.
    """

    def __init__(
        self, input_shape: tuple[int | None, ...], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        shape = tuple(input_shape)
        if len(shape) not in (3, 4) or shape[-1] is None:
            raise ValueError(
                "ResNet-18 reads (height, width, channels), or (frames, "
                "height, width, channels), with a known number of channels. "
                f"Received: input_shape={input_shape}"
            )
        # PyTorch's kernels take channels first; elsewhere on a CPU only last
        # will do. The weights are the same.
        self._channels_first = keras.backend.backend() == "torch"
        height, width, channels = shape[-3:]
        self.backbone = import_hub().models.ResNetBackbone(
            input_conv_filters=[64],
            input_conv_kernel_sizes=[7],
            stackwise_num_filters=[64, 128, 256, 512],
            stackwise_num_blocks=[2, 2, 2, 2],
            stackwise_num_strides=[1, 2, 2, 2],
            block_type="basic_block",
            image_shape=(channels, height, width)
            if self._channels_first
            else (height, width, channels),
            data_format="channels_first"
            if self._channels_first
            else "channels_last",
            dtype=self.dtype_policy,
            name="backbone",
        )
        self.example_shape = shape
        self.build((None, *shape))

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Marks the model as built: the constructor has made the weights."""
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Computes the features of a batch."""
        rank = len(self.example_shape) + 1
        if (
            len(inputs.shape) != rank
            or inputs.shape[-1] != self.example_shape[-1]
        ):
            raise ValueError(
                "This ResNet-18 reads a batch of shape "
                f"{(None, *self.example_shape)}. "
                f"Received: inputs.shape={tuple(inputs.shape)}"
            )
        x = ops.cast(inputs, self.compute_dtype)
        if rank == 5:
            frames = ops.shape(x)[1]
            x = ops.reshape(x, (-1, *ops.shape(x)[2:]))
        x = self._features(x, training)
        if rank == 5:
            x = ops.mean(ops.reshape(x, (-1, frames, 512)), axis=1)
        return x

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "input_shape": self.example_shape}

    def _features(self, x: Any, training: bool | None) -> Any:
        """Applies the backbone and averages over height and width."""
        if self._channels_first:
            x = ops.transpose(x, (0, 3, 1, 2))  # a view, in PyTorch
        x = self._layer("conv1_pad")(x)
        x = ops.relu(self._convolve(x, "conv1", training))
        x = self._layer("pool1_pool")(self._layer("pool1_pad")(x))
        for stack in range(4):
            for block in range(2):
                name, shortcut = f"stack{stack}_block{block}", x
                if stack and not block:
                    shortcut = self._convolve(x, f"{name}_0", training)
                    x = self._layer(f"{name}_1_pad")(x)
                x = ops.relu(self._convolve(x, f"{name}_1", training))
                x = self._convolve(x, f"{name}_2", training)
                x = ops.relu(x + shortcut)
        return ops.mean(x, axis=(2, 3) if self._channels_first else (1, 2))

    def _layer(self, name: str) -> Any:
        return self.backbone.get_layer(name)

    def _convolve(self, x: Any, name: str, training: bool | None) -> Any:
        """Applies a convolution without bias and its batch normalization."""
        x = self._layer(f"{name}_conv")(x)
        return batch_norm(self._layer(f"{name}_bn"), x, training)


def audio_resnet18(
    input_shape: tuple[int | None, ...] = (1024, 128, 1),
    preset: str | None = None,
    **kwargs: Any,
) -> ResNet18:
    """Makes a ResNet-18 for spectrograms, `(batch, time, frequency, 1)`.

    Args:
        input_shape: tuple `(time, frequency, channels)`, of any size. Defaults
            to `(1024, 128, 1)`.
        preset: str. The weights to start from: a Keras Hub preset
            such as `"resnet_18_imagenet"`, downloaded, or a local folder of
            one. The kernels of its first convolution are summed over colour
            for one channel. Defaults to `None`, random weights, as in the
            paper.
        **kwargs: Passed on to `ResNet18`, such as `name` or `dtype`.

    Returns:
        A `ResNet18`, whose output is `(batch, 512)`.

    Raises:
        ValueError: If the shape or the preset does not fit.
        ImportError: If Keras Hub is not installed.

    Example:
    >>> encoder = keras_mla.encoders.audio_resnet18((32, 16, 1))
    >>> tuple(encoder(np.zeros((2, 32, 16, 1), "float32")).shape)
    (2, 512)

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, section 4.1.
    """
    _check_length(input_shape, 3, "audio_resnet18", "(time, frequency, 1)")
    return _start(ResNet18(input_shape, **kwargs), preset)


def video_resnet18(
    input_shape: tuple[int | None, ...] = (3, 224, 224, 3),
    preset: str | None = None,
    **kwargs: Any,
) -> ResNet18:
    """Makes a ResNet-18 for frames, `(batch, frames, height, width, 3)`.

    The frames share the network; their feature maps are averaged over time,
    height and width.

    Args:
        input_shape: tuple `(frames, height, width, channels)`, of any size.
            Defaults to `(3, 224, 224, 3)`.
        preset: str. The weights to start from: a Keras Hub preset
            such as `"resnet_18_imagenet"`, downloaded, or a local folder of
            one. Defaults to `None`, random weights, as in the paper.
        **kwargs: Passed on to `ResNet18`, such as `name` or `dtype`.

    Returns:
        A `ResNet18`, whose output is `(batch, 512)`.

    Raises:
        ValueError: If the shape or the preset does not fit.
        ImportError: If Keras Hub is not installed.

    Example:
    >>> encoder = keras_mla.encoders.video_resnet18((3, 32, 32, 3))
    >>> tuple(encoder(np.zeros((2, 3, 32, 32, 3), "float32")).shape)
    (2, 512)

    Reference:
        Zhang et al., "Multimodal Representation Learning by Alternating
        Unimodal Adaptation", CVPR 2024, section 4.1.
    """
    _check_length(
        input_shape, 4, "video_resnet18", "(frames, height, width, 3)"
    )
    return _start(ResNet18(input_shape, **kwargs), preset)


def _check_length(
    shape: tuple[int | None, ...], length: int, name: str, form: str
) -> None:
    if len(shape) != length:
        raise ValueError(
            f"`{name}` reads inputs of shape {form}. "
            f"Received: input_shape={tuple(shape)}"
        )


def _start(model: ResNet18, preset: str | None) -> ResNet18:
    """Copies the weights of a preset into the model."""
    if preset is None:
        return model
    source = load_preset(import_hub().models.ResNetBackbone, preset)
    old, new = source.get_weights(), model.get_weights()
    if old and old[0].shape[2] == 3 and new[0].shape[2] == 1:
        old[0] = old[0].sum(axis=2, keepdims=True)
    if [w.shape for w in old] != [w.shape for w in new]:
        raise ValueError(
            "The preset is no ResNet-18 with basic blocks for this number of "
            f"channels. Received: preset={preset}, "
            f"input_shape={model.example_shape}"
        )
    model.set_weights([np.asarray(w) for w in old])
    return model
