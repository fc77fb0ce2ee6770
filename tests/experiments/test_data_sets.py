"""The examples on the paper's data sets, on small folders in their layout.

They differ in data and encoders alone, which have tests of their own on every
backend. Each example runs on one, `food101_clip.py` with `--long` on every one.
"""

import pytest
from script_runs import read_table, run
from utils import long, mainly_on, only_on

pytest.importorskip("keras_hub")
pytest.importorskip("av")

import dataset_layouts  # noqa: E402

from tests.encoders.utils import write_clip_preset  # noqa: E402

SMALL = ("--width=8", "--depth=1", "--num_heads=2", "--image_size=32")


@long()
def test_mvsa(tmp_path):
    dataset_layouts.mvsa(tmp_path / "data")
    methods = "--methods=MLA; no projection,MLA"
    run("mvsa_m3ae", tmp_path / "data", tmp_path / "out", *SMALL, methods)
    table = read_table(tmp_path / "out")
    assert table[0] == ["MVSA-Single", "MLA, no projection", "MLA"]
    assert [row[0] for row in table[1:]] == ["image", "text", "all"]
    assert "##t" in (tmp_path / "out" / "vocab.txt").read_text().split()


@only_on("torch")
@long()
def test_iemocap(tmp_path):
    dataset_layouts.iemocap(tmp_path / "data")
    small = (*SMALL, "--audio_frames=32", "--mels=16", "--methods=MLA")
    arguments = ("iemocap_missing", tmp_path / "data")
    run(*arguments, tmp_path / "out", "--rates=0.1,0.7", *small)
    table = read_table(tmp_path / "out")
    assert table[0] == ["IEMOCAP, missing rate", "10 %", "70 %"]
    assert [row[0] for row in table[1:]] == ["MLA"]
    assert (tmp_path / "out" / "rates.png").stat().st_size > 1000


@pytest.mark.parametrize(
    "dataset",
    [
        pytest.param("crema_d", marks=long()),
        pytest.param("kinetics_sounds", marks=only_on("torch")),
    ],
)
def test_audio_video(tmp_path, dataset):
    getattr(dataset_layouts, dataset)(tmp_path / "data")
    run(
        "crema_d_resnet18",
        tmp_path / "data",
        tmp_path / "out",
        f"--dataset={dataset}",
        "--validation_share=0.4",
        "--frames=2",
        "--image_size=32",
        "--audio_frames=32",
        "--mels=16",
        "--methods=MLA",
        "--batch_size=4",
    )
    table = read_table(tmp_path / "out")
    assert table[0] == [dataset, "MLA"]
    assert [row[0] for row in table[1:]] == ["audio", "video", "all"]


@mainly_on("torch")
def test_food101(tmp_path):
    data, preset = tmp_path / "data", tmp_path / "clip"
    dataset_layouts.food101(data)
    write_clip_preset(preset)
    broken = data / "images/train/waffles/waffles_0.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    arguments = ("food101_clip", data, tmp_path / "out")
    flags = (f"--preset={preset}", "--text_length=12", "--width=8")
    flags = (*flags, "--validation_share=0.5")
    refused = run(*arguments, *flags, code=1)
    assert "waffles_0.jpg" in refused and "train.jsonl, line" in refused
    output = run(*arguments, *flags, "--on_error=skip")
    assert "left out 1 broken pictures" in output
    assert "Modality gap of MLA: " in output
    table = read_table(tmp_path / "out")
    assert table[0] == ["Food-101, CLIP", "image", "text", "all"]
    assert [row[0] for row in table[1:3]] == ["CLIP", "Concat"]
    gap = (tmp_path / "out" / "gap.png").read_bytes()
    assert gap.startswith(b"\x89PNG")


@only_on("torch")
def test_food101_says_that_there_is_no_preset(tmp_path):
    dataset_layouts.food101(tmp_path / "data")
    refused = run(
        "food101_clip",
        tmp_path / "data",
        tmp_path / "out",
        f"--preset={tmp_path / 'nothing'}",
        code=1,
    )
    assert "Give a preset's name, which is downloaded, or a local" in refused
