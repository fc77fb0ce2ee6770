"""Times a training step of MLA, of MLA by hand, and of joint training.

In one run, in turn and repeatedly:

(a) `keras_mla.MLA.fit`;
(b) the same mathematics by hand in the backend's own idiom
    (`benchmarks/handwritten`), on JAX and TensorFlow jitted if `compile` would
    jit, on PyTorch eager;
(c) `keras.Model.fit` of the joint model, features concatenated, with the same
    encoders;
(d) with `--ablation`, `MLA(projector=None).fit`, to see what the projection
    costs.

    KERAS_BACKEND=jax python benchmarks/train_step.py --encoder=mlp

Each repetition times one epoch, from the callback at its beginning to the one
at its end. The first epoch does not count: it compiles. Times are medians;
ratios are medians of the ratios within a repetition.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "jax")

import keras
import numpy as np
from absl import app, flags, logging

import keras_mla

FLAGS = flags.FLAGS
flags.DEFINE_enum("encoder", "mlp", ["mlp", "resnet18"], "Encoders to train.")
flags.DEFINE_integer("steps", 300, "Steps of one timed epoch.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Timed epochs.", lower_bound=1)
flags.DEFINE_integer("batch_size", 64, "Samples in a batch.", lower_bound=1)
flags.DEFINE_integer("size", 32, "Height and width of a ResNet's images.")
flags.DEFINE_enum(
    "data",
    None,
    ["arrays", "tf.data", "loader"],
    "What all competitors read; default: what is usual on the backend, a "
    "tf.data.Dataset, a torch DataLoader, or arrays on JAX.",
)
flags.DEFINE_boolean("jit_compile", None, "As in `compile`; default: auto.")
flags.DEFINE_boolean("ablation", False, "Also time MLA without projection.")
flags.DEFINE_boolean("memory", True, "Also run each alone for its peak memory.")
flags.DEFINE_string(
    "only", "", "Run only mla, hand, joint or plain; print JSON."
)

MODALITIES = ("audio", "video")
CLASSES = 31
WIDTH = 512


class EpochTimer(keras.callbacks.Callback):
    """Measures the seconds from the beginning of an epoch to its end."""

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Stops the clock."""
        self.seconds = time.perf_counter() - self.start


def make_data():
    """Returns arrays `(x, y)` for one epoch."""
    rng = np.random.default_rng(0)
    shape = (WIDTH,) if FLAGS.encoder == "mlp" else (FLAGS.size, FLAGS.size, 3)
    samples = FLAGS.steps * FLAGS.batch_size
    # ResNets are slow: a few repeated batches suffice and keep memory small.
    distinct = samples if FLAGS.encoder == "mlp" else 4 * FLAGS.batch_size
    order = np.arange(samples) % distinct
    x = {}
    for name in MODALITIES:
        x[name] = rng.normal(size=(distinct, *shape)).astype("float32")[order]
    return x, rng.integers(0, CLASSES, distinct).astype("int32")[order]


def make_encoder(seed):
    """Returns a Keras encoder."""
    keras.utils.set_random_seed(seed)
    if FLAGS.encoder == "mlp":
        return keras.Sequential(
            [keras.Input((WIDTH,)), keras.layers.Dense(WIDTH, "relu")]
        )
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[2, 2, 2, 2],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="basic_block",
        image_shape=(FLAGS.size, FLAGS.size, 3),
    )
    return keras.Sequential([backbone, keras.layers.GlobalAveragePooling2D()])


