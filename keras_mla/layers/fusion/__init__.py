"""Fusion of the modalities' predictions."""

from keras_mla.layers.fusion.additive import AdditiveFusion as AdditiveFusion
from keras_mla.layers.fusion.average import AverageFusion as AverageFusion
from keras_mla.layers.fusion.base import Fusion as Fusion
from keras_mla.layers.fusion.base import check_task as check_task
from keras_mla.layers.fusion.energy import EnergyFusion as EnergyFusion
from keras_mla.layers.fusion.entropy import EntropyFusion as EntropyFusion
from keras_mla.layers.fusion.inverse_variance import (
    InverseVarianceFusion as InverseVarianceFusion,
)
from keras_mla.layers.fusion.pool import PoolFusion as PoolFusion
from keras_mla.layers.fusion.product import ProductFusion as ProductFusion
