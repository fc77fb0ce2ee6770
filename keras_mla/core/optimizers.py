"""Checks of optimizers, and the scaling of their steps."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from keras import ops

from keras_mla.backend import internals


def check_optimizer(
    optimizer: Any, updates: int, multiplier: dict[str, float]
) -> None:
    """Raises if `optimizer` cannot make several updates of a batch."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if multiplier and optimizer.use_ema:
        raise ValueError(
            "`learning_rate_multiplier` and an optimizer with `use_ema=True` "
            "exclude each other: the moving average would include the steps "
            "before they are scaled. Use an optimizer without `use_ema`."
        )
    if multiplier and _is_a(optimizer, "ScheduleFreeAdamW"):
        raise ValueError(
            "`learning_rate_multiplier` and ScheduleFreeAdamW exclude each "
            "other: the optimizer keeps weights of its own, which would not "
            "be scaled. Use AdamW."
        )
    if updates == 1:
        return
    name = type(optimizer).__name__
    if getattr(optimizer, "gradient_accumulation_steps", None):
        raise ValueError(
            "`gradient_accumulation_steps` is not supported with one update "
            "per modality: it would accumulate steps of different modalities. "
            "Use a larger batch, and `compile(micro_batches=...)`, which "
            "computes it in parts. Received: "
            f"gradient_accumulation_steps="
            f"{optimizer.gradient_accumulation_steps}"
        )
    reasons = {
        "Nadam": "its momentum schedule is one product shared by all "
        "weights, which every modality's update would decay again. "
        "Use `Adam`",
        "MultiOptimizer": "it needs the gradients of all weights at once. "
        "Use one optimizer, with `learning_rate_multiplier` if parts of the "
        "model need different rates",
    }
    for refused, reason in reasons.items():
        if _is_a(optimizer, refused):
            raise ValueError(
                f"The optimizer {name} cannot be used with one update per "
                f"modality: {reason}. Received: optimizer={name}"
            )


def check_average(optimizer: Any, updates: int, presence: Any | None) -> None:
    """Raises if a moving average of weights would miss updates.

    Keras takes the average in an optimizer's step. With several updates it is
    taken only in the last one, which a batch may skip.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if optimizer.use_ema and updates > 1 and presence is not None:
        raise ValueError(
            "An optimizer with `use_ema=True` cannot be used with "
            "x['presence'] and one update per modality: the average is taken "
            "in the last modality's update, which is skipped if no sample has "
            "the modality. Use an optimizer without `use_ema`. (Batches that "
            "the devices of a `keras.distribution` do not divide are filled up "
            "with absent rows: choose a batch size that they divide, and drop "
            "the remainder.)"
        )


def _is_a(optimizer: Any, name: str) -> bool:
    return any(base.__name__ == name for base in type(optimizer).__mro__)


def check_optimized(optimizer: Any, updates: Any) -> None:
    """Raises unless an optimizer knows all variables of the updates."""
    if not optimizer.built:
        return
    known = {id(v) for v in internals.optimized_variables(optimizer)}
    for update in updates:
        for variable in update.variables:
            if id(variable) not in known:
                raise ValueError(
                    f"The optimizer does not know the weight {variable.path!r}"
                    ", which has become trainable since the optimizer was "
                    "first used. Compile the model with a new optimizer."
                )


def check_moved(variables: Any, updates: Any) -> None:
    """Warns if no update moves a trainable variable."""
    moved = {id(v) for update in updates for v in update.variables}
    left = [v.path for v in variables if id(v) not in moved]
    if left:
        warnings.warn(
            "No update moves these trainable variables, so they stay as they "
            f"are: {', '.join(left[:5])}{', ...' if len(left) > 5 else ''}. "
            "Name their layers in an `Update`, or set `trainable=False`.",
            stacklevel=2,
        )


def check_multiplier(multiplier: Any, parts: list[str]) -> dict[str, float]:
    """Returns `learning_rate_multiplier` as a checked dict."""
    if multiplier is None:
        return {}
    if not isinstance(multiplier, Mapping):
        raise ValueError(
            "`learning_rate_multiplier` must be a dict with some of the keys "
            f"{parts}. Received: {multiplier}"
        )
    for name, value in multiplier.items():
        if name not in parts:
            raise ValueError(
                f"`learning_rate_multiplier` has the unknown key {name!r}. "
                f"The parts of this model are {parts}."
            )
        if not value >= 0:
            raise ValueError(
                "A learning-rate multiplier must be at least 0. "
                f"Received: {name!r}: {value}"
            )
    return {name: float(value) for name, value in multiplier.items()}


@contextlib.contextmanager
def average_paused(optimizer: Any, paused: bool) -> Iterator[None]:
    """Leaves an optimizer's moving average of weights out of a step.

    The average covers all weights, so it is taken once per batch, in the last
    update.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    if not (paused and optimizer.use_ema):
        yield
        return
    optimizer.use_ema = False
    try:
        yield
    finally:
        optimizer.use_ema = True


@contextlib.contextmanager
def scaled_steps(variables: list, factor_of: Callable) -> Iterator[None]:
    """Scales the changes that an optimizer's step makes to variables.

    Keras applies a variable's constraint in the step. Here it is applied after
    the step is scaled.

    Args:
        variables: The variables that the step moves.
        factor_of: Function from a variable to its factor.
    """
    scaled = []
    for variable in variables:
        factor = factor_of(variable)
        if factor != 1:
            constraint = variable.constraint
            variable.constraint = None
            before = ops.copy(variable.value)
            scaled.append((variable, factor, before, constraint))
    try:
        yield
    finally:
        for variable, _, _, constraint in scaled:
            variable.constraint = constraint
    for variable, factor, before, constraint in scaled:
        variable.assign(before + factor * (variable.value - before))
        if constraint is not None:
            variable.assign(constraint(variable.value))
