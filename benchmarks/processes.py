"""Times a training step in several processes of PyTorch, beside a loop by hand.

Each process computes with one thread its rows of a batch. In one run, in turn
and repeatedly:

(a) `keras_mla.MLA.fit` in all processes;
(b) the same mathematics by hand (`benchmarks/handwritten`), with the gradients
    of an update and its mean feature summed in one message, as
    `DistributedDataParallel` sums gradients;
(c) `keras_mla.MLA.fit` in the first process alone, on the same batches.

    python benchmarks/processes.py --processes=2

Prints milliseconds a step, the ratios (a) / (b) and (c) / (a), and the messages
and bytes of a step. Times are medians; ratios are medians of the ratios within
a repetition.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ["KERAS_BACKEND"] = "torch"
os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import keras
import numpy as np
import torch
from absl import app, flags
from torch.nn import functional

import keras_mla
from keras_mla import ProcessRows
from keras_mla.backend import distribution

FLAGS = flags.FLAGS
flags.DEFINE_integer("processes", 2, "Processes.", lower_bound=1)
flags.DEFINE_integer("steps", 60, "Steps of a timed epoch.", lower_bound=1)
flags.DEFINE_integer("repeats", 7, "Timed epochs.", lower_bound=1)
flags.DEFINE_integer("batch_size", 256, "Rows of a batch.", lower_bound=1)
flags.DEFINE_integer("width", 512, "Values of a modality.", lower_bound=1)
flags.DEFINE_integer("units", 512, "Units of an encoder.", lower_bound=1)
MODALITIES = ("video", "audio")
CLASSES = 31


class Data(keras.utils.PyDataset):
    """One batch, again and again."""

    def __init__(self, steps):
        super().__init__()
        rng = np.random.default_rng(0)
        shape = (FLAGS.batch_size, FLAGS.width)
        x = {name: rng.normal(size=shape) for name in MODALITIES}
        self.x = {name: v.astype("float32") for name, v in x.items()}
        self.y = rng.integers(0, CLASSES, FLAGS.batch_size)
        self.steps = steps

    def __len__(self):
        return self.steps

    def __getitem__(self, index):
        return self.x, self.y


class Times(keras.callbacks.Callback):
    """The time of each epoch."""

    def on_epoch_begin(self, epoch, logs=None):
        """Starts the clock."""
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):
        """Stops the clock."""
        self.seconds = time.perf_counter() - self.start


def encoder():
    """Returns an encoder of two layers."""
    return keras.Sequential(
        [
            keras.Input((FLAGS.width,)),
            keras.layers.Dense(FLAGS.units, "relu"),
            keras.layers.Dense(FLAGS.units, "relu"),
        ]
    )


def library(data):
    """Returns a function that trains an epoch and returns its seconds."""
    model = keras_mla.MLA({name: encoder() for name in MODALITIES}, CLASSES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    times = Times()

    def epoch():
        model.fit(data, shuffle=False, verbose=0, callbacks=[times])
        return times.seconds

    return epoch


class ByHand:
    """MLA in plain PyTorch: Adam, P, loss and accuracy of each modality."""

    def __init__(self, data):
        self.data = data
        linear = torch.nn.Linear
        self.encoders = {
            name: torch.nn.Sequential(
                linear(FLAGS.width, FLAGS.units),
                torch.nn.ReLU(),
                linear(FLAGS.units, FLAGS.units),
                torch.nn.ReLU(),
            )
            for name in MODALITIES
        }
        self.head = linear(FLAGS.units, CLASSES)
        self.optimizers = {
            name: torch.optim.Adam(self.variables(name), 1e-3)
            for name in MODALITIES
        }
        self.P = torch.eye(FLAGS.units)
        self.steps = 0

    def variables(self, name):
        """Returns what a modality's update moves."""
        return [*self.encoders[name].parameters(), *self.head.parameters()]

    def step(self, x, y):
        """Makes one step, and returns sums for metrics."""
        logits = {}
        for name in MODALITIES:
            feature = self.encoders[name](torch.from_numpy(x[name]))
            logits[name] = self.head(feature)
            loss = functional.cross_entropy(logits[name], y)
            variables = self.variables(name)
            gradients = torch.autograd.grad(loss, variables)
            sums = [g * len(y) for g in gradients]
            sums += [feature.detach().sum(0), torch.tensor(float(len(y)))]
            message = torch.cat([s.reshape(-1) for s in sums])
            torch.distributed.all_reduce(message)
            *parts, h, count = message.split([s.numel() for s in sums])
            h = h / count
            for variable, part in zip(variables, parts, strict=True):
                variable.grad = part.reshape(variable.shape) / count
            if self.steps:
                k = self.P @ h
                k = k * (1 + h @ k) ** -0.5
                self.P.addr_(k, k, alpha=-1)
                kernel = self.head.weight.grad  # (classes, features)
                self.head.weight.grad = kernel @ self.P
            self.steps += 1
            self.optimizers[name].step()
        return self.metrics({n: z.detach() for n, z in logits.items()}, y)

    def metrics(self, logits, y):
        """Returns losses and accuracies, of the modalities and fused."""
        entropies = []
        for z in logits.values():
            log_p = functional.log_softmax(z, 1)
            entropies.append(-(log_p.exp() * log_p).sum(1))
        weights = torch.softmax(-torch.stack(entropies), 0)
        fused = sum(
            w[:, None] * z
            for w, z in zip(weights, logits.values(), strict=True)
        )
        sums = [torch.tensor(float(len(y)))]
        for z in [*logits.values(), fused]:
            sums.append(functional.cross_entropy(z, y, reduction="sum"))
            sums.append((z.argmax(1) == y).sum().float())
        message = torch.stack(sums)
        torch.distributed.all_reduce(message)
        return message

    def epoch(self):
        """Trains an epoch, and returns its seconds."""
        start = time.perf_counter()
        for index in range(len(self.data)):
            x, y = self.data[index]
            self.step(x, torch.from_numpy(y))
        return time.perf_counter() - start


