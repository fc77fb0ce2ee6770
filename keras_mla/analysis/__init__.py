"""Diagnostics of trained models: numbers, and figures of the numbers."""

from keras_mla.analysis.fusion import FusionReport as FusionReport
from keras_mla.analysis.fusion import fusion_report as fusion_report
from keras_mla.analysis.history import plot_history as plot_history
from keras_mla.analysis.interference import (
    plot_interference as plot_interference,
)
from keras_mla.analysis.laziness import Laziness as Laziness
from keras_mla.analysis.laziness import laziness as laziness
from keras_mla.analysis.modality_gap import modality_gap as modality_gap
from keras_mla.analysis.modality_gap import (
    plot_modality_gap as plot_modality_gap,
)
from keras_mla.analysis.readout import Readout as Readout
from keras_mla.analysis.readout import linear_readout as linear_readout
from keras_mla.analysis.shapley import Shapley as Shapley
from keras_mla.analysis.shapley import shapley_values as shapley_values
from keras_mla.analysis.spectrum import Spectrum as Spectrum
from keras_mla.analysis.spectrum import (
    plot_projection_spectrum as plot_projection_spectrum,
)
from keras_mla.analysis.spectrum import (
    projection_spectrum as projection_spectrum,
)
from keras_mla.analysis.worth import Worth as Worth
from keras_mla.analysis.worth import modality_worth as modality_worth

__all__ = [
    "FusionReport",
    "Laziness",
    "Readout",
    "Shapley",
    "Spectrum",
    "Worth",
    "fusion_report",
    "laziness",
    "linear_readout",
    "modality_gap",
    "modality_worth",
    "plot_history",
    "plot_interference",
    "plot_modality_gap",
    "plot_projection_spectrum",
    "projection_spectrum",
    "shapley_values",
]
