"""Multimodal models: MLA, and the methods that it is compared with.

`METHODS` is the registry of all methods, keyed by class name.
"""

import warnings
from typing import Any

from keras_mla.core import MeanLoss as MeanLoss
from keras_mla.core import MultimodalModel as MultimodalModel
from keras_mla.core import Outputs as Outputs
from keras_mla.core import Update as Update
from keras_mla.models.balanced.dgl import DGL as DGL
from keras_mla.models.balanced.joint_mla import JointMLA as JointMLA
from keras_mla.models.balanced.mla import MLA as MLA
from keras_mla.models.balanced.mlb import MLB as MLB
from keras_mla.models.balanced.mm_pareto import MMPareto as MMPareto
from keras_mla.models.balanced.ogm_ge import OGMGE as OGMGE
from keras_mla.models.balanced.tcmax import TCMax as TCMax
from keras_mla.models.balanced.uni_pre import UniPre as UniPre
from keras_mla.models.joint.bigated import BiGated as BiGated
from keras_mla.models.joint.concat_fusion import ConcatFusion as ConcatFusion
from keras_mla.models.joint.film import FiLM as FiLM
from keras_mla.models.joint.sum_fusion import SumFusion as SumFusion
from keras_mla.models.joint.transformer_fusion import (
    TransformerFusion as TransformerFusion,
)
from keras_mla.models.late.late_fusion import LateFusion as LateFusion
from keras_mla.models.late.multi_loss import MultiLossFusion as MultiLossFusion
from keras_mla.models.late.qmf import QMF as QMF
from keras_mla.models.late.unimodal_ensemble import (
    UnimodalEnsemble as UnimodalEnsemble,
)
from keras_mla.models.missing.ae_fusion import AEFusion as AEFusion
from keras_mla.models.missing.cca import CCA as CCA
from keras_mla.models.missing.cpm_net import CPMNet as CPMNet
from keras_mla.models.missing.cra import CRA as CRA
from keras_mla.models.missing.dcca import DCCA as DCCA
from keras_mla.models.missing.dccae import DCCAE as DCCAE
from keras_mla.models.missing.if_mmin import IFMMIN as IFMMIN
from keras_mla.models.missing.if_mmin import InvariantFusion as InvariantFusion
from keras_mla.models.missing.mmin import MMIN as MMIN
from keras_mla.models.missing.tate import TATE as TATE
from keras_mla.models.missing.tate import TagFusion as TagFusion
from keras_mla.models.registry import METHODS as METHODS

__all__ = [
    "CCA",
    "CRA",
    "DCCA",
    "DCCAE",
    "DGL",
    "IFMMIN",
    "METHODS",
    "MLA",
    "MLB",
    "MMIN",
    "OGMGE",
    "QMF",
    "TATE",
    "AEFusion",
    "BiGated",
    "CPMNet",
    "ConcatFusion",
    "FiLM",
    "InvariantFusion",
    "JointMLA",
    "LateFusion",
    "MMPareto",
    "MeanLoss",
    "MultiLossFusion",
    "MultimodalModel",
    "Outputs",
    "SumFusion",
    "TCMax",
    "TagFusion",
    "TransformerFusion",
    "UniPre",
    "UnimodalEnsemble",
    "Update",
]


def __getattr__(name: str) -> Any:
    """Returns `MultimodalModel` for its name in version 0.1, with a warning."""
    if name == "MultimodalClassifier":
        warnings.warn(
            "`MultimodalClassifier` is now called `MultimodalModel`.",
            DeprecationWarning,
            stacklevel=2,
        )
        return MultimodalModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
