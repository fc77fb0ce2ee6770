import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from dataset_layouts import iemocap
from dataset_media import write_video
from utils import long, mainly_on

from keras_mla.datasets import crema_d, prepare, video


def clips(root, count=4, frames=12):
    names = []
    for i in range(count):
        name = f"{1001 + i}_DFA_ANG_XX"
        write_video(root / f"VideoFlash/{name}.flv", frames=frames)
        names.append(name)
    return names


def run(root, output, *more):
    return prepare.main(
        [
            "--dataset=crema_d",
            f"--data_dir={root}",
            f"--output_dir={output}",
            "--jobs=2",
            *more,
        ]
    )


def content(root):
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
    }


def test_wavs_and_frames(tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    names = clips(root)
    assert run(root, out) == 0
    assert "4 of 4 clips are ready" in capsys.readouterr().out
    for name in names:
        wave, rate = soundfile.read(out / f"AudioWAV/{name}.wav")
        assert rate == 16000 and abs(len(wave) - 48000) < 2500
        frames = video.frames(out / f"Image-01-FPS/{name}", n=3)
        # Three seconds of four frames, the third of each being taken.
        levels = frames.reshape(3, -1).mean(axis=1)
        np.testing.assert_allclose(levels, [40, 120, 200], atol=5)
        assert len(os.listdir(out / f"Image-01-FPS/{name}")) == 3
    # The loader takes what was made.
    (out / "train.csv").write_text(f"{names[0]},ANG\n")
    with pytest.warns(UserWarning, match="published"):
        sample = crema_d.files(out, "train")[0]
    assert sample.inputs["video"].endswith(f"Image-01-FPS/{names[0]}")


def test_what_is_there_is_left_alone(tmp_path):
    root, out = tmp_path / "in", tmp_path / "out"
    names = clips(root, 2)
    run(root, out)
    before = content(out)
    kept = out / f"Image-01-FPS/{names[0]}/frame_00001.jpg"
    stamp = kept.stat().st_mtime_ns
    (out / f"AudioWAV/{names[1]}.wav").unlink()
    leftover = out / f"Image-01-FPS/.{names[1]}.abc.partial"
    leftover.mkdir()
    (leftover / "frame_00001.jpg").write_bytes(b"half")
    assert run(root, out) == 0
    assert content(out) == before and kept.stat().st_mtime_ns == stamp


def test_corrupt_files_are_named_and_the_rest_is_made(tmp_path, capsys):
    root, out = tmp_path / "in", tmp_path / "out"
    names = clips(root, 3)
    broken = root / f"VideoFlash/{names[1]}.flv"
    broken.write_bytes(b"FLV damaged" * 50)
    silent = root / "VideoFlash/1009_DFA_ANG_XX.flv"
    write_video(silent, sound=False)
    assert run(root, out) == 1
    captured = capsys.readouterr()
    assert "2 of 4 clips are ready" in captured.out
    assert str(broken) in captured.err
    assert f"'{silent}' has no audio track" in captured.err
    made = sorted(f.name for f in (out / "AudioWAV").iterdir())
    assert made == [f"{names[0]}.wav", f"{names[2]}.wav"]
    assert not list(out.rglob("*.partial"))


@mainly_on("torch")
@long()
def test_killed_and_resumed(tmp_path):
    root, out, whole = (tmp_path / n for n in ("in", "out", "whole"))
    clips(root, 12, frames=40)
    assert run(root, whole) == 0
    command = [
        *(sys.executable, "-m", "keras_mla.datasets.prepare"),
        *("--dataset=crema_d", f"--data_dir={root}"),
        *(f"--output_dir={out}", "--jobs=1"),
    ]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    limit = time.monotonic() + 120
    while not list(out.glob("Image-01-FPS/1*")):
        assert process.poll() is None and time.monotonic() < limit
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    expected = content(whole)
    finished = {
        name: data
        for name, data in content(out).items()
        if ".partial" not in name
    }
    assert 0 < len(finished) < len(expected)
    # What stands under its own name is whole.
    assert all(expected[name] == data for name, data in finished.items())
    folders = [f for f in out.glob("Image-01-FPS/1*")]
    assert all(len(os.listdir(f)) == 10 for f in folders)
    assert run(root, out) == 0
    assert content(out) == expected


@pytest.mark.filterwarnings("ignore:.*are published")
def test_iemocap_utterances(tmp_path):
    iemocap(tmp_path / "in")
    out = tmp_path / "out"
    arguments = ["--dataset=iemocap", f"--data_dir={tmp_path / 'in'}"]
    assert prepare.main([*arguments, f"--output_dir={out}"]) == 0
    folders = sorted((out / "Image-01-FPS").iterdir())
    assert len(folders) == 30 and folders[1].name == "Ses01F_impro01_F002"
    # From 0.5 to 1.25 s: frames 2 to 4, the middle one being 3.
    found = video.frames(folders[1], n=1)
    assert abs(found.mean() - 60) < 5


def test_wrong_arguments(tmp_path, capsys):
    for arguments, message in (
        (["--dataset=mvsa"], "invalid choice"),
        (["--dataset=crema_d", "--data_dir=/none"], "data_dir='/none'"),
        (["--dataset=crema_d", f"--data_dir={tmp_path}"], "no folder"),
        (
            [
                "--dataset=crema_d",
                f"--data_dir={tmp_path}",
                "--jobs=0",
            ],
            "--jobs must be positive",
        ),
    ):
        if not any("data_dir" in a for a in arguments):
            arguments = [*arguments, "--data_dir=x"]
        with pytest.raises(SystemExit) as error:
            prepare.main([*arguments, "--output_dir=out"])
        assert error.value.code == 2
        assert message in capsys.readouterr().err
