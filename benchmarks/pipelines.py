"""Compares both engines of each data set with a DataLoader: samples a second.

Three sides decode the same generated files to the same arrays in one run, in
turn and repeatedly: `keras_mla.datasets` on tf.data, `keras_mla.datasets` in
Python, and a `torch.utils.data.DataLoader` with worker processes around
soundfile, PyAV, Pillow and torch's own FFT. A ratio is that of an engine to the
fastest side: 1.0 is the fastest.

```shell
python benchmarks/pipelines.py --samples=96 --repeats=3
```
"""

import os
import pathlib
import statistics
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import av  # noqa: E402
import numpy as np  # noqa: E402
import soundfile  # noqa: E402
import torch  # noqa: E402
from absl import app, flags  # noqa: E402
from PIL import Image  # noqa: E402

FLAGS = flags.FLAGS
flags.DEFINE_integer("samples", 96, "Files of each kind.")
flags.DEFINE_integer("passes", 4, "Passes over the files in an epoch.")
flags.DEFINE_integer("repeats", 3, "Timed epochs; prints the median.")
flags.DEFINE_integer("batch_size", 16, "Samples in a batch.")
flags.DEFINE_integer("workers", 2, "Workers on either side.")
flags.DEFINE_integer("seconds", 3, "Length of sounds and videos.")
flags.DEFINE_list("only", [], "Pipelines to time; default: all.")
flags.DEFINE_bool("processes", False, "Worker processes for our Python engine.")
flags.DEFINE_bool(
    "cpu",
    False,
    "Samples per second of CPU time, for busy machines; "
    "leaves out what worker processes take.",
)

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS += "a pinch of salt and some oil for the pan ##s".split()
LENGTH = 64
MODALITIES = {
    "crema_d": ("audio", "video"),
    "kinetics_sounds": ("audio", "clip"),
    "food101": ("image", "text"),
    "mvsa": ("image", "text"),
    "iemocap": ("audio", "frame", "text"),
}
SIZES = {"mvsa": 256, "iemocap": 256}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def make_files(root):
    """Writes sounds, videos, frames and pictures; returns samples."""
    from dataset_media import write_video, write_wav

    from keras_mla.datasets.listing import Sample

    rng = np.random.default_rng(0)
    samples = []
    for i in range(FLAGS.samples):
        wav = write_wav(root / f"{i}.wav", FLAGS.seconds, frequency=200 + i)
        coarse = rng.integers(0, 256, (12, 16, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((512, 384), Image.BICUBIC)
        picture.save(root / f"{i}.jpg", quality=90)
        frames = root / f"frames{i}"
        frames.mkdir()
        for j in range(FLAGS.seconds):
            small = picture.resize((480, 360)).rotate(5 * j)
            small.save(frames / f"{j + 1}.jpg", quality=90)
        video = root / f"{i}.mp4"
        write_video(video, 25 * FLAGS.seconds, 25, False, (320, 240), 12)
        inputs = {
            "audio": wav,
            "video": frames,
            "clip": video,
            "frame": video,
            "image": root / f"{i}.jpg",
            "text": " ".join(rng.choice(WORDS[5:-1], 30)),
        }
        inputs = {name: str(value) for name, value in inputs.items()}
        samples.append(Sample(str(i), i % 3, inputs, f"line {i}"))
    return samples


class Reference(torch.utils.data.Dataset):
    """The same work, as one would write it for a DataLoader."""

    def __init__(self, inputs, labels, modalities, size, training):
        self.inputs, self.labels = inputs, labels
        self.modalities, self.size = modalities, size
        self.training = training
        self.vocabulary = {word: i for i, word in enumerate(WORDS)}
        self.window = torch.hann_window(400, periodic=False)
        points = torch.linspace(*(self.mel(f) for f in (20.0, 8000.0)), 130)
        bins = self.mel(torch.arange(257) * 16000 / 512)[:, None]
        up = (bins - points[:-2]) / (points[1:-1] - points[:-2])
        down = (points[2:] - bins) / (points[2:] - points[1:-1])
        self.filters = torch.minimum(up, down).clamp(min=0)

    @staticmethod
    def mel(frequency):
        """Returns a frequency on the mel scale."""
        return 1127 * torch.log1p(torch.as_tensor(frequency) / 700)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        inputs = self.inputs[index]
        x = {m: getattr(self, m)(inputs[m]) for m in self.modalities}
        return x, self.labels[index]

    def audio(self, path):
        """Reads a sound as normalised log-mel features."""
        wave = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
        frames = (wave - wave.mean()).unfold(0, 400, 160)
        frames = frames - frames.mean(dim=1, keepdim=True)
        shifted = torch.cat([frames[:, :1], frames[:, :-1]], dim=1)
        frames = (frames - 0.97 * shifted) * self.window
        power = torch.fft.rfft(frames, 512).abs() ** 2
        mel = torch.log((power @ self.filters).clamp(min=2.0**-23))[:1024]
        mel = torch.nn.functional.pad(mel, (0, 0, 0, 1024 - len(mel)))
        return ((mel + 4.2677393) / (2 * 4.5689974))[..., None]

    def fit(self, pictures):
        """Crops, resizes and normalises pictures alike."""
        size, (width, height) = self.size, pictures[0].size
        box, flip = (0, 0, width, height), False
        if self.training:
            rng = np.random.default_rng()
            side = np.sqrt(rng.uniform(0.08, 1.0))
            aspect = np.sqrt(np.exp(rng.uniform(-0.28, 0.28)))
            w = min(width, side * aspect * width)
            h = min(height, side / aspect * height)
            left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
            box = (left, top, left + w, top + h)
            flip = rng.random() < 0.5
        pictures = [p.resize((size, size), 2, box) for p in pictures]
        if flip:
            pictures = [p.transpose(0) for p in pictures]
        stack = torch.from_numpy(np.stack([np.asarray(p) for p in pictures]))
        return (stack.float() / 255 - torch.tensor(MEAN)) / torch.tensor(STD)

    def video(self, path):
        """Reads three frames of a folder."""
        names = sorted(os.listdir(path))
        chosen = [names[(2 * i + 1) * len(names) // 6] for i in range(3)]
        opened = [Image.open(os.path.join(path, name)) for name in chosen]
        return self.fit([picture.convert("RGB") for picture in opened])

    def clip(self, path, n=3):
        """Reads evenly spaced frames of a video."""
        with av.open(path) as container:
            stream = container.streams.video[0]
            count = stream.frames
            chosen = {(2 * i + 1) * count // (2 * n) for i in range(n)}
            pictures = []
            for i, frame in enumerate(container.decode(stream)):
                if i in chosen:
                    pictures.append(frame.to_image())
                if len(pictures) == n:
                    break
        return self.fit(pictures)

    def frame(self, path):
        """Reads the middle frame of a video."""
        return self.clip(path, 1)[0]

    def image(self, path):
        """Reads a picture."""
        return self.fit([Image.open(path).convert("RGB")])[0]

    def text(self, words):
        """Looks up a text's words."""
        ids = [self.vocabulary.get(w, 1) for w in words.lower().split()]
        ids = ids[:LENGTH]
        mask = [True] * len(ids) + [False] * (LENGTH - len(ids))
        ids = ids + [0] * (LENGTH - len(ids))
        return {"token_ids": torch.tensor(ids), "padding_mask": mask}


def ours(samples, modalities, size, training, tokenizer, engine):
    """Returns our pipeline with the same modalities and settings."""
    from keras_mla.datasets import image, pipeline

    settings = image.ImageSettings(size=size)
    readers = {
        "audio": pipeline.audio_reader(),
        "video": pipeline.video_reader(settings),
        "clip": pipeline.video_reader(settings, modality="clip"),
        "frame": pipeline.video_reader(settings, None, "frame"),
        "image": pipeline.image_reader(settings),
        "text": pipeline.text_reader(tokenizer),
    }
    return pipeline.build(
        samples,
        pipeline.choose(readers, modalities),
        batch_size=FLAGS.batch_size,
        training=training,
        workers=FLAGS.workers,
        engine=engine,
        use_multiprocessing=engine == "python" and FLAGS.processes,
    )


def compare(found, expected):
    """Checks that both sides compute the same first batch."""
    for name, value in expected.items():
        if isinstance(value, dict):
            value, got = value["token_ids"], found[name]["token_ids"]
        else:
            got = found[name]
        gap = np.abs(np.asarray(got) - np.asarray(value))
        # A few log-mel bins near silence differ by rounding alone.
        if gap.mean() > 1e-3:
            raise AssertionError(f"{name} differs by {gap.mean()} on average")


def main(_):
    """Prints a table of samples per second."""
    # Imported here, so that the workers need not import it.
    from keras_mla.datasets import text

    print(
        "pipeline | mode | tf.data, samples/s | Python | DataLoader | "
        "tf.data / best | Python / best"
    )
    print("--- | --- | --- | --- | --- | --- | ---")
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        samples = make_files(root) * FLAGS.passes
        inputs, labels = zip(
            *((s.inputs, s.label) for s in samples), strict=True
        )
        (root / "vocab.txt").write_text("\n".join(WORDS))
        tokenizer = text.bert(root, LENGTH)
        for name in FLAGS.only or MODALITIES:
            size = SIZES.get(name, 224)
            for mode in ("training", "evaluation"):
                training = mode == "training"
                settings = (MODALITIES[name], size, training)
                engines = [
                    ours(samples, *settings, tokenizer, engine)
                    for engine in ("tensorflow", "python")
                ]
                loader = torch.utils.data.DataLoader(
                    Reference(inputs, labels, *settings),
                    FLAGS.batch_size,
                    shuffle=training,
                    num_workers=FLAGS.workers,
                    persistent_workers=True,
                    multiprocessing_context="spawn",
                )
                # The first pass starts the workers and traces the graph.
                sides = (*engines, loader)
                for (x, _), (z, _), (expected, _) in zip(*sides, strict=True):
                    if not training:
                        compare(x, expected)
                        compare(z, expected)
                measured = measure(sides)
                best = max(measured)
                rates = " | ".join(f"{rate:.0f}" for rate in measured)
                ratios = " | ".join(f"{r / best:.2f}" for r in measured[:2])
                print(f"{name} | {mode} | {rates} | {ratios}", flush=True)
                del loader, sides


def measure(sides):
    """Returns each side's median of samples per second."""
    rates = [[] for _ in sides]
    for turn in range(FLAGS.repeats):
        # Another side comes first each time.
        for shift in range(len(sides)):
            side = (turn + shift) % len(sides)
            start, cpu = time.perf_counter(), time.process_time()
            count = sum(len(y) for _, y in sides[side])
            seconds = time.perf_counter() - start
            if FLAGS.cpu:
                seconds = time.process_time() - cpu
            rates[side].append(count / seconds)
    return [statistics.median(rate) for rate in rates]


if __name__ == "__main__":
    app.run(main)
