"""Distribution by `torch.distributed`: each process sees its rows of a batch.

Every process makes the same steps. What a step needs of all processes goes in
messages, in an order that depends on nothing but the model.
"""

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import torch

from keras_mla.backend.distribution import common
from keras_mla.backend.distribution.common import (
    STEPS,
    weighted_mean,
    weighted_sum,
)


def num_replicas() -> int:
    """Returns the number of processes that train together."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def worker() -> tuple[int, int]:
    """Returns the index of this process, and the number of processes."""
    replicas = num_replicas()
    return (torch.distributed.get_rank() if replicas > 1 else 0), replicas


def moves_alone() -> bool:
    """Returns whether each process has its own statistics to move."""
    return num_replicas() > 1


@torch.no_grad()
def total(tensors: Sequence[Any]) -> list:
    """Returns the sums of tensors over all processes, sent in one message."""
    tensors = list(tensors)
    if num_replicas() == 1 or not tensors:
        return tensors
    # Ints up to 2 ** 53 are exact in float64.
    whole = any(t.dtype not in _SINGLE for t in tensors)
    dtype = torch.float64 if whole else torch.float32
    message = torch.cat([t.detach().reshape(-1).to(dtype) for t in tensors])
    with _told_why():
        torch.distributed.all_reduce(message)
    parts = message.split([t.numel() for t in tensors])
    return [
        part.reshape(t.shape).to(t.dtype)
        for part, t in zip(parts, tensors, strict=True)
    ]


_SINGLE = (torch.float32, torch.float16, torch.bfloat16, torch.bool)


@torch.no_grad()
def means(groups: Sequence[tuple[list, Any, Any]]) -> list[list]:
    """Returns means over all processes, sent in one message.

    A group is multiplied and divided as a whole: its tensors may be many.
    """
    if num_replicas() == 1:
        return common.means(groups)
    sizes = [sum(t.numel() for t in tensors) for tensors, _, _ in groups]
    numbers = torch.stack([torch.as_tensor(n) for _, _, n in groups])
    message = torch.empty(sum(sizes) + len(groups), device=numbers.device)
    *parts, counts = message.split([*sizes, len(groups)])
    counts.copy_(numbers)
    for part, (tensors, weight, _) in zip(parts, groups, strict=True):
        if not tensors:
            continue
        flat = torch.cat([t.detach().reshape(-1).float() for t in tensors])
        if weight is None:
            part.copy_(flat)
        else:
            torch.mul(flat, weight, out=part)
            # Nothing that is not counted may count as NaN.
            part.masked_fill_(weight <= 0, 0.0)
    with _told_why():
        torch.distributed.all_reduce(message)
    counts.clamp_(min=1)
    found = []
    for part, number, (tensors, _, _) in zip(
        parts, counts, groups, strict=True
    ):
        values = part.div_(number).split([t.numel() for t in tensors])
        found.append(
            [
                value.reshape(t.shape).to(t.dtype)
                for value, t in zip(values, tensors, strict=True)
            ]
        )
    return found


@contextlib.contextmanager
def _told_why() -> Iterator[None]:
    """Says what an error of a message means."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            "A process cannot be reached: it has probably ended. Its own "
            "output says why. All processes must be started again; with a "
            "backup (`keras.callbacks.BackupAndRestore`) they go on from it."
        ) from error


@contextlib.contextmanager
def whole(model: keras.Model) -> Iterator[None]:
    """Gives metrics their sums over processes meanwhile."""
    if num_replicas() == 1:
        yield
        return
    variables = model.metrics_variables
    own = [variable.value for variable in variables]
    if any(value.device.type == "meta" for value in own):
        yield  # Keras builds the metrics.
        return
    for variable, value in zip(variables, total(own), strict=True):
        variable._value = value
    try:
        yield
    finally:
        for variable, value in zip(variables, own, strict=True):
            variable._value = value


def global_mean(values: Any, weights: Any | None) -> Any:
    """Returns the mean over the batch of all processes, of counted rows."""
    if num_replicas() == 1:
        return (
            values.mean(0)
            if weights is None
            else weighted_mean(values, weights)
        )
    sums, count = total(
        [keras.ops.convert_to_tensor(t) for t in weighted_sum(values, weights)]
    )
    return sums / count.clamp(min=1)


# === Processes that must do the same ===


def check_placed(model: keras.Model) -> None:
    """Raises if Keras would share batches among processes by itself.

    Raises:
        RuntimeError: With Keras 3.16 or later, whose trainer wraps a model in
            `DistributedDataParallel`. With 3.16.0.dev2026102704 that failed.
    """
    version = tuple(map(int, keras.__version__.split(".")[:2]))
    if num_replicas() > 1 and version >= (3, 16):
        raise RuntimeError(
            "keras_mla trains in several processes of PyTorch with Keras 3.15: "
            "later versions do it in their own way, which does not know its "
            "updates. Install `keras<3.16`, or use the JAX backend. "
            f"Received: Keras {keras.__version__}"
        )


