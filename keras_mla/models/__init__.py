"""Multimodal models: MLA, what it compares with, and their base class."""

from keras_mla.models.base import MultimodalClassifier as MultimodalClassifier
from keras_mla.models.bigated import BiGated as BiGated
from keras_mla.models.film import FiLM as FiLM
from keras_mla.models.joint import ConcatFusion as ConcatFusion
from keras_mla.models.joint import SumFusion as SumFusion
from keras_mla.models.late_fusion import LateFusion as LateFusion
from keras_mla.models.late_fusion import UnimodalEnsemble as UnimodalEnsemble
from keras_mla.models.losses import MeanLoss as MeanLoss
from keras_mla.models.mla import MLA as MLA
from keras_mla.models.multi_loss import MultiLossFusion as MultiLossFusion
from keras_mla.models.ogm_ge import OGMGE as OGMGE
from keras_mla.models.qmf import QMF as QMF
from keras_mla.models.trainer import Outputs as Outputs
from keras_mla.models.trainer import Update as Update

__all__ = [
    "MLA",
    "OGMGE",
    "QMF",
    "BiGated",
    "ConcatFusion",
    "FiLM",
    "LateFusion",
    "MeanLoss",
    "MultiLossFusion",
    "MultimodalClassifier",
    "Outputs",
    "SumFusion",
    "UnimodalEnsemble",
    "Update",
]
