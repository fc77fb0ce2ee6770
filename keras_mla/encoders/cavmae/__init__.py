"""CAV-MAE: audio and image."""

from keras_mla.encoders.cavmae.autoencoder import CAVMAEAutoencoder
from keras_mla.encoders.cavmae.convert import convert_cavmae
from keras_mla.encoders.cavmae.encoder import CAVMAE

__all__ = [
    "CAVMAE",
    "CAVMAEAutoencoder",
    "convert_cavmae",
]
