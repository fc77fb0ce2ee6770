"""The registry of methods, with the facts that comparisons and tests need."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.core import MultimodalModel
from keras_mla.core.arrays import full_presence
from keras_mla.layers import GradientProjector
from keras_mla.models.balanced.dgl import DGL
from keras_mla.models.balanced.joint_mla import JointMLA
from keras_mla.models.balanced.mla import MLA
from keras_mla.models.balanced.mlb import MLB
from keras_mla.models.balanced.mm_pareto import MMPareto
from keras_mla.models.balanced.ogm_ge import OGMGE
from keras_mla.models.balanced.tcmax import TCMax
from keras_mla.models.balanced.uni_pre import UniPre
from keras_mla.models.joint.bigated import BiGated
from keras_mla.models.joint.concat_fusion import ConcatFusion
from keras_mla.models.joint.film import FiLM
from keras_mla.models.joint.sum_fusion import SumFusion
from keras_mla.models.joint.transformer_fusion import TransformerFusion
from keras_mla.models.late.late_fusion import LateFusion
from keras_mla.models.late.multi_loss import MultiLossFusion
from keras_mla.models.late.qmf import QMF
from keras_mla.models.late.unimodal_ensemble import UnimodalEnsemble
from keras_mla.models.missing.ae_fusion import AEFusion
from keras_mla.models.missing.cca import CCA
from keras_mla.models.missing.cpm_net import CPMNet
from keras_mla.models.missing.cra import CRA
from keras_mla.models.missing.dcca import DCCA
from keras_mla.models.missing.dccae import DCCAE
from keras_mla.models.missing.if_mmin import IFMMIN, InvariantFusion
from keras_mla.models.missing.mmin import MMIN
from keras_mla.models.missing.tate import TATE, TagFusion

# What a method may require of the data or of its user.
NEEDS = (
    "sample_id",  # `x["sample_id"]` in training.
    "num_samples",  # The number of training samples, in the constructor.
    "complete",  # Training samples that have all modalities.
    "adapt",  # A call of `adapt` before `fit`.
    "teacher",  # A fitted model of another method, in the constructor.
    "frozen",  # Encoders that do not train.
)


@dataclasses.dataclass(frozen=True)
class Method:
    """A method, with the facts that comparisons need.

    Attributes:
        cls: The class.
        title: The name in tables.
        family: `"joint"`, `"late"`, `"balanced"` or `"missing"`: the folder
            of the class.
        paper: Authors and venue of the publication.
        fewest_modalities: int. The smallest number of modalities that the
            method accepts. Defaults to `1`.
        needs: tuple of requirements, each one of `NEEDS`.
        grid: dict from each setting that is worth choosing on validation data
            to the values to try. The first value is the default.
        arguments: Function that turns settings of the grid into arguments of
            the constructor. Defaults to the settings themselves.
        defaults: dict of constructor arguments that a comparison should pass.
        teacher: Name of the method whose fitted model is the teacher, or
            `None`. Defaults to `None`.
        of_teacher: Function of the teacher, `head` and further arguments that
            makes a model with the teacher's encoders, in place of the
            constructor. Defaults to `None`.
        calibration: The `method` of `model.calibrate` that belongs to the
            method and follows its training, or `None`. Defaults to `None`.
    """

    cls: type[MultimodalModel]
    title: str
    family: str
    paper: str
    fewest_modalities: int = 1
    needs: tuple[str, ...] = ()
    grid: Mapping[str, Sequence] = dataclasses.field(default_factory=dict)
    arguments: Callable[..., dict] = dict
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    teacher: str | None = None
    of_teacher: Callable[..., MultimodalModel] | None = None
    calibration: str | None = None

    def __post_init__(self) -> None:
        unknown = set(self.needs) - set(NEEDS)
        if unknown:
            raise ValueError(
                f"Each name in `needs` must be one of {list(NEEDS)}. "
                f"Received: {sorted(unknown)}"
            )

    @property
    def name(self) -> str:
        """Name of the class."""
        return self.cls.__name__

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the method supports."""
        return self.cls.tasks

    @property
    def whole_batch(self) -> str:
        """Why no devices or micro-batches can share a batch, or `""`."""
        return self.cls.whole_batch

    def make(
        self,
        encoders: Mapping,
        head: Any,
        num_samples: int | None = None,
        settings: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> MultimodalModel:
        """Returns a model of the method.

        Args:
            encoders: dict of modality to encoder. If the method needs frozen
                encoders, they are frozen.
            head: Number of classes, or a layer.
            num_samples: int. The number of training samples. Only some
                methods need it.
            settings: dict of values for settings of the grid.
            **kwargs: Further arguments of the constructor.

        Raises:
            ValueError: If the method needs `num_samples` and it is not given.
        """
        if "num_samples" in self.needs:
            if num_samples is None:
                raise ValueError(
                    f"{self.name} needs the number of training samples: pass "
                    "`num_samples`."
                )
            kwargs["num_samples"] = num_samples
        if "frozen" in self.needs:
            for encoder in encoders.values():
                encoder.trainable = False
        own = self.arguments(**(settings or {}))
        kwargs = {**self.defaults, **own, **kwargs}
        if self.of_teacher is not None:
            return self.of_teacher(kwargs.pop("teacher"), head=head, **kwargs)
        return self.cls(encoders, head, **kwargs)

    def prepare(
        self, model: MultimodalModel, x: Mapping[str, Any], *labels: Any
    ) -> tuple:
        """Does what comes before `fit`: numbers samples, chooses, adapts.

        Args:
            model: A model of the method.
            x: dict of modality to array; presence is an array or left out.
            *labels: Arrays of labels and sample weights, or `None`.

        Returns:
            tuple of the inputs and the labels that `fit` is to have.
        """
        arrays: Any = ({**x, "sample_id": np.arange(len(labels[0]))}, *labels)
        if "complete" in self.needs:
            rows = full_presence(model.modalities, arrays[0]).all(axis=1)
            arrays = keras.tree.map_structure(
                lambda a: None if a is None else a[rows], arrays
            )
        if "adapt" in self.needs:
            model.adapt(arrays[:2])
        return arrays


def _projector(**settings: Any) -> dict:
    return {"projector": GradientProjector(**settings)} if settings else {}


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            SumFusion,
            "Sum",
            "joint",
            "Zhang et al., CVPR 2024, section 4.1",
        ),
        Method(
            ConcatFusion,
            "Concat",
            "joint",
            "Peng et al., CVPR 2022, section 3.1",
        ),
        Method(
            LateFusion,
            "Late fusion",
            "late",
            "Gunes and Piccardi, SMC 2005",
        ),
        Method(
            FiLM,
            "FiLM",
            "joint",
            "Perez et al., AAAI 2018",
            fewest_modalities=2,
        ),
        Method(
            BiGated,
            "BiGated",
            "joint",
            "Kiela et al., AAAI 2018",
            fewest_modalities=2,
        ),
        Method(
            TransformerFusion,
            "Transformer",
            "joint",
            "Vaswani et al., NeurIPS 2017",
        ),
        Method(
            OGMGE,
            "OGM-GE",
            "balanced",
            "Peng et al., CVPR 2022",
            fewest_modalities=2,
            grid={"alpha": (0.8, 0.4, 0.1)},
        ),
        Method(
            QMF,
            "QMF",
            "late",
            "Zhang et al., ICML 2023",
            needs=("sample_id", "num_samples"),
            grid={"rank_weight": (0.1, 1.0)},
        ),
        Method(
            MultiLossFusion,
            "Multi-loss",
            "late",
            "Wang et al., CVPR 2020, Eq. 3",
        ),
        Method(
            UnimodalEnsemble,
            "Ensemble",
            "late",
            "Du et al., ICML 2023",
            defaults={"monitor": "accuracy"},
        ),
        Method(
            MLB,
            "MLB",
            "balanced",
            "Kontras et al., BMVC 2024",
            fewest_modalities=2,
            grid={"alpha": (1.0, 0.5, 2.0), "beta": (2.0, 10.0)},
        ),
        Method(
            DGL,
            "DGL",
            "balanced",
            "Wei et al., ICCV 2025",
            grid={"alpha": (2.0, 5.0, 3.0)},
        ),
        Method(
            MMPareto,
            "MMPareto",
            "balanced",
            "Wei and Hu, ICML 2024",
        ),
        Method(
            TCMax,
            "TCMax",
            "balanced",
            "Yu et al., ICLR 2026",
        ),
        Method(
            JointMLA,
            "Joint MLA",
            "balanced",
            "this library",
            grid={"alpha": (1.0, 10.0, 100.0)},
            arguments=_projector,
        ),
        Method(
            UniPre,
            "Uni-Pre",
            "balanced",
            "Du et al., ICML 2023",
            needs=("teacher",),
            grid={"frozen": (True, False)},
            teacher="UnimodalEnsemble",
            of_teacher=UniPre.on_encoders_of,
        ),
        Method(
            CCA,
            "CCA",
            "missing",
            "Hotelling, Biometrika 1936",
            fewest_modalities=2,
            needs=("adapt", "frozen"),
            grid={"width": (10, 2, 20)},
        ),
        Method(
            DCCA,
            "DCCA",
            "missing",
            "Andrew et al., ICML 2013",
            fewest_modalities=2,
            grid={"width": (10, 2, 20)},
        ),
        Method(
            DCCAE,
            "DCCAE",
            "missing",
            "Wang et al., ICML 2015",
            fewest_modalities=2,
            grid={"width": (10, 2, 20)},
        ),
        Method(
            CPMNet,
            "CPM-Net",
            "missing",
            "Zhang et al., NeurIPS 2019",
            needs=("sample_id", "num_samples", "frozen"),
            grid={"margin_weight": (1.0, 10.0)},
        ),
        Method(
            AEFusion,
            "AE",
            "missing",
            "Bengio et al., NeurIPS 2006",
            fewest_modalities=2,
            grid={"reconstruction_weight": (1.0, 10.0)},
        ),
        Method(
            CRA,
            "CRA",
            "missing",
            "Tran et al., CVPR 2017",
            fewest_modalities=2,
            grid={"reconstruction_weight": (1.0, 10.0)},
        ),
        Method(
            MMIN,
            "MMIN",
            "missing",
            "Zhao et al., ACL 2021",
            fewest_modalities=2,
            needs=("teacher",),
            grid={"reconstruction_weight": (4.0, 1.0)},
            teacher="ConcatFusion",
        ),
        Method(
            InvariantFusion,
            "IF-MMIN, first stage",
            "missing",
            "Zuo et al., ICASSP 2023",
            fewest_modalities=2,
        ),
        Method(
            IFMMIN,
            "IF-MMIN",
            "missing",
            "Zuo et al., ICASSP 2023",
            fewest_modalities=2,
            needs=("teacher",),
            grid={"reconstruction_weight": (1.0, 4.0)},
            teacher="InvariantFusion",
        ),
        Method(
            TagFusion,
            "TATE, first stage",
            "missing",
            "Zeng et al., SIGIR 2022",
            fewest_modalities=2,
        ),
        Method(
            TATE,
            "TATE",
            "missing",
            "Zeng et al., SIGIR 2022",
            fewest_modalities=2,
            needs=("teacher",),
            grid={"teacher_weight": (0.1, 1.0)},
            teacher="TagFusion",
        ),
        # Last: what runs one case on a backend runs it.
        Method(
            MLA,
            "MLA",
            "balanced",
            "Zhang et al., CVPR 2024",
            grid={"alpha": (1.0, 10.0, 100.0)},
            arguments=_projector,
        ),
    )
}

# What to try first: `experiments/README.md` says why.
RECOMMENDED = Method(
    MLA,
    "Recommended",
    "balanced",
    "this library",
    defaults={"projector": None},
    calibration="joint",
)
