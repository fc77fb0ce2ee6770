"""A trained model as a function for servers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.core import building
from keras_mla.core.requests import Request


class ServingFunction:
    """A model's prediction, for servers.

    `MultimodalModel.serving_function` makes it. Any number of threads may call
    it at once.

    Args:
        modalities: Names of the modalities, in the model's order.
        signature: Shapes and dtypes that the model was built for.
        blank: Function of a modality and a number of rows that returns zeros.
        compute: Function of a dict of checked arrays, that returns a dict of
            arrays.
        outputs: Names of what `compute` returns, in order.
        batch_size: int. The largest number of rows that are computed at once.
        allow_nan: bool. Whether encoders take values that are not finite.

    Attributes:
        modalities: tuple of the names of the modalities.
        inputs: dict from each modality to `{"shape": ..., "dtype": ...}`, in
            which `None` is any size; a dict of these if the modality is one.
        outputs: tuple of the names of the outputs.
        batch_size: As above.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        signature: Mapping[str, Any],
        blank: Callable,
        compute: Callable,
        outputs: Sequence[str],
        batch_size: int,
        allow_nan: bool,
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                "`batch_size` must be at least 1. "
                f"Received: batch_size={batch_size}"
            )
        self.modalities = tuple(modalities)
        self.inputs = building.plain(signature)
        self.batch_size = batch_size
        self._blank = blank
        self._compute = compute
        self._allow_nan = allow_nan
        self.outputs = tuple(outputs)
        # The first call compiles, before there are requests.
        compute({name: blank(name, 1) for name in modalities})

    def __call__(self, x: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """Predicts.

        Args:
            x: dict from modality to an array or nested lists of shape
                `(rows, ...)`. `"presence"` may be there too.

        Raises:
            ValueError: If the input is not as it should be.
        """
        request = Request(
            self.modalities, self.inputs, self._blank, x, self._allow_nan
        )
        found = [self._compute(part) for part in request.parts(self.batch_size)]
        outputs = {
            name: np.concatenate([part[name] for part in found])
            if len(found) > 1
            else found[0][name]
            for name in self.outputs
        }
        if not self._allow_nan and not np.isfinite(outputs["logits"]).all():
            raise ValueError(
                "The model's prediction is not finite: an input is too large, "
                "or is no input of its encoder, such as an unknown token."
            )
        return outputs
