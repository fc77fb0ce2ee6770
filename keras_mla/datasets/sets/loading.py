"""What `load` of every data set ends with."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import pipeline
from keras_mla.datasets.listing import Sample

if TYPE_CHECKING:
    import tensorflow as tf


def load_split(
    samples: Sequence[Sample],
    readers: Mapping[str, pipeline.Reader],
    split: str,
    modalities: Sequence[str] | None,
    training: bool | None,
    **options: Any,
) -> "tf.data.Dataset | pipeline.Batches":
    """Builds the batches of a split; only `"train"` trains if not told.

    Args:
        samples: The samples of the split.
        readers: dict of modality name to `Reader`, of all modalities.
        split: str. Name of the split.
        modalities: Names of the modalities to read, or `None` for all.
        training: bool. Defaults to whether the split is `"train"`.
        **options: Arguments of `pipeline.build`.
    """
    return pipeline.build(
        samples,
        pipeline.choose(readers, modalities),
        training=split == "train" if training is None else training,
        **options,
    )