def compiled(model):
    """Compiles a model as all models here; returns it."""
    model.compile(
        optimizer=keras.optimizers.SGD(0.01, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile=jit_compile(),
    )
    return model


def jit_compile():
    """Returns the argument of `compile`."""
    return "auto" if FLAGS.jit_compile is None else FLAGS.jit_compile


def by_fit(model, x, y):
    """Returns a function that trains an epoch and returns its seconds."""
    timer = EpochTimer()
    arguments = {"x": batches(x, y)}
    if data_path() == "arrays":
        arguments = {"x": x, "y": y, "batch_size": FLAGS.batch_size}

    def epoch():
        model.fit(**arguments, shuffle=False, verbose=0, callbacks=[timer])
        return timer.seconds

    return epoch


def by_hand(x, y):
    """Returns such a function for the hand-written loop."""
    backend = keras.backend.backend()
    module = importlib.import_module(f"handwritten.{backend}")
    as_numpy = data_path() == "tf.data" and backend != "tensorflow"
    encoders = {
        name: module.mlp(WIDTH, WIDTH, seed)
        if FLAGS.encoder == "mlp"
        else module.from_keras(make_encoder(seed))
        for seed, name in enumerate(MODALITIES)
    }
    # What `compile` makes of "auto": true on JAX, elsewhere it depends.
    jit = make_mla().jit_compile
    loop = module.Loop(encoders, WIDTH, CLASSES, jit=jit)

    def epoch():
        data = batches(x, y)
        if as_numpy:
            data = data.as_numpy_iterator()
        start = time.perf_counter()
        loop.epoch(data)
        return time.perf_counter() - start

    return epoch


def batches(x, y):
    """Returns the batches that `--data` names; of arrays, slices."""
    size = FLAGS.batch_size
    if data_path() == "tf.data":
        import tensorflow as tf

        data = tf.data.Dataset.from_tensor_slices((x, y))
        return data.batch(size).prefetch(4)
    starts = range(0, len(y), size)
    if data_path() == "loader":
        import torch

        x = {name: torch.from_numpy(values) for name, values in x.items()}
        return torch.utils.data.DataLoader(
            starts,
            batch_size=None,
            collate_fn=lambda i: slice_of(x, torch.from_numpy(y), i),
        )
    return (slice_of(x, y, i) for i in starts)


def slice_of(x, y, start):
    """Returns one batch of arrays or tensors."""
    rows = slice(start, start + FLAGS.batch_size)
    return {name: values[rows] for name, values in x.items()}, y[rows]


def data_path():
    """Returns what all competitors read."""
    usual = {"tensorflow": "tf.data", "torch": "loader", "jax": "arrays"}
    return FLAGS.data or usual[keras.backend.backend()]


def make_mla(projector="auto"):
    """Returns a compiled MLA model."""
    encoders = {name: make_encoder(i) for i, name in enumerate(MODALITIES)}
    return compiled(keras_mla.MLA(encoders, CLASSES, projector=projector))


def make_joint():
    """Returns a compiled joint model: concatenated features, one Dense."""
    encoders = {name: make_encoder(i) for i, name in enumerate(MODALITIES)}
    inputs = {
        name: keras.Input(e.inputs[0].shape[1:], name=name)
        for name, e in encoders.items()
    }
    features = [e(inputs[name]) for name, e in encoders.items()]
    joint = keras.layers.Concatenate()(features)
    return compiled(keras.Model(inputs, keras.layers.Dense(CLASSES)(joint)))


def competitors(x, y):
    """Returns functions that make each competitor's epoch."""
    made = {
        "mla": lambda: by_fit(make_mla(), x, y),
        "hand": lambda: by_hand(x, y),
        "joint": lambda: by_fit(make_joint(), x, y),
        "plain": lambda: by_fit(make_mla(projector=None), x, y),
    }
    if not FLAGS.ablation and FLAGS.only != "plain":
        del made["plain"]
    return made


def own_peak():
    """Returns the peak memory of this process in MiB."""
    try:
        # Not `getrusage`, which on Linux includes the parent's peak.
        with open("/proc/self/status") as status:
            (line,) = (row for row in status if row.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def peak_memory(name):
    """Runs one competitor alone and returns its peak memory in MiB."""
    command = [sys.executable, *sys.argv, f"--only={name}"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])["peak_mib"]


def main(_):
    """Runs the benchmark."""
    logging.set_verbosity(logging.WARNING)
    x, y = make_data()
    made = competitors(x, y)
    if FLAGS.only:
        made[FLAGS.only]()()
        peak = own_peak()
        print(json.dumps({"peak_mib": round(peak)}))
        return
    epochs = {name: make() for name, make in made.items()}
    for epoch in epochs.values():
        epoch()
    seconds = {name: [] for name in epochs}
    for _ in range(FLAGS.repeats):
        for name, epoch in epochs.items():
            seconds[name].append(epoch() / FLAGS.steps)
    print(
        f"{keras.backend.backend()}, {FLAGS.encoder}, "
        f"batch {FLAGS.batch_size}, {FLAGS.steps} steps x {FLAGS.repeats}, "
        f"jit_compile={jit_compile()}"
    )
    for name, times in seconds.items():
        median = np.median(times)
        memory = f"{peak_memory(name):6d} MiB peak" if FLAGS.memory else ""
        print(
            f"  {name:6s} {1e3 * median:9.3f} ms/step "
            f"{FLAGS.batch_size / median:10.0f} examples/s  {memory}"
        )
    for other in list(seconds)[1:]:
        ratios = np.divide(seconds["mla"], seconds[other])
        print(
            f"  mla / {other:6s} {np.median(ratios):.3f} "
            f"({ratios.min():.3f} to {ratios.max():.3f})"
        )


if __name__ == "__main__":
    app.run(main)
