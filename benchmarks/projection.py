"""Times a training step with the projection P against one without.

The encoders pass cached features on, so that a step is head, loss and P alone.
One factor at a time varies around 1,024 features, 100 classes, batch 64 and two
modalities; the last row has ResNet-18 encoders on small pictures:

    KERAS_BACKEND=torch python benchmarks/projection.py
    KERAS_BACKEND=jax python benchmarks/projection.py --classes=10,100000

In one run, in turn and repeatedly: a step with P, one without, one with P after
the gradient is complete (as for a head with a regulariser), and a plain product
of matrices of the size that P needs, min(batch, classes) x features x features,
for each modality. `P / product` divides what P adds to a step by the latter.
A second table shows where the switch lies between P times the inputs and P
times the gradient. The first turn does not count: it compiles.
"""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from absl import app, flags
from keras import ops

import keras_mla
from keras_mla.backend.kernels import common
from keras_mla.layers import projected_dense

FLAGS = flags.FLAGS
BASE = {"features": 1024, "classes": 100, "batch": 64, "modalities": 2}
flags.DEFINE_list("features", ["256", "4096"], "Widths of the features.")
flags.DEFINE_list("classes", ["10", "1000", "10000"], "Numbers of classes.")
flags.DEFINE_list("batch", ["16", "256", "1024"], "Batch sizes.")
flags.DEFINE_list("modalities", ["4", "16"], "Numbers of modalities.")
flags.DEFINE_integer("repeats", 7, "Timed turns.", lower_bound=1)
flags.DEFINE_float("seconds", 0.2, "Least duration of a turn.")
flags.DEFINE_integer("size", 32, "Height and width of ResNet-18's pictures.")
flags.DEFINE_boolean("resnet", True, "Also time ResNet-18 encoders.")
flags.DEFINE_boolean("switch", True, "Also show where the switch lies.")
flags.DEFINE_boolean("small", False, "Tiny sizes, to try the script.")

BACKEND = keras.backend.backend()


def cached(case, index):
    """Returns an encoder that passes features on."""
    return keras.Sequential(
        [keras.Input((case["features"],)), keras.layers.Identity()]
    )


def resnet(case, index):
    """Returns a ResNet-18 for small pictures."""
    return keras_mla.encoders.ResNet18((FLAGS.size, FLAGS.size, 3))


