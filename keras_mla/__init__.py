"""Multimodal learning by alternating unimodal adaptation, for Keras 3.

>>> model = keras_mla.MLA(encoders={"image": ..., "text": ...}, head=101)

The parts: `models` (MLA and its base class), `layers` (gradient projection and
fusion), `callbacks`, `analysis` (figures).
"""

from keras_mla import layers as layers
from keras_mla import models as models
from keras_mla.models.mla import MLA as MLA

__version__ = "0.1.0"

__all__ = ["MLA", "__version__", "layers", "models"]
