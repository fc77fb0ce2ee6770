"""Layers: gradient projection, and fusion of predictions."""

from keras_mla.layers.fusion import AdditiveFusion as AdditiveFusion
from keras_mla.layers.fusion import AverageFusion as AverageFusion
from keras_mla.layers.fusion import EnergyFusion as EnergyFusion
from keras_mla.layers.fusion import EntropyFusion as EntropyFusion
from keras_mla.layers.fusion import Fusion as Fusion
from keras_mla.layers.fusion import (
    InverseVarianceFusion as InverseVarianceFusion,
)
from keras_mla.layers.fusion import PoolFusion as PoolFusion
from keras_mla.layers.fusion import ProductFusion as ProductFusion
from keras_mla.layers.gradient_projector import (
    GradientProjector as GradientProjector,
)

__all__ = [
    "AdditiveFusion",
    "AverageFusion",
    "EnergyFusion",
    "EntropyFusion",
    "Fusion",
    "GradientProjector",
    "InverseVarianceFusion",
    "PoolFusion",
    "ProductFusion",
]
