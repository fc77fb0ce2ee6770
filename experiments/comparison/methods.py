"""The methods to compare, and their settings to choose on validation."""

from collections.abc import Callable
from typing import Any, NamedTuple

from keras_mla import models
from keras_mla.layers import AverageFusion, EntropyFusion, GradientProjector
from keras_mla.models import registry


class Method(NamedTuple):
    """One row of a table.

    Attributes:
        make: Called with encoders, classes, the number of training samples
            and the method's own parameters; returns a model.
        grid: Values of the method's own parameters to choose from.
    """

    make: Callable[..., models.MultimodalModel]
    grid: dict[str, list]


def _registered(method: registry.Method) -> Method:
    def make(encoders: dict, classes: int, samples: int, **own: Any) -> Any:
        return method.make(encoders, classes, samples, own)

    return Method(
        make, {name: [*values] for name, values in method.grid.items()}
    )


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


# Table 1: the paper's methods, and the two controls to beat.
TABLE = {m.title: _registered(m) for m in registry.METHODS.values()}
ALPHAS = TABLE["MLA"].grid

# Table 3: MLA without some of its parts, and with each of its settings.
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
    """Returns methods by name; `table` and `ablation` name all of theirs.

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
