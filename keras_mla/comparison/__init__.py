"""Compares methods on data: which one wins, by how much, and how surely."""

from keras_mla.comparison.data import Data as Data
from keras_mla.comparison.engine import compare as compare
from keras_mla.comparison.methods import recommended as recommended
from keras_mla.comparison.rates import Rates as Rates
from keras_mla.comparison.rates import compare_rates as compare_rates
from keras_mla.comparison.results import Comparison as Comparison
from keras_mla.comparison.results import Predictions as Predictions
from keras_mla.comparison.results import Run as Run

__all__ = [
    "Comparison",
    "Data",
    "Predictions",
    "Rates",
    "Run",
    "compare",
    "compare_rates",
    "recommended",
]
