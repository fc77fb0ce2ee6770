"""Figures of what a model learns."""

from keras_mla.analysis.history import plot_history as plot_history

__all__ = ["plot_history"]
