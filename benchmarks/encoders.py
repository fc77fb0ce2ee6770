"""Speed of the encoders against the same networks in plain PyTorch.

One run times, for each encoder at the paper's size and a small batch, the
forward pass and a training step (SGD with momentum, a linear head), first ours
on the backend that `KERAS_BACKEND` names, then the same structure written with
`torch.nn`: torchvision's ResNet-18, and `torch.nn.TransformerEncoder`. The two
take turns, and the medians' ratio is printed (below 1: ours is faster).

    KERAS_BACKEND=torch python benchmarks/encoders.py --repeats=5

On a GPU, `--dtype=mixed_bfloat16` compares both in that precision, and
`--peak_tflops` gives the fraction of the card's peak that a step reaches.
"""

import os
import pathlib
import statistics
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "torch")
sys.path[:0] = [str(pathlib.Path(__file__).resolve().parents[1])]

import keras  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from absl import app, flags  # noqa: E402
from torch import nn  # noqa: E402

from keras_mla import encoders  # noqa: E402

FLAGS = flags.FLAGS
NAMES = ["audio_resnet18", "video_resnet18", "m3ae_image", "m3ae_text"]
NAMES += ["cavmae_audio"]
flags.DEFINE_multi_enum("encoder", NAMES, NAMES, "Encoders to time.")
flags.DEFINE_integer("batch_size", 2, "Samples in a batch.", lower_bound=1)
flags.DEFINE_integer("repeats", 5, "Timed calls of each.", lower_bound=1)
flags.DEFINE_string("dtype", "float32", "Keras dtype policy.")
flags.DEFINE_float("peak_tflops", None, "The card's peak, for the fraction.")
CLASSES = 10
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False),
                nn.BatchNorm2d(outputs),
            )

    def forward(self, x):
        """Adds the two branches."""
        return torch.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18, frames folded into the batch and averaged."""

    def __init__(self, channels):
        super().__init__()
        layers = [
            nn.Conv2d(channels, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, 1),
        ]
        widths = [64, 64, 128, 256, 512]
        for i, (old, new) in enumerate(zip(widths, widths[1:], strict=False)):
            layers.append(BasicBlock(old, new, 1 if i == 0 else 2))
            layers.append(BasicBlock(new, new, 1))
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1))

    def forward(self, x):
        """Maps `(batch, frames, channels, height, width)` to features."""
        features = self.layers(x.flatten(0, 1)).flatten(1)
        return features.unflatten(0, x.shape[:2]).mean(1)


class Transformer(nn.Module):
    """ViT-B over patches or words, mean-pooled."""

    def __init__(self, embedding, tokens):
        super().__init__()
        self.embedding = embedding
        self.positions = nn.Parameter(torch.randn(tokens, 768))
        layer = nn.TransformerEncoderLayer(
            768, 12, 3072, 0.0, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(
            layer, 12, nn.LayerNorm(768), enable_nested_tensor=False
        )

    def forward(self, x):
        """Maps patches `(batch, tokens, values)` or ids to features."""
        return self.encoder(self.embedding(x) + self.positions).mean(1)


def make(name):
    """Our encoder, its input, the plain network and its input."""
    rng = np.random.default_rng(0)
    batch = FLAGS.batch_size
    if "resnet" in name:
        ours = getattr(encoders, name)()
        x = rng.random((batch, *ours.example_shape)).astype("float32")
        frames = x if x.ndim == 5 else x[:, None]
        frames = np.ascontiguousarray(frames.transpose(0, 1, 4, 2, 3))
        return ours, x, ResNet(x.shape[-1]), torch.from_numpy(frames)
    if name == "m3ae_text":
        ours = encoders.M3AE("text", max_length=256)
        x = rng.integers(0, 30522, (batch, 256)).astype("int32")
        plain = Transformer(nn.Embedding(30522, 768), 256)
        return ours, x, plain, torch.from_numpy(x).long()
    if name == "m3ae_image":
        ours = encoders.M3AE("image")
    else:
        ours = encoders.CAVMAE("audio")
    shape = (256, 256, 3) if name == "m3ae_image" else (1024, 128, 1)
    x = rng.random((batch, *shape)).astype("float32")
    tokens, values = shape[0] * shape[1] // 256, 256 * shape[2]
    patches = torch.from_numpy(x.reshape(batch, tokens, values))
    return ours, x, Transformer(nn.Linear(values, 768), tokens), patches


def plain_calls(network, x):
    """Forward pass and training step of a plain network."""
    model = nn.Sequential(
        network, nn.Linear(512 if isinstance(network, ResNet) else 768, CLASSES)
    ).to(DEVICE)
    optimizer = torch.optim.SGD(model.parameters(), 1e-3, momentum=0.9)
    labels = torch.zeros(len(x), dtype=torch.long, device=DEVICE)
    half = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}
    dtype = half.get(FLAGS.dtype)

    def run():
        with torch.autocast(DEVICE, dtype, enabled=dtype is not None):
            return model(x.to(DEVICE))

    def forward():
        model.eval()
        with torch.no_grad():
            return run().cpu()

    def step():
        model.train()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(run().float(), labels)
        loss.backward()
        optimizer.step()
        return loss.item()

    return forward, step


def keras_calls(encoder, x):
    """Forward pass and training step of one of our encoders."""
    model = keras.Sequential([encoder, keras.layers.Dense(CLASSES)])
    model.compile(
        optimizer=keras.optimizers.SGD(1e-3, momentum=0.9),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    labels = np.zeros(len(x), "int32")
    return (
        lambda: model.predict_on_batch(x),
        lambda: float(model.train_on_batch(x, labels)),
    )


def compare(ours, plain):
    """Median seconds of both, called in turn after two calls to warm up."""
    times = ([], [])
    for i in range(FLAGS.repeats + 2):
        for call, seconds in zip((ours, plain), times, strict=True):
            start = time.perf_counter()
            call()
            if i > 1:
                seconds.append(time.perf_counter() - start)
    return [statistics.median(seconds) for seconds in times]


def main(_):
    """Prints one line per encoder and call."""
    keras.config.set_dtype_policy(FLAGS.dtype)
    print(
        f"{keras.backend.backend()}, {DEVICE}, {FLAGS.dtype}, batch "
        f"{FLAGS.batch_size}, {torch.get_num_threads()} threads, "
        f"median of {FLAGS.repeats}"
    )
    print("| encoder | call | ours ms | plain ms | ratio | examples/s |")
    print("|---|---|---|---|---|---|")
    for name in FLAGS.encoder:
        encoder, x, network, patches = make(name)
        calls = zip(
            ("forward", "step"),
            keras_calls(encoder, x),
            plain_calls(network, patches),
            strict=True,
        )
        for kind, ours, plain in calls:
            a, b = compare(ours, plain)
            line = f"| {name} | {kind} | {a * 1e3:.0f} | {b * 1e3:.0f} "
            line += f"| {a / b:.2f} | {len(x) / a:.1f} |"
            if FLAGS.peak_tflops and "resnet" not in name and kind == "step":
                tokens = network.positions.shape[0]
                # Two operations per weight and token, thrice for a step, and
                # the scores and sums of attention.
                weights = 12 * 12 * 768**2 + 12 * 2 * tokens * 768
                work = 6 * weights * tokens * len(x)
                share = work / a / FLAGS.peak_tflops / 1e12
                line += f" {share:.0%} of peak"
            print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
