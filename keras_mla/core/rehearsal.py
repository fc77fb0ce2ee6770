"""Updates that are made one at a time, measured and undone."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from keras import ops

from keras_mla.backend import step
from keras_mla.core.update import Stage, Update


class Rehearsal:
    """Makes single updates of a compiled model, and undoes them.

    An update is made by the model's own compiled step, so that optimizer,
    projection and loss scaling take part. Afterwards all variables hold the
    values that they had before, to the last bit: weights, the optimizer's
    state, metrics and the states of random generators. A callback may use it
    while `fit` runs.

    Args:
        model: A compiled multimodal model.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._trains: dict[tuple[int, str], Any] = {}
        self._tests: dict[int, Any] = {}
        self._stages: list[Stage] = []
        self._stage = 0
        self._start: Any = None

    @contextlib.contextmanager
    def undone(self) -> Iterator[Sequence[Update]]:
        """Yields the current updates, and restores the model at the end."""
        model, plan = self.model, self.model.plan
        self._stages = plan.stages or self._stages or list(model.stages())
        self._stage = plan.stage
        of_plan = {n: getattr(plan, n) for n in ("stages", "tested", "stage")}
        names = ("train_function", "test_function", "steps_per_execution")
        of_model = {name: getattr(model, name) for name in names}
        # On JAX it also brings the weights back while `fit` runs.
        with step.keeping_weights(model), step.keeping_randomness():
            if not model.optimizer.built:
                model.optimizer.build(model.trainable_variables)
            before = [(v, _copied(v)) for v in _variables(model)]
            self._start = _copied(model.optimizer.iterations)
            try:
                model.steps_per_execution = 1
                yield self._stages[self._stage].updates
            finally:
                for name, value in of_plan.items():
                    setattr(plan, name, value)
                for name, value in of_model.items():
                    setattr(model, name, value)
                if len(_variables(model)) > len(before):
                    model.reset_metrics()  # The first batch has built them.
                for variable, value in before:
                    variable.assign(value)

    def make(self, update: Update, x: Any, y: Any) -> None:
        """Makes one update on a batch, within `undone`."""
        model, plan = self.model, self.model.plan
        plan.stages, plan.stage = [Stage([update])], 0
        key = self._stage, update.name
        if key not in self._trains:
            model.make_train_function(force=True)
            self._trains[key] = model.train_function
        model.train_function = self._trains[key]
        # All updates of a batch see the same count of batches.
        model.optimizer.iterations.assign(self._start)
        model.train_on_batch(x, y)

    def losses(self, x: Any, y: Any) -> dict[str, float]:
        """Returns the loss of each modality on a batch, within `undone`."""
        model, plan = self.model, self.model.plan
        plan.stages, plan.stage = self._stages, self._stage
        plan.tested = self._stages
        if self._stage not in self._tests:
            model.make_test_function(force=True)
            self._tests[self._stage] = model.test_function
        model.test_function = self._tests[self._stage]
        model.reset_metrics()
        logs = model.test_on_batch(x, y, return_dict=True)
        return {name: float(logs[f"{name}_loss"]) for name in model.modalities}


def _variables(model: Any) -> list:
    """Returns each variable of a model, its optimizer and its metrics."""
    found = [
        *model.variables,
        *model.optimizer.variables,
        *model.metrics_variables,
    ]
    return list({id(v): v for v in found}.values())


def _copied(variable: Any) -> np.ndarray:
    # The compiled step may use the variable's memory for its results.
    return np.array(ops.convert_to_numpy(variable.value))
