"""Unpaired training: each modality with its own samples and labels."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_mla.datasets import extras

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "unpaired",
]


def unpaired(
    datasets: Mapping[str, "tf.data.Dataset"],
    batch_size: int = 32,
    length: str = "longest",
) -> "tf.data.Dataset":
    """Joins one dataset per modality into batches for unpaired training.

    Each batch holds samples of every modality, which need not belong
    together: `({m: x_m}, {m: y_m})`, as `keras_mla` models take them. The
    datasets may differ in length. With `length="longest"` an epoch goes once
    through the longest dataset. The shorter datasets start again, shuffled
    anew if they shuffle. With `"shortest"` an epoch ends with the shortest
    dataset.

    Args:
        datasets: dict of modality name to `tf.data.Dataset` of `(x, y)`,
            single samples, in the order of the model's modalities. Shuffle
            each dataset before. A modality's `x` may also be `{modality: x}`,
            as the `load` functions of `keras_mla.datasets` give it with
            `batch_size=None` and `modalities=[modality]`.
        batch_size: int. Samples of each modality in a batch. Defaults to
            `32`.
        length: `"longest"` or `"shortest"`. Defaults to `"longest"`.

    Returns:
        `tf.data.Dataset` of `({m: x_m}, {m: y_m})`. All batches have
        `batch_size` samples of each modality. Only the last batch can have
        fewer samples of the modality that ends the epoch.

    Raises:
        ValueError: If there is no dataset, a dataset is empty or endless, or
            its elements are not `(x, y)`.
        ImportError: If TensorFlow is not installed.

    Example:
    >>> import tensorflow as tf
    >>> from keras_mla.datasets import unpaired
    >>> slices = tf.data.Dataset.from_tensor_slices
    >>> sounds = slices((np.zeros((9, 40)), np.zeros(9, "int32")))
    >>> images = slices((np.zeros((5, 64)), np.zeros(5, "int32")))
    >>> batches = unpaired.unpaired({"audio": sounds, "image": images}, 4)
    >>> [tuple(x["image"].shape) for x, y in batches]
    [(4, 64), (4, 64), (4, 64)]
    """
    tf = extras.need(
        "tensorflow", "join datasets of tf.data", "use `UnpairedDataset`"
    )
    if not datasets:
        raise ValueError("There must be a dataset for at least one modality.")
    if length not in ("longest", "shortest"):
        raise ValueError(
            '`length` must be "longest" or "shortest". '
            f"Received: length={length!r}"
        )
    counts = {name: _count(name, data) for name, data in datasets.items()}
    pick = max if length == "longest" else min
    steps = -(-pick(counts.values()) // batch_size)

    parts = {}
    for name, data in datasets.items():
        data = data.map(_own_input(name, data))
        if length == "longest" and counts[name] < max(counts.values()):
            data = data.repeat()
        parts[name] = data.batch(batch_size)

    def split(batch: dict) -> tuple[dict[str, Any], dict[str, Any]]:
        return (
            {name: batch[name][0] for name in datasets},
            {name: batch[name][1] for name in datasets},
        )

    joined = tf.data.Dataset.zip(parts).map(split).take(steps)
    joined = joined.apply(tf.data.experimental.assert_cardinality(steps))
    return joined.prefetch(tf.data.AUTOTUNE)


def _count(name: str, dataset: "tf.data.Dataset") -> int:
    tf = extras.need("tensorflow", "join datasets of tf.data")
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(
            f"The dataset of {name!r} must give tuples (x, y). "
            f"Received: element_spec={spec}"
        )
    count = int(dataset.cardinality())
    if count == tf.data.UNKNOWN_CARDINALITY:
        count = sum(1 for _ in dataset)
    if count == tf.data.INFINITE_CARDINALITY or count == 0:
        raise ValueError(
            f"The dataset of {name!r} must be finite and hold at least one "
            f"sample. Received: cardinality={count}"
        )
    return count


def _own_input(name: str, dataset: "tf.data.Dataset") -> Any:
    x = dataset.element_spec[0]
    if isinstance(x, Mapping) and set(x) == {name}:
        return lambda x, y: (x[name], y)
    return lambda x, y: (x, y)
