"""Encoders of single modalities, with their published checkpoints."""

from keras_mla.encoders.cache import cache_features
from keras_mla.encoders.cavmae import (
    CAVMAE,
    CAVMAEAutoencoder,
    convert_cavmae,
)
from keras_mla.encoders.checkpoints import (
    read_checkpoint,
)
from keras_mla.encoders.clip import (
    CLIPImageTower,
    CLIPTextTower,
    CLIPTokens,
    clip_image_converter,
    clip_image_encoder,
    clip_text_encoder,
    clip_tokenizer,
)
from keras_mla.encoders.hub_encoders import (
    hub_image_encoder,
    hub_text_encoder,
)
from keras_mla.encoders.m3ae import (
    M3AE,
    M3AEAutoencoder,
    convert_m3ae,
)
from keras_mla.encoders.nn import (
    PatchEmbedding,
    TextEmbedding,
    Transformer,
    TransformerBlock,
    patchify,
    resize_positions,
    unpatchify,
)
from keras_mla.encoders.resnet import (
    ResNet18,
    audio_resnet18,
    convert_resnet18,
    video_resnet18,
)

__all__ = [
    "CAVMAE",
    "CAVMAEAutoencoder",
    "CLIPImageTower",
    "CLIPTextTower",
    "CLIPTokens",
    "M3AE",
    "M3AEAutoencoder",
    "PatchEmbedding",
    "ResNet18",
    "TextEmbedding",
    "Transformer",
    "TransformerBlock",
    "audio_resnet18",
    "cache_features",
    "clip_image_converter",
    "clip_image_encoder",
    "clip_text_encoder",
    "clip_tokenizer",
    "convert_cavmae",
    "convert_m3ae",
    "convert_resnet18",
    "hub_image_encoder",
    "hub_text_encoder",
    "patchify",
    "read_checkpoint",
    "resize_positions",
    "unpatchify",
    "video_resnet18",
]
