"""The engine on `tf.data`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets import extras
from keras_mla.datasets.pipeline.plan import Plan
from keras_mla.datasets.pipeline.pools import Pools, stack
from keras_mla.datasets.readers.image import ImageSettings

if TYPE_CHECKING:
    import tensorflow as tf

# Batches that are read at the same time, each by all workers.
_AHEAD = 2


def dataset(plan: Plan) -> "tf.data.Dataset":
    """Returns a `tf.data.Dataset` of batches.

    Args:
        plan: `Plan`. What to read.

    Raises:
        ImportError: If TensorFlow is not installed.
    """
    tf = extras.need("tensorflow", 'read data with engine="tensorflow"')
    loader, readers = plan.loader, plan.loader.readers
    names, count = list(readers), len(plan.labels)
    labels = tf.constant(plan.labels)
    parallel = tf.data.AUTOTUNE if plan.workers is None else plan.workers
    maskers = {name: loader.masker(name) for name in names}
    # Nothing here needs a translation of Python's own `if` and `for`.
    plain = tf.autograph.experimental.do_not_convert
    # A call of Python costs tf.data a tenth of the time that a picture takes:
    # where no operation of TensorFlow works on single samples, one call reads
    # a batch.
    whole = (
        plan.batch_size is not None
        and not loader.problems.skip
        and not any(reader.features for reader in readers.values())
    )
    pools = Pools(loader, plan.workers)
    types = [tf.bool, tf.bool] + [
        tf.string if r.dtype == "object" else tf.as_dtype(r.dtype)
        for r in readers.values()
    ]

    def begin() -> tuple[np.ndarray, np.ndarray]:
        epoch = plan.epochs.begin()
        return plan.order(epoch), np.full(count, epoch)

    def load(index: np.int64, epoch: np.int64) -> list[Any]:
        row = loader.read(int(index), int(epoch))
        plan.notes.take([row])
        return [np.bool_(row.fine), row.present, *row.arrays]

    @plain
    def start(_: Any) -> Any:
        # In the graph, so that each iteration and repetition begins an epoch.
        indices, epochs = tf.numpy_function(begin, [], [tf.int64, tf.int64])
        for part in (indices, epochs):
            part.set_shape((count,))
        return tf.data.Dataset.from_tensor_slices((indices, epochs))

    def load_batch(indices: np.ndarray, epochs: np.ndarray) -> list[Any]:
        parts = pools.read(int(epochs[0]), indices)
        rows = [row for part in parts for row in part.result()]
        plan.notes.take(rows)
        arrays = [
            stack([row.arrays[column] for row in rows])
            for column in range(len(names))
        ]
        present = np.stack([row.present for row in rows])
        return [np.bool_(True), present, *arrays]

    @plain
    def read(index: Any, epoch: Any) -> tuple:
        fine, present, *arrays = tf.numpy_function(
            load_batch if whole else load, [index, epoch], types
        )
        lead = (None,) if whole else ()
        fine.set_shape(())
        present.set_shape((*lead, len(names)))
        x = {}
        for (name, reader), array in zip(readers.items(), arrays, strict=True):
            array.set_shape((*lead, *reader.shape))
            value = reader.features(array) if reader.features else array
            mask = None if whole else maskers[name]
            if mask is not None:
                shape = value.shape
                value = tf.numpy_function(
                    mask, [value, index, epoch], value.dtype
                )
                value.set_shape(shape)
            x[name] = value
        if plan.marked and plan.positional:
            x["presence"] = present
        elif plan.marked:
            columns = tf.unstack(present, axis=-1)
            x["presence"] = dict(zip(names, columns, strict=True))
        row = x, tf.gather(labels, index)
        return (fine, *row) if loader.problems.skip else row

    @plain
    def finish(x: dict, label: Any) -> tuple:
        x = dict(x)
        for name, reader in readers.items():
            if _is_normalize(reader.batched):
                # NumPy takes half the time, picture by picture.
                value = tf.numpy_function(
                    reader.batched, [x[name]], tf.float32, stateful=False
                )
                value.set_shape(x[name].shape)
                x[name] = value
            elif reader.batched:
                x[name] = reader.batched(x[name])
        return x, label

    data = tf.data.Dataset.range(1).flat_map(start)
    data = data.apply(tf.data.experimental.assert_cardinality(count))
    size = 1 if plan.batch_size is None else plan.batch_size
    if whole:
        data = data.batch(size).map(read, _AHEAD, deterministic=True)
    else:
        data = data.map(read, parallel, deterministic=True)
        if loader.problems.skip:
            data = data.filter(lambda fine, x, label: fine)
            data = data.map(lambda fine, x, label: (x, label))
        data = data.batch(size)
    if any(reader.batched for reader in readers.values()):
        data = data.map(finish, parallel, deterministic=True)
    if plan.batch_size is None:
        data = data.unbatch()
    data = data.prefetch(tf.data.AUTOTUNE)
    # Operations on small arrays lose more by sharing threads than they win.
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    data = data.with_options(options)
    data.skipped, data.absent = plan.notes.skipped, plan.notes.absent
    data.set_epoch = plan.epochs.set
    return data


def _is_normalize(function: Any) -> bool:
    """Returns whether a function is `normalize` of some `ImageSettings`."""
    return getattr(function, "__func__", None) is ImageSettings.normalize
