"""CAV-MAE's masked autoencoder: pretraining on audio and its images."""

from typing import Any

import keras
from keras import layers, ops

from keras_mla.encoders.cavmae import CAVMAE, SHAPES, patch_embedding
from keras_mla.encoders.embeddings import table_initializer
from keras_mla.encoders.m3ae import check_image
from keras_mla.encoders.masking import (
    check_inputs_alone,
    check_mask_ratios,
    mask_tokens,
    reconstruction_loss,
    restore_tokens,
)
from keras_mla.encoders.tokens import patchify, sincos_2d
from keras_mla.encoders.transformer import Transformer, TransformerBlock

MODALITIES = ("audio", "image")


@keras.saving.register_keras_serializable(package="keras_mla")
class CAVMAEAutoencoder(keras.Model):
    """The complete CAV-MAE, trained by `fit` on pairs of audio and image.

    A share of the patches of each modality is removed at random and the rest
    goes through the modality's own blocks. The shared block then reads audio
    and image together, for the decoder that predicts the removed patches, and
    each alone, with norms of its own, for the contrastive loss:

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
        width: int. Defaults to `768`.
        num_heads: int. Defaults to `12`.
        depth: int. Blocks of each modality. Defaults to `11`.
        shared_depth: int. Defaults to `1`.
        decoder_width: int. Defaults to `512`.
        decoder_depth: int. Defaults to `8`.
        decoder_num_heads: int. Defaults to `16`.
        mlp_ratio: int. Defaults to `4`.
        patch_size: int. Defaults to `16`.
        trainable_positions: bool. Defaults to `False`, as in pretraining.
        audio_mask_ratio: float in (0, 1). Defaults to `0.75`.
        image_mask_ratio: float in (0, 1). Defaults to `0.75`.
        normalize_patches: bool. Whether each target patch is standardized.
            Defaults to `True`, as published; `False` is for inpainting.
        reconstruction_weight: float. Defaults to `1.0`.
        contrastive_weight: float. Defaults to `0.01`.
        temperature: float. Defaults to `0.05`.
        bidirectional: bool. Whether the contrastive loss is the mean of both
            directions. Defaults to `False`.
        seed: optional int. Of the masks.

    Call arguments:
        inputs: dict with `"audio"`, `(batch, *audio_shape)`, and `"image"`,
            `(batch, *image_shape)`.
        training: optional bool.
        noise: optional dict of float tensors `(batch, patches)` for masks of
            one's own: the patches with the smallest values stay. Patches of
            audio are ordered frequency first; one value for all patches of
            a time, or of a frequency, masks it as a whole. Defaults to fresh
            uniform noise, drawn per sample.

    Returns:
        A dict, for each modality `m`: `m`, the predicted patches `(batch,
        patches, values)`; `m_mask`, float32 `(batch, patches)`, `1.0` at
        removed patches; `m_feature`, the mean `(batch, width)` of those kept.

    Raises:
        ValueError: if an argument is out of range or inputs do not fit.

    Example:
    ```python
    model = keras_mla.encoders.CAVMAEAutoencoder(
        (32, 32, 1), (32, 32, 3), width=32, num_heads=4, depth=1,
        decoder_width=32, decoder_depth=1, decoder_num_heads=4)
    model.compile(optimizer="adam")
    model.fit({"audio": spectrograms, "image": frames}, epochs=10)
    encoder = model.make_encoder("audio")
    ```

    Reference:
        Gong et al., "Contrastive Audio-Visual Masked Autoencoder", ICLR 2023,
        section 2, Eqs. 1-9.
    """

    built: bool

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
        super().__init__(**kwargs)
        self.shapes = {
            "audio": tuple(audio_shape or SHAPES["audio"]),
            "image": tuple(image_shape or SHAPES["image"]),
        }
        self.width = width
        self.num_heads = num_heads
        self.depth = depth
        self.shared_depth = shared_depth
        self.decoder_width = decoder_width
        self.decoder_depth = decoder_depth
        self.decoder_num_heads = decoder_num_heads
        self.mlp_ratio = mlp_ratio
        self.patch_size = patch_size
        self.trainable_positions = trainable_positions
        self.mask_ratios = {
            "audio": audio_mask_ratio,
            "image": image_mask_ratio,
        }
        check_mask_ratios(self.mask_ratios)
        self.normalize_patches = normalize_patches
        self.reconstruction_weight = reconstruction_weight
        self.contrastive_weight = contrastive_weight
        self.temperature = temperature
        self.bidirectional = bidirectional
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        dtype = self.dtype_policy
        self.embeddings = {
            name: patch_embedding(
                name, shape, width, patch_size, trainable_positions, dtype
            )
            for name, shape in self.shapes.items()
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
        self.decoder_projection = layers.Dense(
            decoder_width, dtype=dtype, name="decoder_projection"
        )
        self.decoder = Transformer(
            decoder_depth,
            decoder_num_heads,
            mlp_ratio=mlp_ratio,
            dtype=dtype,
            name="decoder",
        )
        self.outputs_of = {
            name: layers.Dense(
                patch_size**2 * shape[-1], dtype=dtype, name=f"{name}_output"
            )
            for name, shape in self.shapes.items()
        }
        names = "audio_loss image_loss contrastive_loss contrastive_accuracy"
        self.trackers = {
            name: keras.metrics.Mean(name=name) for name in names.split()
        }
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes the weights; the constructor does it."""
        if self.built:
            return
        tokens, decoder_tokens = (
            (None, None, width) for width in (self.width, self.decoder_width)
        )
        for name in MODALITIES:
            self.embeddings[name].build((None, *self.shapes[name]))
            self.blocks[name].build(tokens)
            self.outputs_of[name].build(decoder_tokens)
        for layer in [*self.shared, *self.norms.values()]:
            layer.build(tokens)
        self.decoder_projection.build(tokens)
        self.decoder.build(decoder_tokens)
        normal = keras.initializers.RandomNormal(stddev=0.02)
        width = self.decoder_width
        self.mask_token = self.add_weight(
            shape=(1, 1, width), initializer=normal, name="mask_token"
        )
        self.decoder_types, self.decoder_positions = {}, {}
        for name in MODALITIES:
            table = sincos_2d(width, self.embeddings[name].grid)
            self.decoder_types[name] = self.add_weight(
                shape=(1, 1, width),
                initializer=normal,
                name=f"decoder_{name}_type_embedding",
            )
            self.decoder_positions[name] = self.add_weight(
                shape=table.shape,
                initializer=table_initializer(table),
                trainable=self.trainable_positions,
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
        if not isinstance(inputs, dict) or set(inputs) != set(MODALITIES):
            got = sorted(inputs) if isinstance(inputs, dict) else type(inputs)
            raise ValueError(
                "CAVMAEAutoencoder reads a dict with 'audio' and 'image'. "
                f"Received: {got}"
            )
        outputs, kept, restores = {}, {}, {}
        for name in MODALITIES:
            check_image(inputs[name], self.shapes[name], name)
            tokens = self.embeddings[name](inputs[name])
            left, _, outputs[f"{name}_mask"], restores[name] = mask_tokens(
                tokens,
                self.mask_ratios[name],
                (noise or {}).get(name),
                self.seed_generator,
            )
            kept[name] = self.blocks[name](left, training=training)
            alone = self._share(kept[name], name, training)
            outputs[f"{name}_feature"] = ops.mean(alone, axis=1)
        joint = ops.concatenate([kept[name] for name in MODALITIES], axis=1)
        joint = self.decoder_projection(self._share(joint, "", training))

        pieces, start = [], 0
        for name in MODALITIES:
            end = start + kept[name].shape[1]
            piece = restore_tokens(
                joint[:, start:end], self.mask_token, restores[name]
            )
            place = self.decoder_positions[name] + self.decoder_types[name][0]
            pieces.append(piece + ops.cast(place, piece.dtype)[None])
            start = end
        x = self.decoder(ops.concatenate(pieces, axis=1), training=training)
        audio = pieces[0].shape[1]
        outputs["audio"] = self.outputs_of["audio"](x[:, :audio])
        outputs["image"] = self.outputs_of["image"](x[:, audio:])
        return outputs

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The weighted sum of reconstruction and contrast."""
        check_inputs_alone(self, y, sample_weight)
        total = 0.0
        for name in MODALITIES:
            loss = reconstruction_loss(
                y_pred[name], self._target(x, name), y_pred[f"{name}_mask"]
            )
            self.trackers[f"{name}_loss"].update_state(loss)
            total = total + self.reconstruction_weight * loss
        loss, accuracy = self._contrast(
            *(y_pred[f"{name}_feature"] for name in MODALITIES)
        )
        self.trackers["contrastive_loss"].update_state(loss)
        self.trackers["contrastive_accuracy"].update_state(accuracy)
        return total + self.contrastive_weight * loss

    def make_encoder(self, modality: str, **kwargs: Any) -> CAVMAE:
        """A new `CAVMAE` for one modality, with a copy of the weights.

        Args:
            modality: str. `"audio"` or `"image"`.
            **kwargs: arguments of `CAVMAE`, such as `drop_path`.

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
                new.assign(old)
        return encoder

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return {
            **super().get_config(),
            "audio_shape": self.shapes["audio"],
            "image_shape": self.shapes["image"],
            "width": self.width,
            "num_heads": self.num_heads,
            "depth": self.depth,
            "shared_depth": self.shared_depth,
            "decoder_width": self.decoder_width,
            "decoder_depth": self.decoder_depth,
            "decoder_num_heads": self.decoder_num_heads,
            "mlp_ratio": self.mlp_ratio,
            "patch_size": self.patch_size,
            "trainable_positions": self.trainable_positions,
            "audio_mask_ratio": self.mask_ratios["audio"],
            "image_mask_ratio": self.mask_ratios["image"],
            "normalize_patches": self.normalize_patches,
            "reconstruction_weight": self.reconstruction_weight,
            "contrastive_weight": self.contrastive_weight,
            "temperature": self.temperature,
            "bidirectional": self.bidirectional,
            "seed": self.seed,
        }

    def _share(self, x: Any, norm: str, training: bool | None) -> Any:
        """The shared blocks and the last norm, with the norms of a modality."""
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
        """The contrastive loss and how often the right partner is nearest."""
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
