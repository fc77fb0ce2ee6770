"""The methods that are compared, and what of each is chosen on validation."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras_mla import models
from keras_mla.layers import AverageFusion, EntropyFusion, GradientProjector


class Method(NamedTuple):
    """One row of a table.

    Attributes:
        make: Called with encoders, classes, the number of training samples
            and the method's own parameters; returns a model.
        grid: Values of the method's own parameters to choose from.
    """

    make: Callable[..., models.MultimodalModel]
    grid: dict[str, list]


def _plain(method: type) -> Callable[..., models.MultimodalModel]:
    def make(encoders: dict, classes: int, samples: int, **own: Any) -> Any:
        return method(encoders, classes, **own)

    return make


def _ensemble(encoders: dict, classes: int, samples: int) -> Any:
    return models.UnimodalEnsemble(encoders, classes, monitor="accuracy")


def _qmf(encoders: dict, classes: int, samples: int, **own: Any) -> Any:
    return models.QMF(encoders, classes, num_samples=samples, **own)


def _mla(fusion: type = EntropyFusion, **fixed: Any) -> Callable[..., Any]:
    def make(encoders: dict, classes: int, samples: int, **own: Any) -> Any:
        projector = GradientProjector(**{**fixed, **own})
        return models.MLA(
            encoders, classes, projector=projector, fusion=fusion()
        )

    return make


def _alternating(fusion: type) -> Callable[..., Any]:
    def make(encoders: dict, classes: int, samples: int) -> Any:
        return models.MLA(encoders, classes, projector=None, fusion=fusion())

    return make


ALPHAS = {"alpha": [1.0, 10.0, 100.0]}

# Table 1: the paper's methods, and the two controls to beat.
TABLE = {
    "Sum": Method(_plain(models.SumFusion), {}),
    "Concat": Method(_plain(models.ConcatFusion), {}),
    "Late fusion": Method(_plain(models.LateFusion), {}),
    "FiLM": Method(_plain(models.FiLM), {}),
    "BiGated": Method(_plain(models.BiGated), {}),
    "OGM-GE": Method(_plain(models.OGMGE), {"alpha": [0.1, 0.4, 0.8]}),
    "QMF": Method(_qmf, {"rank_weight": [0.1, 1.0]}),
    "Multi-loss": Method(_plain(models.MultiLossFusion), {}),
    "Ensemble": Method(_ensemble, {}),
    "MLA": Method(_mla(), ALPHAS),
}

# Table 3: parts of MLA left out, and its settings one by one.
ABLATION = {
    "MLA, average": Method(_mla(AverageFusion), ALPHAS),
    "MLA, no projection": Method(_alternating(EntropyFusion), {}),
    "MLA, neither": Method(_alternating(AverageFusion), {}),
    "MLA, previous": Method(_mla(order="previous"), ALPHAS),
    "MLA, forgetting": Method(_mla(forgetting=0.99), ALPHAS),
    **{
        f"MLA, alpha {alpha:g}": Method(_mla(alpha=alpha), {})
        for alpha in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
    },
}

METHODS = {**TABLE, **ABLATION}


def named(names: list[str]) -> dict[str, Method]:
    """Returns methods by name; `table` and `ablation` stand for all of those.

    Raises:
        ValueError: If a name is unknown.
    """
    chosen: dict[str, Method] = {}
    for name in names:
        if name in ("table", "ablation"):
            chosen |= TABLE if name == "table" else ABLATION
        elif name in METHODS:
            chosen[name] = METHODS[name]
        else:
            raise ValueError(
                f"There is no method {name!r}. Known are 'table', 'ablation', "
                f"and {list(METHODS)}."
            )
    return chosen
