"""Writes an `.npz` that `keras-mla compare` takes, from published files.

    python experiments/comparison/make_npz.py --source=av_digits \
        --data_dir=/path/to/av_digits --pairing=speaker --out=av_speaker.npz

- `av_digits`: a folder with `recordings/{digit}_{speaker}_{index}.wav`, as the
  Free Spoken Digit Dataset publishes them, and `mnist_10k.npz` with `image`
  (n, 28, 28) uint8 and `label`. Each recording becomes a log-mel spectrogram,
  paired with an image of the same digit that no other recording has. With
  `--pairing=official`, recordings 0-4 of each speaker and digit are the test
  split and 5-9 validation; with `speaker`, speakers differ between splits.
- `mvsa`: the folder of MVSA-Single, as `keras_mla.datasets.mvsa` takes it.
  Images become squares of `--image_size`, texts become ids of the words that
  occur at least twice in training.

It needs the `media` extra.
"""

import os
import pathlib
import re
import sys
from collections import Counter

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

import numpy as np  # noqa: E402
from absl import flags  # noqa: E402
from tqdm import tqdm  # noqa: E402

from keras_mla.comparison import command  # noqa: E402
from keras_mla.datasets import audio, image, mvsa  # noqa: E402

SPLITS = ("train", "validation", "test")
HELD_OUT = {"nicolas": 1, "theo": 2, "yweweler": 2}
FBANK = audio.Fbank(rate=8000, frames=64, mels=32)


def av_digits(folder: pathlib.Path, pairing: str) -> dict[str, np.ndarray]:
    """Returns `audio`, `image`, `y` and `split` of the digits."""
    sounds, split, y = [], [], []
    for path in tqdm(sorted((folder / "recordings").glob("*_*_*.wav"))):
        digit, speaker, index = path.stem.split("_")
        wave = audio.decode(path, FBANK.rate, seconds=FBANK.seconds)
        sounds.append(np.asarray(FBANK(wave)))
        if pairing == "speaker":
            split.append(HELD_OUT.get(speaker, 0))
        else:
            split.append(2 if int(index) < 5 else 1 if int(index) < 10 else 0)
        y.append(int(digit))
    with np.load(folder / "mnist_10k.npz", allow_pickle=False) as file:
        images, labels = file["image"], file["label"]
    digits = np.array(y)
    chosen = np.zeros(len(digits), int)
    rng = np.random.default_rng(0)
    for digit in np.unique(digits):
        rows = np.flatnonzero(digits == digit)
        same = rng.permutation(np.flatnonzero(labels == digit))
        if len(same) < len(rows):
            raise ValueError(
                f"Each recording needs an image of its own. Received: "
                f"{len(rows)} recordings and {len(same)} images of {digit}"
            )
        chosen[rows] = same[: len(rows)]
    return {
        "audio": np.stack(sounds).astype("float32"),
        "image": images[chosen],
        "y": digits,
        "split": np.array(split),
    }


def mvsa_single(
    folder: pathlib.Path, size: int, length: int
) -> dict[str, np.ndarray]:
    """Returns `image`, `text`, `y` and `split` of the tweets."""
    settings = image.ImageSettings(size=size)
    samples = [mvsa.files(folder, split) for split in SPLITS]
    words = Counter(
        word for sample in samples[0] for word in _words(sample.inputs["text"])
    )
    # 0 is padding, 1 is any word that occurs less than twice in training.
    kept = sorted(word for word, count in words.items() if count > 1)
    ids = {word: index for index, word in enumerate(kept, 2)}
    flat = [sample for part in samples for sample in part]
    text = np.zeros((len(flat), length), "int32")
    pictures = np.zeros((len(flat), size, size, 3), "uint8")
    for row, sample in enumerate(tqdm(flat)):
        found = _words(sample.inputs["text"])[:length]
        text[row, : len(found)] = [ids.get(word, 1) for word in found]
        pictures[row] = settings.fit(image.open_image(sample.inputs["image"]))
    return {
        "image": pictures,
        "text": text,
        "y": np.array([sample.label for sample in flat]),
        "split": np.repeat(np.arange(3), [len(part) for part in samples]),
    }


def _words(text: str) -> list[str]:
    text = re.sub(r"https?://\S+", "", text.lower())
    return re.findall(r"[@#]?\w+|[^\w\s]", text)


def define_flags() -> flags.FlagValues:
    """Returns the flags of the script."""
    values = flags.FlagValues()
    own = {"flag_values": values}
    flags.DEFINE_enum(
        "source", None, ["av_digits", "mvsa"], "What to read.", **own
    )
    flags.DEFINE_string("data_dir", None, "Folder of the files.", **own)
    flags.DEFINE_string("out", None, "The `.npz` to write.", **own)
    flags.DEFINE_enum(
        "pairing", "speaker", ["speaker", "official"], "The splits.", **own
    )
    flags.DEFINE_integer(
        "image_size", 48, "Height and width of MVSA's images.", **own
    )
    flags.DEFINE_integer("words", 32, "Words to keep of a text.", **own)
    return values


def run(arguments: list[str]) -> None:
    """Writes the file."""
    values = define_flags()
    command.parse(values, "make_npz.py", arguments)
    for name in ("source", "data_dir", "out"):
        if values[name].value is None:
            raise command.UsageError(f"It needs --{name}.")
    folder = pathlib.Path(values["data_dir"].value).expanduser()
    arrays = (
        av_digits(folder, values["pairing"].value)
        if values["source"].value == "av_digits"
        else mvsa_single(
            folder, values["image_size"].value, values["words"].value
        )
    )
    np.savez_compressed(values["out"].value, **arrays)
    for name, array in arrays.items():
        print(f"{name}: {array.dtype} {array.shape}")


def main(arguments: list[str]) -> int:
    """Runs the script; returns the exit status."""
    return command.status("make_npz.py", lambda: run(arguments))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
