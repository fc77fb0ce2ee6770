"""Rows that fill a batch up, so that all devices get equally many."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_mla.backend.distribution.common import add_rows
from keras_mla.core.arrays import full_presence
from keras_mla.core.batch import COUNTED
from keras_mla.presence import stack_presence


def fill_up(modalities: Sequence[str], data: Any, parts: int) -> Any:
    """Adds rows to a batch that do not count, up to a multiple of `parts`.

    An added row is a copy of the last one. It has no modality, so it counts in
    no loss, metric, mean feature or fusion weight.

    Args:
        modalities: Names of the modalities, in the model's order.
        data: `(x, y)` or `(x, y, sample_weight)`, of arrays.
        parts: int. The number of parts of the batch.

    Returns:
        The batch itself if `parts` divides it.

    Raises:
        ValueError: If the batch is unpaired, or `x` is not a dict.
    """
    leaves = [leaf for leaf in keras.tree.flatten(data) if leaf is not None]
    rows = [int(leaf.shape[0]) for leaf in leaves]
    if not any(n % parts for n in rows):
        return data
    x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if not isinstance(x, dict) or isinstance(y, dict) or len(set(rows)) > 1:
        raise ValueError(
            f"{parts} devices share each batch, so each modality's rows must "
            f"be a multiple of {parts} in unpaired data (`y` a dict): choose "
            "such a batch size, and drop the remainder. (Paired data may have "
            f"any number of rows.) Received: batches of {sorted(set(rows))} "
            "rows"
        )
    more = -rows[0] % parts
    counted = np.arange(rows[0] + more) < rows[0]
    if x.get("presence") is not None:
        presence = stack_presence(modalities, x["presence"])
        x = {**x, "presence": presence}
    presence = add_rows(full_presence(modalities, x), more)
    x = add_rows({k: v for k, v in x.items() if k != "presence"}, more)
    x |= {"presence": presence & counted[:, None], COUNTED: counted}
    return (x, *add_rows((y, sample_weight), more))
