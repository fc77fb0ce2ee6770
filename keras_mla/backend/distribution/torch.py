"""Distribution on PyTorch: a process sees its own batch."""

from typing import Any

import torch

from keras_mla.backend.distribution.common import weighted_mean


def global_mean(values: Any, weights: Any | None) -> Any:
    """Returns the mean over the process's own batch, as `weighted_mean`."""
    return values.mean(0) if weights is None else weighted_mean(values, weights)


def check_processes() -> None:
    """Raises if several processes would each train a model.

    Raises:
        RuntimeError: If `torch.distributed` runs more than one process.
    """
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return
    if distributed.get_world_size() > 1:
        raise RuntimeError(
            "keras_mla does not train in several processes on PyTorch yet: "
            "each process would train a model of its own. Train in one "
            "process, or use the JAX backend for several devices. Received: "
            f"{distributed.get_world_size()} processes in `torch.distributed`"
        )
