"""The engine on `tf.data`."""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_mla.datasets.pipeline.plan import Plan


def dataset(plan: Plan) -> tf.data.Dataset:
    """Returns a `tf.data.Dataset` of batches.

    Args:
        plan: `Plan`. What to read.
    """
    loader, readers = plan.loader, plan.loader.readers
    names, count = list(readers), len(plan.labels)
    labels = tf.constant(plan.labels)
    parallel = tf.data.AUTOTUNE if plan.workers is None else plan.workers
    maskers = {name: loader.masker(name) for name in names}
    # Nothing here needs a translation of Python's own `if` and `for`.
    plain = tf.autograph.experimental.do_not_convert
    types = [tf.bool, tf.bool] + [
        tf.string if r.dtype == "object" else tf.as_dtype(r.dtype)
        for r in readers.values()
    ]

    def begin() -> tuple[np.ndarray, np.ndarray]:
        epoch = plan.epochs.begin()
        return plan.order(epoch), np.full(count, epoch)

    def load(index: np.int64, epoch: np.int64) -> list[Any]:
        row = loader.read(int(index), int(epoch))
        for problem in row.problems:
            plan.notes.add(*problem)
        return [np.bool_(row.fine), row.present, *row.arrays]

    @plain
    def start(_: Any) -> tf.data.Dataset:
        # In the graph, so that each iteration and repetition begins an epoch.
        indices, epochs = tf.numpy_function(begin, [], [tf.int64, tf.int64])
        for part in (indices, epochs):
            part.set_shape((count,))
        return tf.data.Dataset.from_tensor_slices((indices, epochs))

    @plain
    def read(index: Any, epoch: Any) -> tuple:
        fine, present, *arrays = tf.numpy_function(load, [index, epoch], types)
        fine.set_shape(())
        present.set_shape((len(names),))
        x = {}
        for (name, reader), array in zip(readers.items(), arrays, strict=True):
            array.set_shape(reader.shape)
            value = reader.features(array) if reader.features else array
            mask = maskers[name]
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
            x["presence"] = dict(zip(names, tf.unstack(present), strict=True))
        return fine, x, tf.gather(labels, index)

    @plain
    def finish(x: dict, label: Any) -> tuple:
        x = dict(x)
        for name, reader in readers.items():
            if reader.batched:
                x[name] = reader.batched(x[name])
        return x, label

    data = tf.data.Dataset.range(1).flat_map(start)
    data = data.apply(tf.data.experimental.assert_cardinality(count))
    data = data.map(read, parallel, deterministic=True)
    if loader.problems.skip:
        data = data.filter(lambda fine, x, label: fine)
    data = data.map(lambda fine, x, label: (x, label))
    size = 1 if plan.batch_size is None else plan.batch_size
    data = data.batch(size).map(finish, parallel, deterministic=True)
    if plan.batch_size is None:
        data = data.unbatch()
    data = data.prefetch(tf.data.AUTOTUNE)
    data.skipped, data.absent = plan.notes.skipped, plan.notes.absent
    data.set_epoch = plan.epochs.set
    return data
