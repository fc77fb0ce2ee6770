"""Each short example runs, and what it prints is what it promises."""

import os
import pathlib
import re
import runpy

import keras
import pytest
from utils import long, mainly_on

pytest.importorskip("sklearn")
# They compile a model each, and do not depend on the backend.
pytestmark = mainly_on("torch")
EXAMPLES = pathlib.Path(__file__).resolve().parents[2] / "examples"


def numbers(name, folder, capsys, monkeypatch):
    """Runs an example; what it printed, and the numbers of each line."""
    monkeypatch.chdir(folder)
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    text = capsys.readouterr().out
    lines = [line for line in text.splitlines() if line]
    pattern = r"\d+\.\d+"
    return text, [[float(n) for n in re.findall(pattern, x)] for x in lines]


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    return lambda name: numbers(name, tmp_path, capsys, monkeypatch)


def test_missing_modalities(run):
    both, image, profile = (line[0] for line in run("missing_modalities")[1])
    assert min(both, image) > 90 and profile > 70


def test_own_files(run):
    pytest.importorskip("tensorflow")
    pytest.importorskip("PIL")
    text, lines = run("own_files")
    assert "('3', 'front')" in text and "('4', 'side')" in text
    assert [line[0] > 90 for line in lines[-3:]] == [True] * 3


def test_unpaired_modalities(run):
    image, profile, both = (line[0] for line in run("unpaired_modalities")[1])
    assert min(both, image) > 90 and profile > 70


def test_regression(run):
    lines = run("regression")[1]
    for body, blood, both in (line[-3:] for line in lines):
        assert both > max(body, blood) > 0.1


def test_multi_label(run):
    title, body, both = (line[1] for line in run("multi_label")[1])
    assert both > max(title, body) > 0.7


def test_resume_training(run):
    text, _ = run("resume_training")
    assert "epochs [4, 5, 6]" in text
    assert "without interruption: True" in text


# PyTorch's exporter warns, also of itself.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="JAX exports no ONNX."
)
def test_calibrate_and_export(run):
    pytest.importorskip("onnxruntime")
    text, _ = run("calibrate_and_export")
    before, *after = re.findall(r"calibration error (\S+)", text)
    assert len(after) == 2 and max(map(float, after)) < float(before)
    assert "kept: " in text
    assert float(re.search(r"differs by (\S+)", text)[1]) < 1e-4


def test_pretrain_encoders(run):
    _, lines = run("pretrain_encoders")
    for before, after in lines[:2]:
        assert after < 0.9 * before
    assert lines[2][0] > 60


def test_look_inside(run, tmp_path):
    pytest.importorskip("matplotlib")
    text, lines = run("look_inside")
    weights = [float(w) for w in re.findall(r"weighs (\S+)", text)]
    assert abs(sum(weights) - 1) < 0.02
    image, profile = (line[0] for line in lines[6:8])
    assert image > profile > 10  # What each modality is worth.
    read_out = [number for line in lines[9:11] for number in line]
    assert len(read_out) == 4 and min(read_out) > 80
    left, size = re.search(r"learn in (\d+) of (\d+)", text).groups()
    assert 0 < int(left) < int(size) == 64
    figures = re.search(r"Figures: (.*) \(.png\)", text)[1].split(", ")
    assert len(figures) == 6
    for name in figures:
        picture = (tmp_path / f"{name}.png").read_bytes()
        assert picture.startswith(b"\x89PNG")


def test_own_table(run):
    pytest.importorskip("pandas")
    text, lines = run("own_table")
    assert "absent in" in text and "3 classes (str), single_label" in text
    assert lines[-4][-1] > 90
    assert text.endswith("predicted: ['shoe', 'pan']\n")


@long()  # The guide of scikit-learn runs the same.
def test_scikit_learn(run):
    lines = run("scikit_learn")[1]
    chances = [line[-1] for line in lines[:4]]
    both, one = (line[-1] for line in lines[-2:])
    assert len(chances) == 4 and both > one > 60 and both > 90


def test_every_example_is_short_and_listed():
    listed = (EXAMPLES / "README.md").read_text()
    tested = pathlib.Path(__file__).read_text()
    for path in EXAMPLES.glob("*.py"):
        assert f"`{path.name}`" in listed
        # These have tests of their own.
        if path.stem not in ("quickstart", "food101_clip", "serve"):
            assert len(path.read_text().splitlines()) < 100
            assert f'run("{path.stem}")' in tested


def test_an_example_takes_the_backend_that_was_chosen():
    assert os.environ["KERAS_BACKEND"] == keras.backend.backend()
