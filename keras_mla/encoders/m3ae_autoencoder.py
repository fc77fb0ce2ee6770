"""M3AE's masked autoencoder: pretraining on images and their texts."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mla.encoders.embeddings import (
    PatchEmbedding,
    TextEmbedding,
    table_initializer,
)
from keras_mla.encoders.m3ae import (
    M3AE,
    check_image,
    prepend_class_token,
    split_text,
    transformer_size,
)
from keras_mla.encoders.masking import (
    check_inputs_alone,
    check_mask_ratios,
    mask_tokens,
    masked_mean,
    reconstruction_loss,
    restore_tokens,
)
from keras_mla.encoders.tokens import (
    check_patches,
    patchify,
    sincos_1d,
    sincos_2d,
)
from keras_mla.encoders.transformer import Transformer


@keras.saving.register_keras_serializable(package="keras_mla")
class M3AEAutoencoder(keras.Model):
    """The complete masked autoencoder of M3AE, trained by `fit` on pairs.

    A share of the tokens of each modality is removed at random, one encoder
    reads what is left of image and text together, and a smaller decoder, with
    a mask token in each gap, predicts the pixels and the words that are gone.
    The loss is

    `image_loss_weight * mean squared error of the removed patches
    + text_loss_weight * cross-entropy of the removed words`,

    each a mean over a sample's removed tokens, padding excluded, then over
    the batch. Compile it with an optimizer alone and fit it on inputs alone.
    Images without texts, or texts without images, train it as well.

    Args:
        size: str. `"small"`, `"base"` or `"large"`. Defaults to `"base"`.
        width: optional int. Instead of the size's.
        depth: optional int. Instead of the size's.
        num_heads: optional int. Instead of the size's.
        decoder_width: int. Defaults to `512`.
        decoder_depth: int. Defaults to `8`.
        decoder_num_heads: int. Defaults to `16`.
        mlp_ratio: int. Defaults to `4`.
        image_shape: tuple `(height, width, channels)`. Defaults to
            `(256, 256, 3)`.
        patch_size: int. Defaults to `16`.
        vocabulary_size: int. Defaults to `30522`.
        max_length: int. The longest text. Defaults to `512`.
        image_mask_ratio: float in (0, 1). Defaults to `0.75`.
        text_mask_ratio: float in (0, 1). Defaults to `0.75`.
        image_loss_weight: float. Defaults to `1.0`.
        text_loss_weight: float. Defaults to `0.1`.
        approximate_gelu: bool. Defaults to `True`, as in the original.
        epsilon: float. Of the layer norms. Defaults to `1e-6`.
        seed: optional int. Of the masks.

    Call arguments:
        inputs: dict with `"image"`, `(batch, *image_shape)`, or `"text"`, ids
            or a dict of `"token_ids"` and `"padding_mask"` as in `M3AE`, or
            both.
        training: optional bool.
        noise: optional dict of float tensors `(batch, tokens)` for masks of
            one's own: the tokens with the smallest values stay. Defaults to
            fresh uniform noise, drawn per sample.

    Returns:
        A dict: `"image"`, the predicted patches `(batch, patches, values)`,
        and `"image_mask"`, float32, `1.0` at removed patches; `"text"`, logits
        `(batch, length, vocabulary)`, and `"text_mask"`, likewise.

    Raises:
        ValueError: if an argument is out of range or inputs do not fit.

    Example:
    ```python
    model = keras_mla.encoders.M3AEAutoencoder(
        width=32, depth=1, num_heads=4, decoder_width=32, decoder_depth=1,
        decoder_num_heads=4, image_shape=(32, 32, 3), vocabulary_size=100)
    model.compile(optimizer="adam")
    model.fit({"image": images, "text": token_ids}, epochs=10)
    encoder = model.make_encoder("image")
    ```

    Reference:
        Geng et al., "Multimodal Masked Autoencoders Learn Transferable
        Representations", 2022, section 3.
    """

    built: bool

    def __init__(
        self,
        size: str = "base",
        width: int | None = None,
        depth: int | None = None,
        num_heads: int | None = None,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: int = 4,
        image_shape: tuple[int, int, int] = (256, 256, 3),
        patch_size: int = 16,
        vocabulary_size: int = 30522,
        max_length: int = 512,
        image_mask_ratio: float = 0.75,
        text_mask_ratio: float = 0.75,
        image_loss_weight: float = 1.0,
        text_loss_weight: float = 0.1,
        approximate_gelu: bool = True,
        epsilon: float = 1e-6,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.size = size
        self.width, self.depth, self.num_heads = transformer_size(
            size, width, depth, num_heads
        )
        self.decoder_width = decoder_width
        self.decoder_depth = decoder_depth
        self.decoder_num_heads = decoder_num_heads
        self.mlp_ratio = mlp_ratio
        self.image_shape = tuple(image_shape)
        self.patch_size = patch_size
        self.grid = check_patches(self.image_shape, patch_size, "image_shape")
        self.vocabulary_size = vocabulary_size
        self.max_length = max_length
        self.mask_ratios = {"image": image_mask_ratio, "text": text_mask_ratio}
        self.loss_weights = {
            "image": image_loss_weight,
            "text": text_loss_weight,
        }
        check_mask_ratios(self.mask_ratios)
        self.approximate_gelu = approximate_gelu
        self.epsilon = epsilon
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        dtype = self.dtype_policy
        self.image_embedding = PatchEmbedding(
            self.width,
            self.grid,
            patch_size,
            dtype=dtype,
            name="image_embedding",
        )
        self.text_embedding = TextEmbedding(
            self.width,
            vocabulary_size,
            max_length,
            dtype=dtype,
            name="text_embedding",
        )
        shared = {
            "mlp_ratio": mlp_ratio,
            "approximate_gelu": approximate_gelu,
            "epsilon": epsilon,
            "dtype": dtype,
        }
        self.encoder = Transformer(
            self.depth, self.num_heads, name="encoder", **shared
        )
        self.decoder = Transformer(
            decoder_depth, decoder_num_heads, name="decoder", **shared
        )
        self.decoder_projection = layers.Dense(
            decoder_width, dtype=dtype, name="decoder_projection"
        )
        self.outputs_of = {
            "image": layers.Dense(
                patch_size**2 * self.image_shape[-1],
                dtype=dtype,
                name="image_output",
            ),
            "text": layers.Dense(
                vocabulary_size, dtype=dtype, name="text_output"
            ),
        }
        self.trackers = {
            name: keras.metrics.Mean(name=name)
            for name in ("image_loss", "text_loss", "text_accuracy")
        }
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights; the constructor does it."""
        if self.built:
            return
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.image_embedding.build((None, *self.image_shape))
        self.text_embedding.build((None, None))
        self.encoder.build((None, None, self.width))
        self.decoder_projection.build((None, None, self.width))
        width = self.decoder_width
        self.decoder.build((None, None, width))
        for layer in self.outputs_of.values():
            layer.build((None, None, width))
        self.cls_token = self.add_weight(
            shape=(1, 1, self.width), initializer=normal, name="cls_token"
        )
        self.mask_tokens, self.decoder_types, self.decoder_positions = (
            {},
            {},
            {},
        )
        tables = {
            "image": sincos_2d(width, self.grid),
            "text": sincos_1d(width, np.arange(self.max_length)),
        }
        for name, table in tables.items():
            self.mask_tokens[name] = self.add_weight(
                shape=(1, 1, width),
                initializer=normal,
                name=f"{name}_mask_token",
            )
            self.decoder_types[name] = self.add_weight(
                shape=(1, 1, width),
                initializer=normal,
                name=f"decoder_{name}_type_embedding",
            )
            self.decoder_positions[name] = self.add_weight(
                shape=table.shape,
                initializer=table_initializer(table),
                trainable=False,
                name=f"decoder_{name}_positions",
            )
        self.built = True

    def call(
        self,
        inputs: dict[str, Any],
        training: bool | None = None,
        noise: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Masks, encodes what is left and predicts what is gone."""
        embedded, padding = self._embed(inputs)
        outputs, restores, kept, kept_padding = {}, {}, [], []
        for name, tokens in embedded.items():
            left, chosen, outputs[f"{name}_mask"], restores[name] = mask_tokens(
                tokens,
                self.mask_ratios[name],
                (noise or {}).get(name),
                self.seed_generator,
            )
            kept.append(left)
            kept_padding.append(
                ops.take_along_axis(padding[name], chosen, axis=1)
            )
        lengths = [tokens.shape[1] for tokens in kept]
        x, mask = prepend_class_token(
            self.cls_token,
            ops.concatenate(kept, axis=1),
            ops.concatenate(kept_padding, axis=1),
        )
        x = self.encoder(x, padding_mask=mask, training=training)
        x = self.decoder_projection(x)

        pieces, start = [x[:, :1]], 1
        for name, length in zip(embedded, lengths, strict=True):
            piece = restore_tokens(
                x[:, start : start + length],
                self.mask_tokens[name],
                restores[name],
            )
            table = self.decoder_positions[name][: piece.shape[1]]
            place = table + self.decoder_types[name][0]
            pieces.append(piece + ops.cast(place, piece.dtype)[None])
            start += length
        ones = ops.ones_like(mask[:, :1])
        mask = ops.concatenate([ones, *padding.values()], axis=1)
        x = ops.concatenate(pieces, axis=1)
        x = self.decoder(x, padding_mask=mask, training=training)

        start = 1
        for name, tokens in embedded.items():
            end = start + tokens.shape[1]
            outputs[name] = self.outputs_of[name](x[:, start:end])
            start = end
        return outputs

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of the losses of image and text."""
        check_inputs_alone(self, y, sample_weight)
        total = 0.0
        if "image" in x:
            target = patchify(ops.cast(x["image"], "float32"), self.patch_size)
            loss = reconstruction_loss(
                y_pred["image"], target, y_pred["image_mask"]
            )
            self.trackers["image_loss"].update_state(loss)
            total = total + self.loss_weights["image"] * loss
        if "text" in x:
            ids, padding = split_text(x["text"])
            logits = ops.cast(y_pred["text"], "float32")
            valid = y_pred["text_mask"]
            if padding is not None:
                valid = valid * ops.cast(padding, "float32")
            loss = masked_mean(
                keras.losses.sparse_categorical_crossentropy(
                    ids, logits, from_logits=True
                ),
                valid,
            )
            hits = ops.equal(ops.argmax(logits, axis=-1), ids)
            self.trackers["text_loss"].update_state(loss)
            self.trackers["text_accuracy"].update_state(
                masked_mean(ops.cast(hits, "float32"), valid)
            )
            total = total + self.loss_weights["text"] * loss
        return total

    def make_encoder(self, modality: str, **kwargs: Any) -> M3AE:
        """A new `M3AE` for one modality, with a copy of the weights.

        Args:
            modality: str. `"image"` or `"text"`.
            **kwargs: arguments of `M3AE`, such as `drop_path`.

        Returns:
            An `M3AE`.
        """
        config = self.get_config()
        names = (
            "size width depth num_heads mlp_ratio image_shape patch_size "
            "vocabulary_size max_length approximate_gelu epsilon"
        )
        arguments = {name: config[name] for name in names.split()}
        encoder = M3AE(modality, **{**arguments, **kwargs})
        source: Any = {
            "image": self.image_embedding,
            "text": self.text_embedding,
        }[modality]
        encoder.embedding.set_weights(source.get_weights())
        encoder.encoder.set_weights(self.encoder.get_weights())
        encoder.cls_token.assign(self.cls_token)
        return encoder

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "size": self.size,
            "width": self.width,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "decoder_width": self.decoder_width,
            "decoder_depth": self.decoder_depth,
            "decoder_num_heads": self.decoder_num_heads,
            "mlp_ratio": self.mlp_ratio,
            "image_shape": self.image_shape,
            "patch_size": self.patch_size,
            "vocabulary_size": self.vocabulary_size,
            "max_length": self.max_length,
            "image_mask_ratio": self.mask_ratios["image"],
            "text_mask_ratio": self.mask_ratios["text"],
            "image_loss_weight": self.loss_weights["image"],
            "text_loss_weight": self.loss_weights["text"],
            "approximate_gelu": self.approximate_gelu,
            "epsilon": self.epsilon,
            "seed": self.seed,
        }

    def _embed(
        self, inputs: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tokens and padding masks of the modalities that are given."""
        names = set(inputs) if isinstance(inputs, dict) else set()
        if not names or names - {"image", "text"}:
            raise ValueError(
                "M3AEAutoencoder reads a dict with 'image', 'text' or both. "
                f"Received: {sorted(names) or type(inputs).__name__}"
            )
        embedded, padding = {}, {}
        if "image" in inputs:
            check_image(inputs["image"], self.image_shape, "images")
            embedded["image"] = self.image_embedding(inputs["image"])
        if "text" in inputs:
            ids, padding["text"] = split_text(inputs["text"])
            embedded["text"] = self.text_embedding(ids)
        return embedded, {
            name: ops.ones(ops.shape(tokens)[:2], "bool")
            if padding.get(name) is None
            else padding[name]
            for name, tokens in embedded.items()
        }
