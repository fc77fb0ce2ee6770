"""M3AE's masked autoencoder: pretraining on images and their texts."""

from typing import Any

import keras
import numpy as np
from keras import ops

from keras_mla.encoders.m3ae.encoder import (
    M3AE,
    prepend_class_token,
    split_text,
    transformer_size,
)
from keras_mla.encoders.nn.embeddings import PatchEmbedding, TextEmbedding
from keras_mla.encoders.nn.masked_autoencoder import MaskedAutoencoder
from keras_mla.encoders.nn.masking import masked_mean, reconstruction_loss
from keras_mla.encoders.nn.tokens import (
    check_image,
    check_patches,
    patchify,
    sincos_1d,
    sincos_2d,
)
from keras_mla.layers.transformer import Transformer


@keras.saving.register_keras_serializable(package="keras_mla")
class M3AEAutoencoder(MaskedAutoencoder):
    """The complete masked autoencoder of M3AE, trained by `fit` on pairs.

    A share of the tokens of each modality is removed at random. One encoder
    reads the kept tokens of image and text together. A smaller decoder, with
    a mask token in each gap, predicts the removed pixels and words. The loss
    is

    `image_loss_weight * mean squared error of the removed patches
    + text_loss_weight * cross-entropy of the removed words`,

    each a mean over a sample's removed tokens, padding excluded, then over
    the batch. Compile it with an optimizer alone and fit it on inputs alone.
    Images without texts, or texts without images, train it as well.

    Args:
        size: str. `"small"`, `"base"` or `"large"`. Defaults to `"base"`.
        width: int. Features of the encoder, instead of the size's.
        depth: int. Blocks of the encoder, instead of the size's.
        num_heads: int. Attention heads of the encoder, instead of the size's.
        decoder_width: int. Features of the decoder. Defaults to `512`.
        decoder_depth: int. Blocks of the decoder. Defaults to `8`.
        decoder_num_heads: int. Attention heads of the decoder. Defaults to
            `16`.
        mlp_ratio: int. Hidden width of a block over its width. Defaults to
            `4`.
        image_shape: tuple `(height, width, channels)`. Defaults to
            `(256, 256, 3)`.
        patch_size: int. Side of a patch. Defaults to `16`.
        vocabulary_size: int. Number of words. Defaults to `30522`.
        max_length: int. The longest text. Defaults to `512`.
        image_mask_ratio: float in (0, 1). Defaults to `0.75`.
        text_mask_ratio: float in (0, 1). Defaults to `0.75`.
        image_loss_weight: float. Defaults to `1.0`.
        text_loss_weight: float. Defaults to `0.1`.
        approximate_gelu: bool. Defaults to `True`, as in the original.
        epsilon: float. Epsilon of the layer norms. Defaults to `1e-6`.
        seed: int. Seed of the masks. Defaults to a random one.
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: dict with `"image"`, `(batch, *image_shape)`, or `"text"`, ids
            or a dict of `"token_ids"` and `"padding_mask"` as in `M3AE`, or
            both.
        training: bool. Whether layers behave as in training.
        noise: dict of float tensors `(batch, tokens)`, for given masks: the
            tokens with the smallest values are kept. Defaults to fresh
            uniform noise, drawn per sample.

    Returns:
        A dict: `"image"`, the predicted patches `(batch, patches, values)`,
        and `"image_mask"`, float32, `1.0` at removed patches; `"text"`, logits
        `(batch, length, vocabulary)`, and `"text_mask"`, float32 likewise.

    Raises:
        ValueError: If an argument is out of range or inputs do not fit.

    Example:
    >>> model = keras_mla.encoders.M3AEAutoencoder(
    ...     width=8, depth=1, num_heads=2, decoder_width=8, decoder_depth=1,
    ...     decoder_num_heads=2, image_shape=(32, 32, 3), vocabulary_size=100,
    ...     max_length=6,
    ... )
    >>> model.compile(optimizer="adam")
    >>> x = {
    ...     "image": np.zeros((2, 32, 32, 3), "float32"),
    ...     "text": np.ones((2, 6), "int32"),
    ... }
    >>> history = model.fit(x, epochs=1, verbose=0)
    >>> encoder = model.make_encoder("image")
    >>> tuple(encoder(x["image"]).shape)
    (2, 8)

    Reference:
        Geng et al., "Multimodal Masked Autoencoders Learn Transferable
        Representations", 2022, section 3.
    """

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
        width, depth, num_heads = transformer_size(
            size, width, depth, num_heads
        )
        super().__init__(
            values={
                "image": patch_size**2 * image_shape[-1],
                "text": vocabulary_size,
            },
            mask_ratios={"image": image_mask_ratio, "text": text_mask_ratio},
            tracked=("image_loss", "text_loss", "text_accuracy"),
            width=width,
            decoder_width=decoder_width,
            decoder_depth=decoder_depth,
            decoder_num_heads=decoder_num_heads,
            mlp_ratio=mlp_ratio,
            patch_size=patch_size,
            seed=seed,
            **kwargs,
        )
        # === Config ===
        self.size = size
        self.depth = depth
        self.num_heads = num_heads
        self.image_shape = tuple(image_shape)
        self.grid = check_patches(self.image_shape, patch_size, "image_shape")
        self.vocabulary_size = vocabulary_size
        self.max_length = max_length
        self.image_loss_weight = image_loss_weight
        self.text_loss_weight = text_loss_weight
        self.approximate_gelu = approximate_gelu
        self.epsilon = epsilon
        # === Layers ===
        dtype = self.dtype_policy
        block: Any = {"approximate_gelu": approximate_gelu, "epsilon": epsilon}
        self.image_embedding = PatchEmbedding(
            width, self.grid, patch_size, dtype=dtype, name="image_embedding"
        )
        self.text_embedding = TextEmbedding(
            width,
            vocabulary_size,
            max_length,
            dtype=dtype,
            name="text_embedding",
        )
        self.encoder = Transformer(
            depth,
            num_heads,
            mlp_ratio=mlp_ratio,
            dtype=dtype,
            name="encoder",
            **block,
        )
        projection, self.decoder = self.make_decoder(**block)
        self.decoder_projection = projection
        self.build()

    def build_encoder(self) -> None:
        """Builds embeddings and encoder, and makes the class token."""
        self.image_embedding.build((None, *self.image_shape))
        self.text_embedding.build((None, None))
        self.encoder.build((None, None, self.width))
        self.cls_token = self.add_weight(
            shape=(1, 1, self.width),
            initializer=keras.initializers.RandomNormal(stddev=0.02),
            name="cls_token",
        )

    def position_tables(self) -> dict[str, np.ndarray]:
        """Returns sine and cosine positions of patches and of words."""
        width, words = self.decoder_width, np.arange(self.max_length)
        return {
            "image": sincos_2d(width, self.grid),
            "text": sincos_1d(width, words),
        }

    def call(
        self,
        inputs: dict[str, Any],
        training: bool | None = None,
        noise: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Masks, encodes the kept tokens and predicts the removed ones."""
        embedded, padding = self._embed(inputs)
        kept, kept_padding, hidden = [], [], {}
        for name, tokens in embedded.items():
            left, hidden[name] = self.hide(tokens, name, noise)
            kept.append(left)
            kept_padding.append(
                ops.take_along_axis(padding[name], hidden[name].chosen, axis=1)
            )
        x, mask = prepend_class_token(
            self.cls_token,
            ops.concatenate(kept, axis=1),
            ops.concatenate(kept_padding, axis=1),
        )
        x = self.encoder(x, padding_mask=mask, training=training)
        class_mask = ops.ones_like(mask[:, :1])
        mask = ops.concatenate([class_mask, *padding.values()], axis=1)
        return self.decode(x, hidden, 1, mask, training)

    def total_loss(self, x: Any, outputs: dict[str, Any]) -> Any:
        """Returns the weighted sum of the losses of image and text."""
        total = 0.0
        if "image" in x:
            target = patchify(ops.cast(x["image"], "float32"), self.patch_size)
            loss = reconstruction_loss(
                outputs["image"], target, outputs["image_mask"]
            )
            total = total + self.image_loss_weight * self.track(
                "image_loss", loss
            )
        if "text" in x:
            ids, padding = split_text(x["text"])
            logits = ops.cast(outputs["text"], "float32")
            valid = outputs["text_mask"]
            if padding is not None:
                valid = valid * ops.cast(padding, "float32")
            loss = masked_mean(
                keras.losses.sparse_categorical_crossentropy(
                    ids, logits, from_logits=True
                ),
                valid,
            )
            hits = ops.equal(ops.argmax(logits, axis=-1), ids)
            hits = ops.cast(hits, "float32")
            self.track("text_accuracy", masked_mean(hits, valid))
            total = total + self.text_loss_weight * self.track(
                "text_loss", loss
            )
        return total

    def make_encoder(self, modality: str, **kwargs: Any) -> M3AE:
        """Makes an `M3AE` for one modality, with a copy of the weights.

        Args:
            modality: str. `"image"` or `"text"`.
            **kwargs: Arguments of `M3AE`, such as `drop_path`.

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
        # By way of NumPy: JAX's variables would share an array, which the
        # first step of either model deletes.
        encoder.cls_token.assign(ops.convert_to_numpy(self.cls_token))
        return encoder

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "size": self.size,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "image_shape": self.image_shape,
            "vocabulary_size": self.vocabulary_size,
            "max_length": self.max_length,
            "image_loss_weight": self.image_loss_weight,
            "text_loss_weight": self.text_loss_weight,
            "approximate_gelu": self.approximate_gelu,
            "epsilon": self.epsilon,
        }

    def _embed(
        self, inputs: dict[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Returns tokens and padding masks of the given modalities."""
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
