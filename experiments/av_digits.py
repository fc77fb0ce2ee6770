"""Spoken and written digits: MLA if one modality is much easier.

The folder holds `recordings/{digit}_{speaker}_{index}.wav`, as the Free Spoken
Digit Dataset publishes them, and `mnist_10k.npz` with `image` (n, 28, 28)
uint8 and `label` (n,). Each recording is paired with a picture of the same
digit; no picture is in two splits.

- `--pairing=official`: the recordings with index 0-4 are the test set, a tenth
  of the other recordings validation.
- `--pairing=speaker`: some speakers train, others validate and test. Sound is
  then the weak modality.

```shell
KERAS_BACKEND=torch python experiments/av_digits.py --data_dir=av_digits
```
"""

import os
import pathlib
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import common  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import runs  # noqa: E402
from absl import app, flags  # noqa: E402

import keras_mla  # noqa: E402
from keras_mla.datasets import audio  # noqa: E402

FLAGS = flags.FLAGS
common.define_flags(
    "out/av_digits", epochs=20, batch_size=64, learning_rate="1e-3"
)
flags.DEFINE_enum("pairing", "speaker", ["speaker", "official"], "The split.")

MODALITIES = ("audio", "image")
SPEAKERS = {
    "train": ["george", "jackson", "lucas"],
    "validation": ["nicolas"],
    "test": ["theo", "yweweler"],
}
FBANK = audio.Fbank(rate=8000, frames=64, mels=40, mean=-8.0, std=3.0)
SHAPES = {"audio": FBANK.shape, "image": (28, 28, 1)}


def read(folder: pathlib.Path) -> tuple[np.ndarray, ...]:
    """Returns spectrograms, digits, speakers and indices of all recordings."""
    sounds, rows = [], []
    files = sorted((folder / "recordings").glob("*_*_*.wav"))
    bar = keras.utils.Progbar(len(files), unit_name="recording")
    for path in files:
        digit, speaker, index = path.stem.split("_")
        wave = audio.decode(path, FBANK.rate, seconds=FBANK.seconds)
        sounds.append(np.asarray(FBANK(wave)))
        rows.append((int(digit), speaker, int(index)))
        bar.add(1)
    digits, speakers, indices = map(np.array, zip(*rows, strict=True))
    return np.stack(sounds), digits, speakers, indices


def split(
    digits: np.ndarray, speakers: np.ndarray, indices: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns the rows of each split."""
    if FLAGS.pairing == "speaker":
        rows = {k: np.isin(speakers, who) for k, who in SPEAKERS.items()}
        return {name: np.flatnonzero(row) for name, row in rows.items()}
    rest = np.random.default_rng(0).permutation(np.flatnonzero(indices >= 5))
    held, kept = np.split(rest, [len(rest) // 10])
    test = np.flatnonzero(indices < 5)
    return {"train": kept, "validation": held, "test": test}


def load(folder: pathlib.Path, cache: pathlib.Path) -> dict[str, tuple]:
    """Returns `{split: ({"audio", "image"}, label)}`."""
    if not cache.exists():  # Written under its name only when it is whole.
        part = cache.with_suffix(".partial.npz")
        np.savez(part, *read(folder))
        part.replace(cache)
    with np.load(cache, allow_pickle=False) as file:
        sounds, digits, speakers, indices = (file[k] for k in file.files)
    with np.load(folder / "mnist_10k.npz", allow_pickle=False) as file:
        images, labels = file["image"], file["label"]
    rows = split(digits, speakers, indices)
    # Each split gets pictures of its own, and draws from these alone.
    rng = np.random.default_rng(0)
    pool = np.array_split(rng.permutation(len(images)), len(rows))
    data = {}
    for (name, chosen), mine in zip(rows.items(), pool, strict=True):
        y = digits[chosen]
        pictures = np.zeros(len(y), int)
        for digit in np.unique(y):
            same = mine[labels[mine] == digit]
            where = np.flatnonzero(y == digit)
            pictures[where] = np.resize(rng.permutation(same), len(where))
        image = images[pictures][..., None].astype("float32") / 255
        data[name] = ({"audio": sounds[chosen], "image": image}, y)
    return data


def encoder(shape: tuple[int, ...], name: str) -> keras.Model:
    """Returns a small convolutional encoder with 64 features."""
    layers = keras.layers
    blocks = [keras.Input(shape)]
    for width in (16, 32):
        blocks += [layers.Conv2D(width, 3, padding="same", activation="relu")]
        blocks += [layers.MaxPooling2D()]
    blocks += [layers.Flatten(), layers.Dense(64, activation="relu")]
    return keras.Sequential(blocks, name=name)


def make_model(method: str) -> keras.Model:
    """Returns the model of a method."""
    encoders = {m: encoder(s, f"{m}_encoder") for m, s in SHAPES.items()}
    return common.make_method(method, encoders, 10)


def main(_: Any) -> None:
    """Trains every method with every seed; prints and saves the table."""
    output = common.prepare()
    folder = pathlib.Path(FLAGS.data_dir).expanduser()
    data = load(folder, output / "spectrograms.npz")
    methods = common.method_names()
    results = runs.compare(output, methods, make_model, lambda seed: data)
    common.report(
        output,
        {m: common.accuracies(r, MODALITIES) for m, r in results.items()},
        f"Digits, {FLAGS.pairing}",
    )
    last = methods[-1]
    log = results[last][0]["folder"] / "log.csv"
    keras_mla.analysis.plot_history(
        runs.history(log), MODALITIES, path=output / "history.png"
    )


if __name__ == "__main__":
    app.run(main)
