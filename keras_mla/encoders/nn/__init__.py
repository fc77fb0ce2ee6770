"""Parts that encoders are made of."""

from keras_mla.encoders.nn.embeddings import PatchEmbedding, TextEmbedding
from keras_mla.encoders.nn.tokens import (
    patchify,
    resize_positions,
    unpatchify,
)
from keras_mla.layers.transformer import Transformer, TransformerBlock

__all__ = [
    "PatchEmbedding",
    "TextEmbedding",
    "Transformer",
    "TransformerBlock",
    "patchify",
    "resize_positions",
    "unpatchify",
]
