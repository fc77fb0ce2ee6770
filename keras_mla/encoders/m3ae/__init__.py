"""M3AE from the original, in Flax and in PyTorch: image and text."""

from keras_mla.encoders.m3ae.autoencoder import M3AEAutoencoder
from keras_mla.encoders.m3ae.convert import convert_m3ae
from keras_mla.encoders.m3ae.encoder import M3AE

__all__ = [
    "M3AE",
    "M3AEAutoencoder",
    "convert_m3ae",
]
