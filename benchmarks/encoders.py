"""Speed of the encoders against the same networks in plain PyTorch.

One run times the forward pass and a training step (SGD with momentum, a linear
head) of each encoder at the paper's size, on a small batch. Ours runs on the
backend that `KERAS_BACKEND` names, against the same structure written with
`torch.nn`: torchvision's ResNet-18, and `torch.nn.TransformerEncoder`. The two
take turns. The script prints the median of the ratios within a turn (below 1:
ours is faster).

    KERAS_BACKEND=jax python benchmarks/encoders.py --encoder=m3ae_image

Both start from a batch in the host's memory, in the layout that each reads
(channels first for PyTorch), end with the result in that memory, and keep no
metric but the loss. `--jit_compile` is passed to `compile` on our side, and
`--plain_compile` compiles the plain side by `torch.compile`.

On a GPU, `--dtype=mixed_bfloat16` compares both in that precision, and
`--peak_tflops` adds the fraction of the card's peak that a step reaches.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import torch
from absl import app, flags
from handwritten.encoders import WIDTH, Patches, ResNet, Transformer
from torch import nn

from keras_mla import encoders

FLAGS = flags.FLAGS
NAMES = ["audio_resnet18", "video_resnet18", "m3ae_image", "m3ae_text"]
NAMES += ["cavmae_audio"]
flags.DEFINE_multi_enum("encoder", NAMES, NAMES, "Encoders to time.")
flags.DEFINE_integer("batch_size", 2, "Samples in a batch.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Timed turns.", lower_bound=1)
flags.DEFINE_string("dtype", "float32", "Keras dtype policy.")
flags.DEFINE_boolean("jit_compile", None, "As in `compile`; default: auto.")
flags.DEFINE_boolean("plain_compile", False, "`torch.compile` the plain side.")
flags.DEFINE_float("peak_tflops", None, "The card's peak, for the fraction.")
CLASSES = 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(name):
    """Returns our encoder, its input, the plain network and its input."""
    rng = np.random.default_rng(0)
    batch = FLAGS.batch_size
    if name == "m3ae_text":
        ours = encoders.M3AE("text", max_length=256)
        x = rng.integers(0, 30522, (batch, 256)).astype("int32")
        return ours, x, Transformer(nn.Embedding(30522, WIDTH), 256, True), x
    if name == "m3ae_image":
        ours, shape = encoders.M3AE("image"), (256, 256, 3)
    elif name == "cavmae_audio":
        ours, shape = encoders.CAVMAE("audio"), (1024, 128, 1)
    else:
        ours = getattr(encoders, name)()
        shape = ours.example_shape
    x = rng.random((batch, *shape)).astype("float32")
    first = np.ascontiguousarray(np.moveaxis(x, -1, -3))
    if "resnet" in name:
        frames = first if first.ndim == 5 else first[:, None]
        return ours, x, ResNet(shape[-1]), frames
    tokens = shape[0] * shape[1] // 256
    patches = Patches(shape[-1], WIDTH, 16, 16)
    return ours, x, Transformer(patches, tokens, name != "cavmae_audio"), first


def plain_calls(network, x):
    """Returns the forward pass and training step of a plain network."""
    width = 512 if isinstance(network, ResNet) else WIDTH
    model = nn.Sequential(network, nn.Linear(width, CLASSES)).to(DEVICE)
    moved = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(moved, 1e-3, momentum=0.9)
    x, labels = torch.from_numpy(x), torch.zeros(len(x), dtype=torch.long)
    half = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}
    dtype = half.get(FLAGS.dtype)
    call = torch.compile(model) if FLAGS.plain_compile else model

    def run():
        with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
            return call(x.to(DEVICE))

    def forward():
        model.eval()
        with torch.no_grad():
            return run().float().cpu().numpy()

    def step():
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(run().float(), labels.to(DEVICE))
        loss.backward()
        optimizer.step()
        return loss.item()

    return forward, step


def keras_calls(encoder, x):
    """Returns the forward pass and training step of one of our encoders."""
    model = keras.Sequential([encoder, keras.layers.Dense(CLASSES)])
    model.compile(
        optimizer=keras.optimizers.SGD(1e-3, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile="auto" if FLAGS.jit_compile is None else FLAGS.jit_compile,
    )
    labels = np.zeros(len(x), "int32")
    return (
        lambda: model.predict_on_batch(x),
        lambda: float(model.train_on_batch(x, labels)),
    )


def compare(*calls):
    """Times calls in turn, after two turns to warm up; returns seconds."""
    times = [[] for _ in calls]
    for turn in range(FLAGS.repeats + 2):
        for call, seconds in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            if turn > 1:
                seconds.append(time.perf_counter() - start)
    return times


def main(_):
    """Prints one line per encoder and call."""
    keras.config.set_dtype_policy(FLAGS.dtype)
    print(
        f"{keras.backend.backend()}, jit_compile={FLAGS.jit_compile}, {DEVICE},"
        f" {FLAGS.dtype}, batch {FLAGS.batch_size}, {torch.get_num_threads()} "
        f"threads, {FLAGS.repeats} turns"
    )
    print("| encoder | call | ours ms | plain ms | ratio | range | ours/s |")
    print("|---|---|---|---|---|---|---|")
    for name in FLAGS.encoder:
        encoder, x, network, plain_x = make(name)
        pairs = zip(
            ("forward", "step"),
            keras_calls(encoder, x),
            plain_calls(network, plain_x),
            strict=True,
        )
        for kind, ours, plain in pairs:
            times = compare(ours, plain)
            ratios = sorted(a / b for a, b in zip(*times, strict=True))
            a, b = (statistics.median(seconds) for seconds in times)
            line = f"| {name} | {kind} | {a * 1e3:.0f} | {b * 1e3:.0f} "
            line += f"| {statistics.median(ratios):.2f} "
            line += (
                f"| {ratios[0]:.2f} to {ratios[-1]:.2f} | {len(x) / a:.1f} |"
            )
            if FLAGS.peak_tflops and "resnet" not in name and kind == "step":
                tokens = network.positions.shape[0]
                # Two operations per weight and token, also for the scores and
                # sums of attention, three times in a step.
                weights = 12 * 12 * WIDTH**2 + 12 * 2 * tokens * WIDTH
                work = 6 * weights * tokens * len(x)
                share = work / a / FLAGS.peak_tflops / 1e12
                line += f" {share:.0%} of peak"
            print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
