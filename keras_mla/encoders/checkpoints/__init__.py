"""Reads published checkpoints."""

from keras_mla.encoders.checkpoints.read import read_checkpoint

__all__ = [
    "read_checkpoint",
]
