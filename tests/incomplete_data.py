"""Data that lack modalities, and frozen encoders, for tests of methods."""

import keras
import numpy as np
from utils import WIDTHS, make_data

from keras_mla.datasets import missing

# Not in alphabetical order, in which JAX returns the keys of a dict.
NAMES = ("text", "audio", "image")


def at_rate(samples, rate):
    """Data with presence, NaN where a modality is absent."""
    x, y = make_data(samples, NAMES)
    x["presence"] = missing.missing_presence(
        samples, NAMES, rate, keep_one=False
    )
    for m, name in enumerate(NAMES):
        x[name][~x["presence"][:, m]] = np.nan
    return x, y


def untrained(names=NAMES):
    """Encoders without weights: the features are the inputs."""
    return {
        name: keras.Sequential(
            [keras.Input((WIDTHS[name],)), keras.layers.Identity()]
        )
        for name in names
    }
