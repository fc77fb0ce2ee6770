"""Scripts on the paper's data sets, on small folders in their layout."""

import pytest
from script_runs import read_table, run
from utils import mainly_on, only_on

pytest.importorskip("keras_hub")
pytest.importorskip("av")

import dataset_layouts  # noqa: E402

from tests.encoders.utils import write_clip_preset  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*published"),
    pytest.mark.filterwarnings("ignore:.*rate"),
]


@only_on("torch")
def test_iemocap_with_missing_modalities(tmp_path, capsys):
    dataset_layouts.iemocap(tmp_path / "data")
    small = ("--width=8", "--depth=1", "--num_heads=2", "--image_size=32")
    arguments = (
        "iemocap_missing",
        f"--data_dir={tmp_path / 'data'}",
        f"--out={tmp_path / 'out'}",
        "--methods=MLA",
        "--epochs=1",
        "--seeds=1",
        "--audio_frames=32",
        "--mels=16",
        *small,
    )
    assert run(*arguments, "--missing=0.1,0.7") == 0, capsys.readouterr().err
    text = (tmp_path / "out" / "missing.md").read_text()
    assert "| Method | 10 % missing | 70 % missing |" in text
    assert text.count("| MLA |") == 3  # Three metrics.
    assert (tmp_path / "out" / "missing.svg").exists()
    assert run(*arguments, "--missing=none") == 1
    assert "--missing takes numbers" in capsys.readouterr().err


@mainly_on("torch")
def test_food101(tmp_path, capsys):
    data, preset, out = (tmp_path / name for name in ("data", "clip", "out"))
    dataset_layouts.food101(data)
    write_clip_preset(preset)
    broken = data / "images/train/waffles/waffles_0.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    flags = (f"--data_dir={data}", f"--output_dir={out}")
    flags = (*flags, f"--preset={preset}", "--text_length=12", "--width=8")
    flags = (*flags, "--validation_share=0.5", "--epochs=1", "--seeds=1")
    flags = (*flags, "--methods=Concat,MLA; no projection,MLA")
    assert run("food101_clip", *flags) == 1
    refused = capsys.readouterr().err.splitlines()[-1]
    assert "waffles_0.jpg" in refused and "train.jsonl, line" in refused
    assert run("food101_clip", *flags, "--on_error=skip") == 0
    output = capsys.readouterr().out
    assert "left out 1 broken pictures" in output
    assert "Modality gap of MLA: " in output
    table = read_table(out / "table.md")
    assert table[0] == ["Food-101, CLIP", "image", "text", "all"]
    names = ["CLIP", "Concat", "MLA, no projection", "MLA"]
    assert [row[0] for row in table[1:]] == names
    assert (out / "table.csv").read_text().startswith("method,part,")
    assert (out / "gap.png").read_bytes().startswith(b"\x89PNG")


@only_on("torch")
def test_food101_says_that_there_is_no_preset(tmp_path, capsys):
    dataset_layouts.food101(tmp_path / "data")
    status = run(
        "food101_clip",
        f"--data_dir={tmp_path / 'data'}",
        f"--output_dir={tmp_path / 'out'}",
        f"--preset={tmp_path / 'nothing'}",
    )
    [line] = capsys.readouterr().err.strip().splitlines()
    assert status == 1
    assert "Give a preset's name, which is downloaded, or a local" in line
