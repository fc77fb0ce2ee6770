"""Callbacks: exact resumption, and the state of the projection P."""

from keras_mla.callbacks.epoch_seed import EpochSeed as EpochSeed
from keras_mla.callbacks.projector import ProjectorReset as ProjectorReset
from keras_mla.callbacks.projector import ProjectorTrace as ProjectorTrace

__all__ = ["EpochSeed", "ProjectorReset", "ProjectorTrace"]
