"""Figures of training, and of the features that a model learns."""

from keras_mla.analysis.history import plot_history as plot_history
from keras_mla.analysis.modality_gap import modality_gap as modality_gap
from keras_mla.analysis.modality_gap import (
    plot_modality_gap as plot_modality_gap,
)

__all__ = ["modality_gap", "plot_history", "plot_modality_gap"]
