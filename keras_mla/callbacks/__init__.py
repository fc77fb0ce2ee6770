"""Callbacks: exact resumption, the projection P, and interference."""

from keras_mla.callbacks.epoch_seed import EpochSeed as EpochSeed
from keras_mla.callbacks.interference import Interference as Interference
from keras_mla.callbacks.projector import ProjectorReset as ProjectorReset
from keras_mla.callbacks.projector import ProjectorTrace as ProjectorTrace

__all__ = ["EpochSeed", "Interference", "ProjectorReset", "ProjectorTrace"]
