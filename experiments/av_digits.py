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

The flags of `keras-mla compare` mean the same here, as `table1.py` says.
`--out` gets `report.html` and `accuracies.md`.
"""

import functools
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras  # noqa: E402
import numpy as np  # noqa: E402
import paper_tables  # noqa: E402
import streams  # noqa: E402
from absl import flags  # noqa: E402

from keras_mla.comparison import command, compare  # noqa: E402
from keras_mla.datasets import audio  # noqa: E402

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
    pairing: str,
    digits: np.ndarray,
    speakers: np.ndarray,
    indices: np.ndarray,
) -> dict[str, np.ndarray]:
    """Returns the rows of each split."""
    if pairing == "speaker":
        rows = {k: np.isin(speakers, who) for k, who in SPEAKERS.items()}
        return {name: np.flatnonzero(row) for name, row in rows.items()}
    rest = np.random.default_rng(0).permutation(np.flatnonzero(indices >= 5))
    held, kept = np.split(rest, [len(rest) // 10])
    test = np.flatnonzero(indices < 5)
    return {"train": kept, "validation": held, "test": test}


def load(
    folder: pathlib.Path, cache: pathlib.Path, pairing: str
) -> dict[str, tuple]:
    """Returns `{split: ({"audio", "image"}, label)}`."""
    if not cache.exists():  # Written under its name only when it is whole.
        part = cache.with_suffix(".partial.npz")
        np.savez(part, *read(folder))
        part.replace(cache)
    with np.load(cache, allow_pickle=False) as file:
        sounds, digits, speakers, indices = (file[k] for k in file.files)
    with np.load(folder / "mnist_10k.npz", allow_pickle=False) as file:
        images, labels = file["image"], file["label"]
    rows = split(pairing, digits, speakers, indices)
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


def define_flags(values: flags.FlagValues) -> list[str]:
    """Defines the flags; returns those that every comparison has."""
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_string("data_dir", None, "Folder of the data.", **own)
    pairings = ["speaker", "official"]
    flags.DEFINE_enum("pairing", "speaker", pairings, "The split.", **own)
    return command.define_flags(
        values,
        methods=["Concat", "Late fusion", "MLA; no projection", "MLA"],
        trials=None,
        epochs=20,
        batch_size=64,
        learning_rate=["1e-3"],
        weight_decay=["0"],
        out="out/av_digits",
    )


def run(arguments: list[str]) -> None:
    """Trains every method with every seed; prints and saves the table."""
    values = flags.FlagValues()
    shared = define_flags(values)
    streams.parse(values, "av_digits.py", arguments)
    given = command.arguments(values)
    output = pathlib.Path(given.pop("out")).expanduser()
    output.mkdir(parents=True, exist_ok=True)
    folder = pathlib.Path(values["data_dir"].value).expanduser()
    pairing = values["pairing"].value
    title = f"Digits, {pairing}"
    result = compare(
        streams.data(
            title,
            load(folder, output / "spectrograms.npz", pairing),
            tuple(SHAPES),
            [str(digit) for digit in range(10)],
            streams.facts(values, shared),
        ),
        encoders={
            name: functools.partial(encoder, shape, f"{name}_encoder")
            for name, shape in SHAPES.items()
        },
        out=output,
        **given,
    )
    found = paper_tables.accuracies(result)
    text = paper_tables.markdown(title, found)
    paper_tables.show(output / "accuracies.md", text, found)
    paper_tables.tell(result)


def main(arguments: list[str]) -> int:
    """Runs the script; returns the exit status."""
    return command.status("av_digits.py", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
