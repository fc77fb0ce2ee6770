"""The comparison's command: bad data, choices, and a run that is killed."""

import json
import os
import pathlib
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from utils import mainly_on, only_on

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
sys.path.append(str(EXPERIMENTS))

from comparison import data, methods, runs, tables  # noqa: E402


def arrays(samples=30, **changes):
    rng = np.random.default_rng(0)
    return {
        "audio": rng.normal(size=(samples, 8)),
        "image": rng.integers(0, 255, (samples, 8, 8)).astype("uint8"),
        "text": rng.integers(0, 50, (samples, 7)),
        "y": np.arange(samples) % 3,
        "split": np.arange(samples) // 10,
        **changes,
    }


def saved(tmp_path, **arrays):
    path = tmp_path / "data.npz"
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return str(path)


@mainly_on("torch")
def test_arrays_are_split_and_get_encoders(tmp_path):
    loaded = data.load(saved(tmp_path, **arrays()))
    assert loaded.modalities == ("audio", "image", "text")
    assert loaded.classes == 3
    np.testing.assert_array_equal(loaded.y["test"], np.arange(20, 30) % 3)
    train = loaded.x["train"]
    kinds = {name: data.kind_of(array) for name, array in train.items()}
    assert kinds == {"audio": "mlp", "image": "conv2d", "text": "tokens"}
    for name, array in train.items():
        encoder = data.make_encoder(array, kinds[name], width=5)
        assert encoder(array).shape == (10, 5)
    # By the training split's own statistics.
    np.testing.assert_allclose(train["audio"].mean(0), 0, atol=1e-6)
    waveform = np.zeros((2, 9000), "float32")
    assert data.kind_of(waveform) == "conv1d"
    assert data.make_encoder(waveform, "conv1d", 5)(waveform).shape == (2, 5)


def test_padding_and_unknown_tokens_say_nothing(tmp_path):
    text = np.ones((30, 7), int)
    text[0, :3], text[12, 3:] = (5, 4, 5), 99
    loaded = data.load(saved(tmp_path, **arrays(text=text)))
    assert loaded.x["validation"]["text"].max() == 1
    encoder = data.make_encoder(loaded.x["train"]["text"], "tokens", width=4)
    assert encoder.layers[1].input_dim == 6
    long = np.zeros((1, 7), "int32")
    long[0, :2] = 4, 5
    short = np.array([[5, 4, 4, 5, 0, 0, 0]], "int32")
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(encoder(long)),
        keras.ops.convert_to_numpy(encoder(short)),
        atol=1e-6,
    )


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"y": None}, "has no array 'y'"),
        ({"split": None}, "has no array 'split'"),
        ({"text": np.zeros((29, 7))}, "29 in 'text' and 30 in 'y'"),
        ({"split": np.zeros(29)}, "29 in 'split' and 30 in 'y'"),
        ({"text": np.array([["a"]] * 30, object)}, "arrays of objects"),
        ({"text": np.array(["word"] * 30)}, "'text' .* cannot be a modality"),
        ({"y": np.arange(30)}, "between 0 and .* 9. Received: 10"),
        ({"y": np.arange(30) % 3 - 1}, "Received: -1"),
        ({"y": np.zeros(30)}, "must hold a class, an int"),
        ({"split": np.arange(30) // 15}, "each at least once"),
        ({"audio": None, "image": None}, "at least two modalities"),
    ],
)
def test_bad_data(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        data.load(saved(tmp_path, **arrays(**changes)))


def test_bad_names(tmp_path):
    with pytest.raises(ValueError, match="no array 'video'"):
        data.load(saved(tmp_path, **arrays()), ["audio", "video"])
    with pytest.raises(ValueError, match="Received: nowhere.npz"):
        data.load("nowhere.npz")
    with pytest.raises(ValueError, match="no method 'MLP'"):
        methods.named(["MLA", "MLP"])
    with pytest.raises(ValueError, match="Received: 'cnn'"):
        data.make_encoder(np.zeros((2, 3), "float32"), "cnn", 5)


def test_every_method_can_be_made():
    array = np.zeros((4, 3), "float32")
    for name, method in methods.METHODS.items():
        own = {key: values[0] for key, values in method.grid.items()}
        encoders = {m: data.make_encoder(array, "mlp", 2) for m in "ab"}
        assert method.make(encoders, 3, 4, **own).built, name


def test_tables_hold_mean_and_deviation(tmp_path):
    def final(method, accuracy):
        score = {"accuracy": accuracy, "nll": 1.0, "ece": 0.1}
        test = {part: score for part in ("a", "b", "all")}
        return {"run": {"method": method}, "test": test}

    text = tables.write(
        tmp_path, ("a", "b"), [final("Sum", 0.5), final("Sum", 0.7)]
    )
    assert "| Sum | 60.0 ± 14.1 | 60.0 ± 14.1 | 60.0 ± 14.1 | – |" in text
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert rows[1].startswith("Sum,a,accuracy,0.6,0.1414")
    assert (tmp_path / "figure.png").stat().st_size > 1000


def test_settings_are_chosen_by_their_mean_over_seeds():
    def trial(rate, seed, accuracy, nll):
        what = {"setting": {"learning_rate": rate}, "seed": seed}
        return {"run": what, "validation": {"accuracy": accuracy, "nll": nll}}

    trials = [
        trial(0.1, 0, 0.9, 1.0),
        trial(0.1, 1, 0.5, 1.0),
        trial(0.2, 0, 0.75, 1.2),
        trial(0.2, 1, 0.75, 1.2),
        trial(0.3, 0, 0.75, 1.1),
        trial(0.3, 1, 0.75, 1.1),
    ]
    assert runs.best_setting(trials) == {"learning_rate": 0.3}


def command(out, *flags):
    return [
        sys.executable,
        str(EXPERIMENTS / "compare_methods.py"),
        "--data=digits",
        "--methods=Sum,Late fusion",
        "--seeds=0",
        "--trials=1",
        "--epochs=1",
        "--batch_size=512",
        f"--out={out}",
        *flags,
    ]


def lines_of(path):
    return path.read_text().splitlines() if path.exists() else []


@only_on("torch")
def test_killed_and_resumed(tmp_path):
    log = tmp_path / "runs.jsonl"
    process = subprocess.Popen(
        command(tmp_path), stderr=subprocess.DEVNULL, env=os.environ
    )
    deadline = time.monotonic() + 120
    while len(lines_of(log)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.kill()
    process.wait()
    before = lines_of(log)
    assert json.loads(before[1])["run"]["method"] == "Sum"
    # What a process leaves that is killed while it writes.
    with log.open("a") as file:
        file.write('{"run": {"method": "Late')
    done = subprocess.run(
        command(tmp_path), capture_output=True, text=True, check=True
    )
    after = lines_of(log)
    assert after[: len(before)] == before
    records = [json.loads(line) for line in after[1:]]
    assert [r["run"]["method"] for r in records] == ["Sum", "Late fusion"]
    assert "| Late fusion |" in done.stdout
    assert (tmp_path / "table.md").exists()


@only_on("torch")
def test_other_flags_are_refused(tmp_path):
    (tmp_path / "runs.jsonl").write_text('{"epochs": 7}\n')
    done = subprocess.run(command(tmp_path), capture_output=True, text=True)
    assert done.returncode != 0
    assert "holds runs with other flags" in done.stderr