def worker():
    """Runs in each process."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    keras.utils.set_random_seed(0)
    shared = ProcessRows(Data(FLAGS.steps))
    several, by_hand = library(shared), ByHand(shared)
    alone = library(Data(FLAGS.steps))
    found = {name: [] for name in ("several", "hand", "alone")}
    sent = {"messages": 0, "bytes": 0}
    for repeat in range(FLAGS.repeats + 1):
        torch.distributed.barrier()
        with counted(sent):
            seconds = several()
        torch.distributed.barrier()
        by = by_hand.epoch()
        torch.distributed.barrier()
        if rank == 0:
            one = on_one_device(alone)
            if repeat:  # The first epoch does not count.
                for name, value in zip(found, (seconds, by, one), strict=True):
                    found[name].append(value)
        torch.distributed.barrier()
    if rank == 0:
        report(found, sent)
    torch.distributed.destroy_process_group()


def on_one_device(epoch):
    """Trains an epoch as if there were one process."""
    torch_distribution = sys.modules["keras_mla.backend.distribution.torch"]
    original = torch.distributed.is_initialized
    torch.distributed.is_initialized = lambda: False
    try:
        assert torch_distribution.num_replicas() == 1
        return epoch()
    finally:
        torch.distributed.is_initialized = original


class counted:
    """Counts the messages of an epoch, and their bytes."""

    def __init__(self, sent):
        self.sent = sent

    def __enter__(self):
        self.sent.update(messages=0, bytes=0)
        self.originals = {
            name: getattr(torch.distributed, name)
            for name in ("all_reduce", "all_gather")
        }
        for name, original in self.originals.items():
            setattr(torch.distributed, name, self.counting(original))

    def counting(self, original):
        """Returns a function that counts and calls `original`."""

        def call(*args, **kwargs):
            tensor = args[-1] if len(args) > 1 else args[0]
            self.sent["messages"] += 1
            self.sent["bytes"] += tensor.numel() * tensor.element_size()
            return original(*args, **kwargs)

        return call

    def __exit__(self, *error):
        for name, original in self.originals.items():
            setattr(torch.distributed, name, original)


def report(found, sent):
    """Prints times and ratios."""
    steps = FLAGS.steps
    ms = {n: 1e3 * statistics.median(v) / steps for n, v in found.items()}

    def ratio(first, second):
        pairs = zip(found[first], found[second], strict=True)
        return statistics.median(a / b for a, b in pairs)

    replicas = distribution.num_replicas()
    titles = ("by hand", "one process", "(a) / (b)", "(c) / (a)")
    print(f"| {replicas} processes | {' | '.join(titles)} |")
    print("| --: | --: | --: | --: | --: |")
    cells = [f"{ms[name]:.1f} ms" for name in ("several", "hand", "alone")]
    cells.append(f"{ratio('several', 'hand'):.2f}")
    cells.append(f"{ratio('alone', 'several'):.2f}")
    print(f"| {' | '.join(cells)} |")
    print(
        f"{sent['messages'] / steps:.1f} messages and "
        f"{sent['bytes'] / steps / 1e6:.2f} MB a step and process"
    )


def main(_):
    """Starts the processes."""
    if "RANK" in os.environ:
        worker()
        return
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command.append(f"--nproc-per-node={FLAGS.processes}")
    sys.exit(subprocess.call([*command, __file__, *sys.argv[1:]]))


if __name__ == "__main__":
    app.run(main)
