"""CAV-MAE's masked autoencoder: pretraining on audio and its images."""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_mla.encoders.cavmae.encoder import CAVMAE, SHAPES, patch_embedding
from keras_mla.encoders.nn.masked_autoencoder import MaskedAutoencoder
from keras_mla.encoders.nn.masking import reconstruction_loss
from keras_mla.encoders.nn.tokens import check_image, patchify, sincos_2d
from keras_mla.layers.transformer import Transformer, TransformerBlock

MODALITIES = ("audio", "image")


@keras.saving.register_keras_serializable(package="keras_mla")
class CAVMAEAutoencoder(MaskedAutoencoder):
    """The complete CAV-MAE, trained by `fit` on pairs of audio and image.

    A share of the patches of each modality is removed at random, and the kept
    patches go through the modality's own blocks. The shared block then reads
    audio and image together, for the decoder that predicts the removed
    patches, and each alone, with norms of its own, for the contrastive loss:

    `reconstruction_weight * (audio_loss + image_loss)
    + contrastive_weight * contrastive_loss`.

    A reconstruction loss is the mean squared error of the removed patches.
    The contrastive loss takes the mean features a_i and v_j, of unit length:
    the mean over j of `-log softmax_i(a_i . v_j / temperature)` at i = j.
    Compile it with an optimizer alone and fit it on inputs alone.

    Args:
        audio_shape: tuple `(time, frequency, 1)`. Defaults to
            `(1024, 128, 1)`.
        image_shape: tuple `(height, width, channels)`. Defaults to
            `(224, 224, 3)`.
        width: int. Features of the encoder. Defaults to `768`.
        num_heads: int. Attention heads of the encoder. Defaults to `12`.
        depth: int. Blocks of each modality. Defaults to `11`.
        shared_depth: int. Blocks that both modalities share. Defaults to `1`.
        decoder_width: int. Features of the decoder. Defaults to `512`.
        decoder_depth: int. Blocks of the decoder. Defaults to `8`.
        decoder_num_heads: int. Attention heads of the decoder. Defaults to
            `16`.
        mlp_ratio: int. Hidden width of a block over its width. Defaults to
            `4`.
        patch_size: int. Side of a patch. Defaults to `16`.
        trainable_positions: bool. Whether positions are learned. Defaults to
            `False`, as in pretraining.
        audio_mask_ratio: float in (0, 1). Defaults to `0.75`.
        image_mask_ratio: float in (0, 1). Defaults to `0.75`.
        normalize_patches: bool. Whether each target patch is standardized.
            Defaults to `True`, as published; `False` is for inpainting.
        reconstruction_weight: float. Defaults to `1.0`.
        contrastive_weight: float. Defaults to `0.01`.
        temperature: float. Temperature of the contrastive loss. Defaults to
            `0.05`.
        bidirectional: bool. Whether the contrastive loss is the mean of both
            directions. Defaults to `False`.
        seed: int. Seed of the masks. Defaults to a random one.
        **kwargs: `name`, `dtype`.

    Call arguments:
        inputs: dict with `"audio"`, `(batch, *audio_shape)`, and `"image"`,
            `(batch, *image_shape)`.
        training: bool. Whether layers behave as in training.
        noise: dict of float tensors `(batch, patches)`, for given masks: the
            patches with the smallest values are kept. Patches of audio are
            ordered frequency first. One value for all patches of a time, or
            of a frequency, masks it as a whole. Defaults to fresh uniform
            noise, drawn per sample.

    Returns:
        A dict, for each modality `m`: `m`, the predicted patches `(batch,
        patches, values)`; `m_mask`, float32 `(batch, patches)`, `1.0` at
        removed patches; `m_feature`, the mean `(batch, width)` of the kept
        ones.

    Raises:
        ValueError: If an argument is out of range or inputs do not fit.

    Example:
    >>> model = keras_mla.encoders.CAVMAEAutoencoder(
    ...     (32, 16, 1), (32, 32, 3), width=8, num_heads=2, depth=1,
    ...     decoder_width=8, decoder_depth=1, decoder_num_heads=2,
    ...     audio_mask_ratio=0.5,
    ... )
    >>> model.compile(optimizer="adam")
    >>> x = {
    ...     "audio": np.zeros((2, 32, 16, 1), "float32"),
    ...     "image": np.zeros((2, 32, 32, 3), "float32"),
    ... }
    >>> history = model.fit(x, epochs=1, verbose=0)
    >>> encoder = model.make_encoder("audio")
    >>> tuple(encoder(x["audio"]).shape)
    (2, 8)

    Reference:
        Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023,
        section 2, Eqs. 1-9.
    """

    shares_mask_token = True

    def __init__(
        self,
        audio_shape: tuple[int, int, int] = (1024, 128, 1),
        image_shape: tuple[int, int, int] = (224, 224, 3),
        width: int = 768,
        num_heads: int = 12,
        depth: int = 11,
        shared_depth: int = 1,
        decoder_width: int = 512,
        decoder_depth: int = 8,
        decoder_num_heads: int = 16,
        mlp_ratio: int = 4,
        patch_size: int = 16,
        trainable_positions: bool = False,
        audio_mask_ratio: float = 0.75,
        image_mask_ratio: float = 0.75,
        normalize_patches: bool = True,
        reconstruction_weight: float = 1.0,
        contrastive_weight: float = 0.01,
        temperature: float = 0.05,
        bidirectional: bool = False,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        shapes = {
            "audio": tuple(audio_shape or SHAPES["audio"]),
            "image": tuple(image_shape or SHAPES["image"]),
        }
        super().__init__(
            values={
                name: patch_size**2 * shape[-1]
                for name, shape in shapes.items()
            },
            mask_ratios={"audio": audio_mask_ratio, "image": image_mask_ratio},
            tracked=(
                "audio_loss",
                "image_loss",
                "contrastive_loss",
                "contrastive_accuracy",
            ),
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
        self.shapes = shapes
        self.num_heads = num_heads
        self.depth = depth
        self.shared_depth = shared_depth
        self.trainable_positions = trainable_positions
        self.normalize_patches = normalize_patches
        self.reconstruction_weight = reconstruction_weight
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.bidirectional = bidirectional
        # === Layers ===
        dtype = self.dtype_policy
        self.embeddings = {
            name: patch_embedding(
                name, shape, width, patch_size, trainable_positions, dtype
            )
            for name, shape in shapes.items()
        }
        self.blocks = {
            name: Transformer(
                depth,
                num_heads,
                final_norm=False,
                mlp_ratio=mlp_ratio,
                dtype=dtype,
                name=f"{name}_blocks",
            )
            for name in MODALITIES
        }
        self.shared = [
            TransformerBlock(
                num_heads,
                mlp_ratio=mlp_ratio,
                norms=("", *MODALITIES),
                dtype=dtype,
                name=f"shared_{i}",
            )
            for i in range(shared_depth)
        ]
        self.norms = {
            name: layers.LayerNormalization(
                epsilon=1e-5, dtype=dtype, name=f"{name}_norm"
            )
            for name in ("joint", *MODALITIES)
        }
        self.decoder_projection, self.decoder = self.make_decoder()
        self.build()

    def build_encoder(self) -> None:
        """Builds embeddings, blocks and norms."""
        tokens = (None, None, self.width)
        for name in MODALITIES:
            self.embeddings[name].build((None, *self.shapes[name]))
            self.blocks[name].build(tokens)
        for layer in [*self.shared, *self.norms.values()]:
            layer.build(tokens)

    def position_tables(self) -> dict[str, np.ndarray]:
        """Returns sine and cosine positions of each modality's patches."""
        return {
            name: sincos_2d(self.decoder_width, self.embeddings[name].grid)
            for name in MODALITIES
        }

    def call(
        self,
        inputs: dict[str, Any],
        training: bool | None = None,
        noise: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Masks, encodes the kept patches and predicts the removed ones."""
        if not isinstance(inputs, dict) or set(inputs) != set(MODALITIES):
            got = sorted(inputs) if isinstance(inputs, dict) else type(inputs)
            raise ValueError(
                "CAVMAEAutoencoder reads a dict with 'audio' and 'image'. "
                f"Received: {got}"
            )
        features, kept, hidden = {}, [], {}
        for name in MODALITIES:
            check_image(inputs[name], self.shapes[name], name)
            left, hidden[name] = self.hide(
                self.embeddings[name](inputs[name]), name, noise
            )
            kept.append(self.blocks[name](left, training=training))
            alone = self._share(kept[-1], name, training)
            features[f"{name}_feature"] = ops.mean(alone, axis=1)
        joint = self._share(ops.concatenate(kept, axis=1), "", training)
        outputs = self.decode(joint, hidden, training=training)
        return {**outputs, **features}

    def total_loss(self, x: Any, outputs: dict[str, Any]) -> Any:
        """Returns the weighted sum of reconstruction and contrast."""
        total = 0.0
        for name in MODALITIES:
            loss = reconstruction_loss(
                outputs[name], self._target(x, name), outputs[f"{name}_mask"]
            )
            total = total + self.reconstruction_weight * self.track(
                f"{name}_loss", loss
            )
        loss, accuracy = self._contrast(
            *(outputs[f"{name}_feature"] for name in MODALITIES)
        )
        self.track("contrastive_accuracy", accuracy)
        return total + self.contrastive_weight * self.track(
            "contrastive_loss", loss
        )

    def make_encoder(self, modality: str, **kwargs: Any) -> CAVMAE:
        """Makes a `CAVMAE` for one modality, with a copy of the weights.

        Args:
            modality: str. `"audio"` or `"image"`.
            **kwargs: Arguments of `CAVMAE`, such as `drop_path`.

        Returns:
            A `CAVMAE`.
        """
        names = "width num_heads depth shared_depth mlp_ratio patch_size"
        arguments = {name: getattr(self, name) for name in names.split()}
        arguments["input_shape"] = self.shapes.get(modality)
        encoder = CAVMAE(modality, **{**arguments, **kwargs})
        copy = [
            (self.embeddings[modality], encoder.embedding),
            (self.blocks[modality], encoder.blocks),
            (self.norms[modality], encoder.shared.norm),
        ]
        pair = 1 + MODALITIES.index(modality)
        for ours, theirs in zip(
            self.shared, encoder.shared.blocks, strict=True
        ):
            copy += [
                (ours.norm1[pair], theirs.norm1[0]),
                (ours.norm2[pair], theirs.norm2[0]),
            ]
            for name in ("qkv", "projection", "mlp_in", "mlp_out"):
                copy.append((getattr(ours, name), getattr(theirs, name)))
        for source, target in copy:
            # By path: positions may be trainable on one side only, and
            # `weights` lists what is trainable first.
            pairs = (sorted(x.weights, key=_path) for x in (source, target))
            for old, new in zip(*pairs, strict=True):
                # By way of NumPy: JAX's variables would share an array, which
                # the first step of either model deletes.
                new.assign(ops.convert_to_numpy(old))
        return encoder

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "audio_shape": self.shapes["audio"],
            "image_shape": self.shapes["image"],
            "num_heads": self.num_heads,
            "depth": self.depth,
            "shared_depth": self.shared_depth,
            "trainable_positions": self.trainable_positions,
            "normalize_patches": self.normalize_patches,
            "reconstruction_weight": self.reconstruction_weight,
            "contrastive_weight": self.contrastive_weight,
            "temperature": self.temperature,
            "bidirectional": self.bidirectional,
        }

    def _share(self, x: Any, norm: str, training: bool | None) -> Any:
        """Applies shared blocks and last norm, with the norms of a modality."""
        for block in self.shared:
            x = block(x, norm=norm, training=training)
        return self.norms[norm or "joint"](x)

    def _target(self, x: dict[str, Any], name: str) -> Any:
        values = ops.cast(x[name], "float32")
        if name == "audio":
            values = ops.transpose(values, (0, 2, 1, 3))
        patches = patchify(values, self.patch_size)
        if self.normalize_patches:
            patches = patches - ops.mean(patches, axis=-1, keepdims=True)
            count = patches.shape[-1]
            variance = ops.sum(ops.square(patches), axis=-1, keepdims=True)
            patches = patches / ops.sqrt(variance / (count - 1) + 1e-6)
        return patches

    def _contrast(self, audio: Any, image: Any) -> tuple[Any, Any]:
        """Returns the loss, and how often the right partner is nearest."""
        audio, image = (
            ops.normalize(ops.cast(feature, "float32"), axis=-1)
            for feature in (audio, image)
        )
        scores = ops.matmul(audio, ops.transpose(image)) / self.temperature
        axes = (0, 1) if self.bidirectional else (0,)
        pairs = ops.arange(ops.shape(scores)[0])
        loss, accuracy = 0.0, 0.0
        for axis in axes:
            log = ops.diagonal(ops.log_softmax(scores, axis=axis))
            loss = loss - ops.mean(log) / len(axes)
            hits = ops.equal(ops.argmax(scores, axis=axis), pairs)
            accuracy = accuracy + ops.mean(ops.cast(hits, "float32")) / len(
                axes
            )
        return loss, accuracy


def _path(variable: Any) -> str:
    return variable.path
