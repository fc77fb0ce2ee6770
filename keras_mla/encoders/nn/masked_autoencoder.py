"""What masked autoencoders of several modalities share."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_mla.encoders.nn.embeddings import table_initializer
from keras_mla.encoders.nn.masking import (
    choose_tokens,
    kept_tokens,
    random_noise,
    restore_tokens,
    take_tokens,
)
from keras_mla.layers.transformer import Transformer


class Hidden(NamedTuple):
    """Which tokens of a modality are hidden, in each sample.

    Attributes:
        chosen: int tensor `(batch, keep)`. Indices of the kept tokens.
        mask: float32 tensor `(batch, tokens)`. `1.0` at hidden tokens.
        restore: int tensor `(batch, tokens)`. Indices that put kept and hidden
            tokens, one after the other, back in order.
    """

    chosen: Any
    mask: Any
    restore: Any


class MaskedAutoencoder(keras.Model):
    """Base of models that predict the hidden tokens of several modalities.

    The constructor of a subclass makes the encoder, assigns
    `decoder_projection` and `decoder` from `make_decoder`, and ends with
    `self.build()`. The order of its assignments is the order of its weights,
    so it must not change: files hold an optimizer's slots in that order. A
    subclass implements `build_encoder`, `position_tables`, `call` and
    `total_loss`. Its `call` embeds each modality, hides tokens by `hide`,
    encodes the kept ones and predicts the hidden ones by `decode`.

    Args:
        values: dict of modality to int. How many numbers the decoder predicts
            for a token.
        mask_ratios: dict of modality to float in (0, 1). Share of the tokens
            that are hidden.
        tracked: tuple of str. Names of the losses and metrics in `fit`'s
            history.
        width: int. Features of the encoder's tokens.
        decoder_width: int. Features of the decoder's tokens.
        decoder_depth: int. Blocks of the decoder.
        decoder_num_heads: int. Attention heads of the decoder.
        mlp_ratio: int. Hidden width of a block over its width.
        patch_size: int. Side of a patch.
        seed: int. Seed of the masks.
        **kwargs: `name`, `dtype`.

    Raises:
        ValueError: If a mask ratio is not between zero and one.

    Reference:
        He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR
        2022.
    """

    built: bool
    decoder_projection: layers.Dense
    decoder: Transformer
    # A subclass may have one mask token for all modalities, and learn where
    # the decoder's tokens stand.
    shares_mask_token = False
    trainable_positions = False

    def __init__(
        self,
        values: Mapping[str, int],
        mask_ratios: Mapping[str, float],
        tracked: tuple[str, ...],
        width: int,
        decoder_width: int,
        decoder_depth: int,
        decoder_num_heads: int,
        mlp_ratio: int,
        patch_size: int,
        seed: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, ratio in mask_ratios.items():
            if not 0.0 < ratio < 1.0:
                raise ValueError(
                    "The share of masked tokens must lie between 0 and 1. "
                    f"Received: {name}_mask_ratio={ratio}"
                )
        # === Config ===
        self.values = dict(values)
        self.mask_ratios = dict(mask_ratios)
        self.width = width
        self.decoder_width = decoder_width
        self.decoder_depth = decoder_depth
        self.decoder_num_heads = decoder_num_heads
        self.mlp_ratio = mlp_ratio
        self.patch_size = patch_size
        self.seed = seed
        # === Layers ===
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in tracked
        }

    def make_decoder(self, **block: Any) -> tuple[layers.Dense, Transformer]:
        """Makes the projection to the decoder's width, and the decoder.

        Args:
            **block: Further arguments of the decoder's `Transformer`.

        Returns:
            A tuple `(decoder_projection, decoder)`.
        """
        projection = layers.Dense(
            self.decoder_width,
            dtype=self.dtype_policy,
            name="decoder_projection",
        )
        decoder = Transformer(
            self.decoder_depth,
            self.decoder_num_heads,
            mlp_ratio=self.mlp_ratio,
            dtype=self.dtype_policy,
            name="decoder",
            **block,
        )
        return projection, decoder

    def build_encoder(self) -> None:
        """Builds the layers that the subclass has made."""
        raise NotImplementedError

    def position_tables(self) -> dict[str, np.ndarray]:
        """Returns each modality's positions `(tokens, decoder_width)`."""
        raise NotImplementedError

    def total_loss(self, x: Any, outputs: dict[str, Any]) -> Any:
        """Returns the loss of a batch, and calls `track` for its parts.

        Args:
            x: dict of inputs.
            outputs: dict. What `call` returned for them.
        """
        raise NotImplementedError

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights. The constructor calls it."""
        if self.built:
            return
        self.build_encoder()
        self.outputs_of = {
            name: layers.Dense(
                count, dtype=self.dtype_policy, name=f"{name}_output"
            )
            for name, count in self.values.items()
        }
        self.decoder_projection.build((None, None, self.width))
        tokens = (None, None, self.decoder_width)
        for layer in [self.decoder, *self.outputs_of.values()]:
            layer.build(tokens)
        self.mask_tokens, self.decoder_types, self.decoder_positions = (
            {},
            {},
            {},
        )
        shared = self._add_token("mask_token") if self.shares_mask_token else 0
        for name, table in self.position_tables().items():
            self.mask_tokens[name] = (
                shared
                if self.shares_mask_token
                else self._add_token(f"{name}_mask_token")
            )
            self.decoder_types[name] = self._add_token(
                f"decoder_{name}_type_embedding"
            )
            self.decoder_positions[name] = self.add_weight(
                shape=table.shape,
                initializer=table_initializer(table),
                trainable=self.trainable_positions,
                name=f"decoder_{name}_positions",
            )
        self.built = True

    def hide(
        self, tokens: Any, modality: str, noise: Mapping[str, Any] | None
    ) -> tuple[Any, Hidden]:
        """Hides a share of the tokens of each sample.

        Args:
            tokens: float tensor `(batch, tokens, width)`.
            modality: str. The modality of the tokens.
            noise: dict of modality to float tensor `(batch, tokens)`, or
                `None`. The tokens with the smallest values are kept. Defaults
                to uniform noise.

        Returns:
            A tuple of the kept tokens `(batch, keep, width)` and a `Hidden`.
        """
        values = (noise or {}).get(modality)
        if values is None:
            values = random_noise(tokens, self.seed_generator)
        keep = kept_tokens(tokens.shape[1], self.mask_ratios[modality])
        hidden = Hidden(*choose_tokens(values, keep))
        return take_tokens(tokens, hidden.chosen), hidden

    def decode(
        self,
        tokens: Any,
        hidden: Mapping[str, Hidden],
        first: int = 0,
        padding_mask: Any = None,
        training: bool | None = None,
    ) -> dict[str, Any]:
        """Predicts what the hidden tokens hold.

        Args:
            tokens: float tensor `(batch, first + keep, width)`. The encoded
                tokens: class tokens, then each modality's kept ones.
            hidden: dict of modality to `Hidden`, in the order of `tokens`.
            first: int. Number of class tokens. Defaults to `0`.
            padding_mask: bool tensor `(batch, first + all tokens)`, `True` at
                tokens that may be attended to.
            training: bool.

        Returns:
            A dict: each modality's predictions `(batch, tokens, values)`, and
            its mask as `"<modality>_mask"`.
        """
        x = self.decoder_projection(tokens)
        pieces, start = [x[:, :first]] if first else [], first
        for name, choice in hidden.items():
            end = start + choice.chosen.shape[1]
            piece = restore_tokens(
                x[:, start:end], self.mask_tokens[name], choice.restore
            )
            table = self.decoder_positions[name][: piece.shape[1]]
            place = table + self.decoder_types[name][0]
            pieces.append(piece + ops.cast(place, piece.dtype)[None])
            start = end
        x = self.decoder(
            ops.concatenate(pieces, axis=1),
            padding_mask=padding_mask,
            training=training,
        )
        outputs, start = {}, first
        for name, choice in hidden.items():
            end = start + choice.restore.shape[1]
            outputs[name] = self.outputs_of[name](x[:, start:end])
            outputs[f"{name}_mask"] = choice.mask
            start = end
        return outputs

    def track(self, name: str, value: Any) -> Any:
        """Records a value for `fit`'s history, and returns it."""
        self.trackers[name].update_state(value)
        return value

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of a batch; refuses labels and sample weights."""
        if y is not None or sample_weight is not None:
            raise ValueError(
                f"{type(self).__name__} learns from its own inputs: fit it on "
                "inputs alone, without labels and sample weights. Received: "
                f"y={type(y).__name__}, "
                f"sample_weight={type(sample_weight).__name__}"
            )
        return self.total_loss(x, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "width": self.width,
            "decoder_width": self.decoder_width,
            "decoder_depth": self.decoder_depth,
            "decoder_num_heads": self.decoder_num_heads,
            "mlp_ratio": self.mlp_ratio,
            "patch_size": self.patch_size,
            "seed": self.seed,
            **{
                f"{name}_mask_ratio": ratio
                for name, ratio in self.mask_ratios.items()
            },
        }

    def _add_token(self, name: str) -> Any:
        return self.add_weight(
            shape=(1, 1, self.decoder_width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name=name,
        )
