"""Arrays for the comparison, made from files as they are published."""

import json

import numpy as np
import pytest
import soundfile
from PIL import Image
from script_runs import run
from utils import long, only_on

from keras_mla.comparison import sources

SCRIPT = "comparison.make_npz"


def make(folder, *flags):
    out = folder / "made.npz"
    assert run(SCRIPT, f"--data_dir={folder}", f"--out={out}", *flags) == 0
    sources.load(str(out))  # A comparison takes it.
    with np.load(out, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@only_on("torch")
@pytest.mark.parametrize(
    "pairing", ["speaker", pytest.param("official", marks=long())]
)
def test_av_digits(tmp_path, pairing):
    rng = np.random.default_rng(0)
    (tmp_path / "recordings").mkdir()
    names = []
    for digit in range(2):
        for speaker in ("george", "nicolas", "theo"):
            for index in (3, 7, 12):
                names.append(f"{digit}_{speaker}_{index}.wav")
                sound = 0.1 * rng.standard_normal(2000)
                path = tmp_path / "recordings" / names[-1]
                soundfile.write(path, sound, 8000)
    labels = np.arange(40) % 2
    # The first pixel tells images apart, and with them their digit.
    images = np.zeros((40, 28, 28), "uint8")
    images[:, 0, 0] = np.arange(40)
    np.savez(tmp_path / "mnist_10k.npz", image=images, label=labels)
    arrays = make(tmp_path, "--source=av_digits", f"--pairing={pairing}")
    used = arrays["image"][:, 0, 0]
    np.testing.assert_array_equal(labels[used], arrays["y"])
    assert len(set(used)) == len(names)
    assert arrays["audio"].shape == (18, 64, 32, 1)
    by_speaker = {"george": 0, "nicolas": 1, "theo": 2}
    by_index = {"3": 2, "7": 1, "12": 0}
    for name, split in zip(sorted(names), arrays["split"], strict=True):
        _, speaker, index = name[:-4].split("_")
        if pairing == "speaker":
            assert split == by_speaker[speaker]
        else:
            assert split == by_index[index]


@only_on("torch")
@pytest.mark.filterwarnings("ignore:.*published")
def test_mvsa(tmp_path):
    (tmp_path / "data").mkdir()
    texts = {
        "train": ["Good day http://t.co/x", "good NIGHT !", "night sky !"],
        "dev": ["good sky today !"],
        "test": ["night"],
    }
    for split, lines in texts.items():
        records = []
        for index, text in enumerate(lines):
            key = f"{split}{index}"
            Image.new("RGB", (20, 10), (9 * index, 0, 0)).save(
                tmp_path / "data" / f"{key}.jpg"
            )
            record = {"id": key, "label": "positive", "text": text}
            record["label"] = "positive" if index else "negative"
            records.append({**record, "img": f"data/{key}.jpg"})
        (tmp_path / f"{split}.jsonl").write_text(
            "\n".join(json.dumps(record) for record in records)
        )
    arrays = make(tmp_path, "--source=mvsa", "--image_size=8", "--words=3")
    assert arrays["image"].shape == (5, 8, 8, 3)
    # Known are "!", "good" and "night", as 2, 3 and 4.
    np.testing.assert_array_equal(
        arrays["text"],
        [[3, 1, 0], [3, 4, 2], [4, 1, 2], [3, 1, 1], [4, 0, 0]],
    )
    np.testing.assert_array_equal(arrays["y"], [0, 2, 2, 0, 0])
    np.testing.assert_array_equal(arrays["split"], [0, 0, 0, 1, 2])


@only_on("torch")
def test_wrong_flags_are_one_line(capsys):
    assert run(SCRIPT, "--source=av_digits", "--data_dir=x") == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line == "make_npz.py: It needs --out."