def make_model(case, encoder, projector):
    """Returns a compiled MLA model."""
    names = [f"m{index}" for index in range(case["modalities"])]
    model = keras_mla.MLA(
        {name: encoder(case, index) for index, name in enumerate(names)},
        case["classes"],
        projector=projector,
    )
    model.compile(
        keras.optimizers.SGD(0.01, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def make_data(case, encoder):
    """Returns a batch of tensors."""
    rng = np.random.default_rng(0)
    shape = (case["features"],)
    if encoder is resnet:
        shape = (FLAGS.size, FLAGS.size, 3)
    x = {
        f"m{index}": rng.random((case["batch"], *shape), "float32")
        for index in range(case["modalities"])
    }
    y = rng.integers(0, case["classes"], case["batch"]).astype("int32")
    x, y = keras.tree.map_structure(ops.convert_to_tensor, (x, y))
    return x, y, None


def stepper(model, data):
    """Returns a function that trains a batch, and the memory of a step.

    The memory, in MiB, is that of weights, batch and all else that a step keeps
    at once. Only JAX tells it before; elsewhere it is `None`.
    """
    x, y, _ = data
    model.train_on_batch(x, y)  # Makes the weights and the train function.
    if BACKEND == "torch":
        return (lambda: model.train_function([data])["loss"]), None
    if BACKEND == "tensorflow":
        import tensorflow as tf

        batches = iter(tf.data.Dataset.from_tensors((x, y)).repeat())
        return (lambda: model.train_function(batches)["loss"]), None
    import jax

    groups = (
        model.trainable_variables,
        model.non_trainable_variables,
        model.optimizer.variables,
        model.metrics_variables,
    )
    state = tuple([ops.copy(v.value) for v in group] for group in groups)
    train = jax.jit(lambda *args: model.train_step(*args), donate_argnums=0)
    train = train.lower(state, data).compile()
    sizes = train.memory_analysis()
    memory = sizes.argument_size_in_bytes + sizes.temp_size_in_bytes

    def step():
        nonlocal state
        logs, state = train(state, data)
        return logs["loss"]

    return step, memory / 2**20


def compiled(function):
    """Returns a function of tensors, compiled as a step is."""
    if BACKEND == "jax":
        import jax

        return jax.jit(function)
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    return function


def tensor(*shape):
    """Returns random numbers."""
    values = np.random.default_rng(0).random(shape, "float32")
    return ops.convert_to_tensor(values)


def measure(runs):
    """Times functions in turn; returns each one's seconds in each turn."""
    seconds, counts = {name: [] for name in runs}, {}
    for turn in range(FLAGS.repeats + 1):
        for name, run in runs.items():
            count = counts.get(name, 1)
            start = time.perf_counter()
            for _ in range(count):
                result = run()
            np.asarray(ops.convert_to_numpy(result)).sum()
            taken = (time.perf_counter() - start) / count
            if turn:
                seconds[name].append(taken)
            else:
                counts[name] = int(np.clip(FLAGS.seconds / taken, 1, 200))
    return {name: np.asarray(times) for name, times in seconds.items()}


def with_condition(run, can_project):
    """Returns `run` under another condition for P in the backward pass."""
    original = projected_dense.can_project

    def changed():
        projected_dense.can_project = can_project
        try:
            return run()
        finally:
            projected_dense.can_project = original

    return changed


def row(case, encoder):
    """Prints the row of one case."""
    data = make_data(case, encoder)
    later = lambda *_: False  # noqa: E731
    runs, memory = {}, {}
    runs["P"], memory["P"] = stepper(make_model(case, encoder, "auto"), data)
    runs["none"], memory["none"] = stepper(
        make_model(case, encoder, None), data
    )
    after = make_model(case, encoder, "auto")
    made = with_condition(lambda: stepper(after, data), later)()
    runs["after"] = with_condition(made[0], later)
    size = case["features"]
    rows = tensor(min(case["batch"], case["classes"]), size)
    P = tensor(size, size)
    product = compiled(lambda rows, P: rows @ P)
    runs["product"] = lambda: product(rows, P)
    times = measure(runs)
    extra = times["P"] - times["none"]
    of_memory = "-"
    if memory["P"] is not None:
        of_memory = f"{(memory['P'] - memory['none']) * 2**18 / size**2:.1f}"
    ratios = times["P"] / times["none"]
    print(
        f"| {'ResNet-18' if encoder is resnet else 'cached'} "
        + "".join(f"| {case[name]} " for name in BASE)
        + f"| {1e3 * np.median(times['none']):.2f} "
        f"| {1e3 * np.median(times['P']):.2f} "
        f"| {np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f}) "
        f"| {np.median(times['after'] / times['none']):.2f} "
        f"| {np.median(extra / times['product']) / case['modalities']:.1f} "
        f"| {of_memory} |",
        flush=True,
    )


def switch(case):
    """Prints the times of both ways for numbers of classes around the batch."""
    print("\n| Classes | P times inputs, ms | P times gradient, ms | ratio |")
    print("|---|---|---|---|")
    size, batch = case["features"], case["batch"]
    inputs, P = tensor(batch, size), tensor(size, size)
    for factor in (0.25, 0.5, 1, 2, 4):
        gradient = tensor(batch, max(1, int(batch * factor)))
        runs = {}
        for name, few in (("inputs", True), ("gradient", False)):
            way = compiled(
                lambda i, g, p, few=few: common.projected_gradient(i, g, p, few)
            )
            runs[name] = lambda way=way, g=gradient: way(inputs, g, P)
        times = measure(runs)
        print(
            f"| {gradient.shape[1]} "
            f"| {1e3 * np.median(times['inputs']):.2f} "
            f"| {1e3 * np.median(times['gradient']):.2f} "
            f"| {np.median(times['inputs'] / times['gradient']):.2f} |",
            flush=True,
        )


def main(_):
    """Runs the benchmark."""
    base, factors = BASE, {name: getattr(FLAGS, name) for name in BASE}
    if FLAGS.small:
        base = {"features": 16, "classes": 10, "batch": 4, "modalities": 2}
        factors = {"classes": [3]}
    print(f"{BACKEND}, medians of {FLAGS.repeats} turns. Memory: copies of P.")
    print(
        "| Encoders | Features | Classes | Batch | Modalities | without, ms "
        "| with P, ms | with P / without | P afterwards / without "
        "| P / product | Memory of P |"
    )
    print("|---" * 11 + "|")
    row(base, cached)
    for name, values in factors.items():
        for value in values:
            row({**base, name: int(value)}, cached)
    if FLAGS.resnet:
        row({**base, "features": 512, "batch": min(16, base["batch"])}, resnet)
    if FLAGS.switch:
        switch(base)


if __name__ == "__main__":
    app.run(main)