@torch.no_grad()
def begin(model: keras.Model) -> None:
    """Gives all processes the weights and the optimizer of the first one.

    Raises:
        RuntimeError: If a process has another model, or the step is compiled.
    """
    if num_replicas() == 1:
        return
    if model.jit_compile:
        raise RuntimeError(
            "`jit_compile=True` and several processes of `torch.distributed` "
            "exclude each other: a compiled step cannot send messages. "
            "Compile the model with `jit_compile=False`."
        )
    optimizer = getattr(model, "optimizer", None)
    if model.built and optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_variables)
    of_optimizer = [] if optimizer is None else optimizer.variables
    variables = [*model.variables, *of_optimizer]
    facts = {
        "modalities": list(model.modalities),
        "method": type(model).__name__,
        "optimizer": type(optimizer).__name__,
        "shapes of weights": [tuple(v.shape) for v in variables],
    }
    _check_alike(facts)
    seeds = {id(s) for s in _seed_states(model)}
    by_dtype: dict[Any, list] = {}
    for variable in variables:
        # Each process draws its own dropout.
        if id(variable) not in seeds:
            by_dtype.setdefault(variable.value.dtype, []).append(variable)
    # A dict keeps its order, which must be the same in all processes.
    for of_dtype in by_dtype.values():
        message = torch.cat([v.value.detach().reshape(-1) for v in of_dtype])
        with _told_why():
            torch.distributed.broadcast(message, 0)
        parts = message.split([v.value.numel() for v in of_dtype])
        for variable, part in zip(of_dtype, parts, strict=True):
            variable.value.detach().copy_(part.reshape(variable.value.shape))


def _seed_states(model: keras.Model) -> list:
    return [v for v in model.variables if v.name == "seed_generator_state"]


def first_value(value: float) -> float:
    """Returns a number of the first process."""
    if num_replicas() == 1:
        return value
    return _gathered([value])[0][0]


def meet(step: str, **facts: float) -> None:
    """Waits until all processes are here.

    Args:
        step: One of `STEPS`: what this process does next.
        **facts: Numbers that must be the same in all processes.

    Raises:
        RuntimeError: On every process, if they do not do the same.
    """
    if num_replicas() == 1:
        return
    # The message has one size, for processes that do not do the same.
    message = [STEPS.index(step), *facts.values(), 0, 0]
    found = _gathered(message[:_MOST_FACTS])
    steps = [STEPS[int(numbers[0])] for numbers in found]
    if len(set(steps)) > 1:
        told = ", ".join(f"{i}: {step}" for i, step in enumerate(steps))
        raise RuntimeError(
            "The processes have different numbers of batches, or one of them "
            "was stopped by a callback, or called `evaluate` in one. Each "
            "needs the same number of batches in each epoch, and the same "
            f"callbacks that do this. What each of them is at: {told}"
        )
    for index, name in enumerate(facts):
        values = [numbers[index + 1] for numbers in found]
        if len(set(values)) > 1:
            raise RuntimeError(
                f"The processes differ in {name.replace('_', ' ')}, where they "
                f"must be alike. Received: {values}, process by process"
            )


# Of `meet`: the step and two facts.
_MOST_FACTS = 3


def _gathered(numbers: Sequence[float]) -> list[list[float]]:
    """Returns the numbers of each process.

    They go by the host, so that a GPU's work is not waited for.
    """
    mine = torch.tensor(numbers, dtype=torch.float64)
    found = [torch.empty_like(mine) for _ in range(num_replicas())]
    with _told_why():
        torch.distributed.all_gather(found, mine, group=_host_group())
    return [one.tolist() for one in found]


def _host_group() -> Any:
    """Returns a group of all processes that takes tensors of the host."""
    world = torch.distributed.group.WORLD
    if "nccl" not in torch.distributed.get_backend():
        return world
    if _HOST_GROUPS.get("world") is not world:
        group = torch.distributed.new_group(backend="gloo")
        _HOST_GROUPS.update(world=world, group=group)
    return _HOST_GROUPS["group"]


_HOST_GROUPS: dict[str, Any] = {}


def _check_alike(facts: dict[str, Any]) -> None:
    """Raises if a fact differs between processes."""
    digests = [
        int.from_bytes(hashlib.sha256(repr(f).encode()).digest()[:6], "big")
        for f in facts.values()
    ]
    found = _gathered(digests)
    for index, (name, mine) in enumerate(facts.items()):
        if len({numbers[index] for numbers in found}) > 1:
            raise RuntimeError(
                f"The {name} of the models differ between processes. All must "
                f"make the same model. This process has: {mine!r:.300}"
            )
