"""The engine on `tf.data`."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_mla.datasets import extras
from keras_mla.datasets.pipeline.join import example, join
from keras_mla.datasets.pipeline.plan import Plan
from keras_mla.datasets.pipeline.pools import Pools
from keras_mla.datasets.readers.image import ImageSettings

if TYPE_CHECKING:
    import tensorflow as tf

# Batches that are read at the same time, each by all workers.
_AHEAD = 3


def dataset(plan: Plan) -> "tf.data.Dataset":
    """Returns a `tf.data.Dataset` of batches.

    Args:
        plan: `Plan`. What to read.

    Raises:
        ImportError: If TensorFlow is not installed.
    """
    tf = extras.need("tensorflow", 'read data with engine="tensorflow"')
    count = len(plan.labels)

    def begin() -> tuple[np.ndarray, np.ndarray]:
        epoch = plan.epochs.begin()
        return plan.order(epoch), np.full(count, epoch)

    @tf.autograph.experimental.do_not_convert
    def start(_: Any) -> Any:
        # In the graph, so that each iteration and repetition begins an epoch.
        indices, epochs = tf.numpy_function(begin, [], [tf.int64, tf.int64])
        for part in (indices, epochs):
            part.set_shape((count,))
        return tf.data.Dataset.from_tensor_slices((indices, epochs))

    data = tf.data.Dataset.range(1).flat_map(start)
    data = data.apply(tf.data.experimental.assert_cardinality(count))
    # A call of Python costs tf.data a tenth of the time that a picture takes:
    # where no operation of TensorFlow works on single samples, one call reads
    # a batch.
    whole = (
        plan.batch_size is not None
        and not plan.loader.problems.skip
        and not any(r.features for r in plan.loader.readers.values())
    )
    data = (_batches if whole else _samples)(tf, plan, data)
    data = data.prefetch(_AHEAD)
    options = tf.data.Options()
    # Its thread sleeps up to a second, and each iteration's end waits for it.
    options.autotune.enabled = False
    # Operations on small arrays lose more by sharing threads than they win.
    options.threading.max_intra_op_parallelism = 1
    data = data.with_options(options)
    data.skipped, data.absent = plan.notes.skipped, plan.notes.absent
    data.set_epoch = plan.epochs.set
    return data


def _batches(tf: Any, plan: Plan, data: Any) -> Any:
    """Reads batches, each by one call of Python."""
    pools = Pools(plan.loader, plan.workers)
    nest, (x, label) = tf.nest, example(plan)
    sizes = {n: None not in r.shape for n, r in plan.loader.readers.items()}
    known = {
        name: nest.map_structure(lambda _, name=name: sizes.get(name, True), v)
        for name, v in x.items()
    }
    specs = [
        tf.TensorSpec(
            (None, *(n if fixed else None for n in array.shape[1:])),
            tf.string if array.dtype == object else array.dtype,
        )
        for array, fixed in zip(
            nest.flatten((x, label)), nest.flatten((known, True)), strict=True
        )
    ]
    types = [spec.dtype for spec in specs]

    def load(indices: np.ndarray, epochs: np.ndarray) -> list[Any]:
        epoch = int(epochs[0])
        parts = pools.read(epoch, indices)
        batch = pools.join(join, plan, parts, epoch, indices, 0)
        return nest.flatten(batch.result())

    @tf.autograph.experimental.do_not_convert
    def read(indices: Any, epochs: Any) -> tuple:
        values = tf.numpy_function(load, [indices, epochs], types)
        for value, spec in zip(values, specs, strict=True):
            value.set_shape(spec.shape)
        return nest.pack_sequence_as((x, label), values)

    data = data.batch(plan.batch_size)
    return data.map(read, _AHEAD, deterministic=True)


def _samples(tf: Any, plan: Plan, data: Any) -> Any:
    """Reads samples one by one, and joins them in the graph."""
    loader, readers = plan.loader, plan.loader.readers
    names = list(readers)
    labels = tf.constant(plan.labels)
    parallel = Pools(loader, plan.workers).workers
    maskers = {name: loader.masker(name) for name in names}
    # Nothing here needs a translation of Python's own `if` and `for`.
    plain = tf.autograph.experimental.do_not_convert
    types = [tf.bool, tf.bool] + [
        tf.string if r.dtype == "object" else tf.as_dtype(r.dtype)
        for r in readers.values()
    ]

    def load(index: np.int64, epoch: np.int64) -> list[Any]:
        row = loader.read(int(index), int(epoch))
        plan.notes.take([row])
        return [np.bool_(row.fine), row.present, *row.arrays]

    @plain
    def read(index: Any, epoch: Any) -> tuple:
        fine, present, *arrays = tf.numpy_function(load, [index, epoch], types)
        fine.set_shape(())
        present.set_shape((len(names),))
        x = {}
        for (name, reader), array in zip(readers.items(), arrays, strict=True):
            array.set_shape(reader.shape)
            value = reader.features(array) if reader.features else array
            if maskers[name] is not None:
                value = _call(
                    tf, maskers[name], [value, index, epoch], value.dtype
                )
            x[name] = value
        if plan.marked and plan.positional:
            x["presence"] = present
        elif plan.marked:
            columns = tf.unstack(present, axis=-1)
            x["presence"] = dict(zip(names, columns, strict=True))
        if plan.identified:
            x["sample_id"] = tf.cast(index, tf.int32)
        row = x, tf.gather(labels, index)
        return (fine, *row) if loader.problems.skip else row

    @plain
    def finish(x: dict, label: Any) -> tuple:
        x = dict(x)
        for name, reader in readers.items():
            if _is_normalize(reader.batched):
                # NumPy takes half the time, picture by picture.
                x[name] = _call(tf, reader.batched, [x[name]], tf.float32)
            elif reader.batched:
                x[name] = reader.batched(x[name])
        return x, label

    data = data.map(read, parallel, deterministic=True)
    if loader.problems.skip:
        data = data.filter(lambda fine, x, label: fine)
        data = data.map(lambda fine, x, label: (x, label))
    data = data.batch(plan.batch_size or 1)
    if any(reader.batched for reader in readers.values()):
        data = data.map(finish, parallel, deterministic=True)
    return data.unbatch() if plan.batch_size is None else data


def _call(tf: Any, function: Any, arguments: list, dtype: Any) -> Any:
    """Calls a function of arrays that keeps the shape of the first one."""
    result = tf.numpy_function(function, arguments, dtype, stateful=False)
    result.set_shape(arguments[0].shape)
    return result


def _is_normalize(function: Any) -> bool:
    """Returns whether a function is `normalize` of some `ImageSettings`."""
    return getattr(function, "__func__", None) is ImageSettings.normalize
