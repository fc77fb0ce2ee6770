"""Multimodal models: MLA, and the base class of all methods."""

from keras_mla.models.base import MultimodalClassifier as MultimodalClassifier
from keras_mla.models.mla import MLA as MLA
from keras_mla.models.trainer import Outputs as Outputs
from keras_mla.models.trainer import Update as Update

__all__ = ["MLA", "MultimodalClassifier", "Outputs", "Update"]
