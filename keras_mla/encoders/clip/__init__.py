"""CLIP, by Keras Hub: image and text."""

from keras_mla.encoders.clip.presets import (
    clip_image_converter,
    clip_image_encoder,
    clip_text_encoder,
    clip_tokenizer,
)
from keras_mla.encoders.clip.tokens import CLIPTokens
from keras_mla.encoders.clip.towers import CLIPImageTower, CLIPTextTower

__all__ = [
    "CLIPImageTower",
    "CLIPTextTower",
    "CLIPTokens",
    "clip_image_converter",
    "clip_image_encoder",
    "clip_text_encoder",
    "clip_tokenizer",
]
