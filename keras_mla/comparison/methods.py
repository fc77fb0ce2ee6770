"""The methods to compare, by name, and the settings to choose from."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras_mla.comparison.names import hint
from keras_mla.core import MultimodalModel
from keras_mla.layers import AverageFusion, EntropyFusion, GradientProjector
from keras_mla.models import MLA, ConcatFusion, TransformerFusion, registry

_ALL = {method.title: method for method in registry.METHODS.values()}
# The methods of the paper's Table 1, and two controls.
TABLE: dict[str, registry.Method] = {
    title: _ALL[title]
    for title in (
        "Sum",
        "Concat",
        "Late fusion",
        "FiLM",
        "BiGated",
        "OGM-GE",
        "QMF",
        "Multi-loss",
        "Ensemble",
        "MLA",
    )
}


def _mla(title: str, fusion: type = EntropyFusion, **fixed: Any) -> Any:
    """Returns MLA with one part changed."""

    def arguments(**own: Any) -> dict[str, Any]:
        projector = GradientProjector(**{**fixed, **own})
        return {"projector": projector, "fusion": fusion()}

    grid = {} if "alpha" in fixed else registry.METHODS["MLA"].grid
    return registry.Method(
        MLA, title, "balanced", "ablation", grid=grid, arguments=arguments
    )


def _alternating(title: str, fusion: type) -> Any:
    """Returns MLA without projection."""

    def arguments() -> dict[str, Any]:
        return {"projector": None, "fusion": fusion()}

    return registry.Method(
        MLA, title, "balanced", "ablation", arguments=arguments
    )


# Table 3: MLA without some of its parts, and with each of its settings.
ABLATION: dict[str, registry.Method] = {
    method.title: method
    for method in (
        _mla("MLA, average", AverageFusion),
        _alternating("MLA, no projection", EntropyFusion),
        _alternating("MLA, neither", AverageFusion),
        _mla("MLA, previous", order="previous"),
        _mla("MLA, forgetting", forgetting=0.99),
        *(
            _mla(f"MLA, alpha {alpha:g}", alpha=alpha)
            for alpha in (0.01, 0.1, 1.0, 10.0, 100.0, 1000.0)
        ),
    )
}


def _control(cls: Any, title: str, **fixed: Any) -> registry.Method:
    """Returns a joint method with a control of missing modalities."""

    def arguments(**own: Any) -> dict[str, Any]:
        return {**fixed, **own}

    grid = {} if fixed else {"modality_dropout": (0.3, 0.5, 0.2)}
    return registry.Method(
        cls, title, "joint", "control", grid=grid, arguments=arguments
    )


# What learns with missing modalities, controls first.
MISSING: dict[str, registry.Method] = {
    "Concat": _ALL["Concat"],
    **{
        method.title: method
        for method in (
            _control(ConcatFusion, "Concat, dropout"),
            _control(ConcatFusion, "Concat, mean", impute="mean"),
            _control(ConcatFusion, "Concat, token", impute="token"),
        )
    },
    "Transformer": _ALL["Transformer"],
    "Transformer, dropout": _control(TransformerFusion, "Transformer, dropout"),
    "Late fusion": _ALL["Late fusion"],
    "Ensemble": _ALL["Ensemble"],
    **{t: method for t, method in _ALL.items() if method.family == "missing"},
    "MLA": _ALL["MLA"],
}
# Successors of MLA, and the controls that are known to be hard to beat.
SUCCESSORS: dict[str, registry.Method] = {
    title: _ALL[title]
    for title in (
        "Late fusion",
        "Multi-loss",
        "Ensemble",
        "Uni-Pre",
        "DGL",
        "MLB",
        "TCMax",
        "MMPareto",
        "MLA",
        "Joint MLA",
    )
}
GROUPS = {
    "recommended": {registry.RECOMMENDED.title: registry.RECOMMENDED},
    "table": TABLE,
    "ablation": ABLATION,
    "missing": MISSING,
    "successors": SUCCESSORS,
}
# What a comparison compares if nothing else is asked for.
DEFAULT = ("recommended", "table")


def recommended(
    encoders: Mapping[str, Any], head: Any, **kwargs: Any
) -> MultimodalModel:
    """Returns the model to try first, by the comparisons of this library.

    It is `MLA` without projection, and its prediction is to be fused by
    `calibrate(method="joint")` once it is trained. Over five data sets, this
    recipe has the smallest mean distance from the best one on validation data:
    0.4 points of accuracy. `experiments/README.md` has the tables, and says
    where another is better.
    `compare` and `keras-mla compare` call it "Recommended".

    Args:
        encoders: dict of modality name to Keras layer or model.
        head: int, the number of classes, labels or targets; or a layer.
        **kwargs: Further arguments of `MLA`.

    Returns:
        A model to compile, to fit and to calibrate.

    Example:
    ```python
    model = keras_mla.comparison.recommended(encoders, head=10)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adamw", loss)
    model.fit(x, y, validation_data=(x_val, y_val), epochs=20)
    model.calibrate((x_val, y_val), method="joint")
    ```
    """
    return registry.RECOMMENDED.make(encoders, head, **kwargs)


def chosen(methods: Any) -> dict[str, registry.Method]:
    """Returns methods by title.

    Args:
        methods: A name, a class, a `registry.Method`, or a sequence of these.
            A name is that of a class (`"ConcatFusion"`) or the one in tables
            (`"Concat"`), in any case; `"table"`, `"ablation"`, `"missing"` and
            `"successors"` name several, `"recommended"` the one to try first.

    Raises:
        ValueError: If a name is unknown; the message suggests the nearest.
        TypeError: If something is no method.
    """
    if isinstance(methods, str | type | registry.Method):
        methods = [methods]
    known = _names()
    found: dict[str, registry.Method] = {}
    for given in methods:
        if isinstance(given, registry.Method):
            found[given.title] = given
        elif isinstance(given, type) and issubclass(given, MultimodalModel):
            own = registry.METHODS.get(given.__name__)
            if own is None or own.cls is not given:
                own = registry.Method(given, given.__name__, "own", "")
            if found.setdefault(own.title, own).cls is not given:
                raise ValueError(
                    f"Two methods have the title {own.title!r}. Give one of "
                    "them another, with `registry.Method`."
                )
        elif not isinstance(given, str):
            raise TypeError(
                "A method must be a name, a subclass of `MultimodalModel`, or "
                f"a `registry.Method`. Received: {given!r}"
            )
        elif _plain(given) in GROUPS:
            found |= GROUPS[_plain(given)]
        elif _plain(given) in known:
            method = known[_plain(given)]
            found[method.title] = method
        else:
            raise ValueError(_unknown(given, known))
    if not found:
        raise ValueError("There are no methods to compare.")
    return found


def _names() -> dict[str, registry.Method]:
    """Returns methods by title and by the name of their class."""
    titles = {**ABLATION, **MISSING, **_ALL}
    names = {_plain(title): m for title, m in titles.items()}
    return names | {_plain(m.name): m for m in _ALL.values()}


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.lower())


def _unknown(given: str, known: Mapping[str, registry.Method]) -> str:
    titles = {name: method.title for name, method in known.items()}
    near = hint(
        _plain(given),
        [*titles, *GROUPS],
        shown=lambda name: titles.get(name, name),
    )
    return (
        f"There is no method {given!r}.{near} Known are {list(GROUPS)}, and "
        f"{sorted(set(titles.values()))}."
    )


@dataclasses.dataclass(frozen=True)
class Grid:
    """The settings that every method may try, beside its own.

    Attributes:
        learning_rate: Values to choose from.
        weight_decay: Values to choose from.
        trials: int. The largest number of settings of each method.
    """

    learning_rate: Sequence[float] = (3e-4, 1e-3, 3e-3)
    weight_decay: Sequence[float] = (1e-4, 1e-2)
    trials: int = 6

    def settings(self, method: registry.Method) -> list[dict[str, Any]]:
        """Returns the settings to try: shared ones, and the method's in turn.

        The first is the default: the middle one of the learning rates, and
        the first value of each of the method's own settings.
        """
        from sklearn.model_selection import ParameterGrid, ParameterSampler

        def sample(grid: Mapping[str, Sequence]) -> list[dict[str, Any]]:
            lists = {name: list(values) for name, values in grid.items()}
            size = min(self.trials, len(ParameterGrid(lists)))
            return list(ParameterSampler(lists, n_iter=size, random_state=0))

        rates = sorted(self.learning_rate)
        default = {
            "learning_rate": rates[len(rates) // 2],
            "weight_decay": list(self.weight_decay)[0],
        }
        shared = sample(
            {
                "learning_rate": self.learning_rate,
                "weight_decay": self.weight_decay,
            }
        )
        shared = [default, *(s for s in shared if s != default)][: self.trials]
        first = {name: list(values)[0] for name, values in method.grid.items()}
        own = sample(method.grid)
        own = [first, *(s for s in own if s != first)][: len(own)]
        # Each whole round of `shared` meets `own` shifted by one more.
        return [
            {
                **shared[index % len(shared)],
                **own[(index + index // len(shared)) % len(own)],
            }
            for index in range(min(self.trials, len(shared) * len(own)))
        ]
