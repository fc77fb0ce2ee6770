import os
import pathlib
import subprocess
import sys

import numpy as np
import soundfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_data(folder):
    rng = np.random.default_rng(0)
    (folder / "recordings").mkdir(parents=True)
    speakers = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
    for digit in range(3):
        for speaker in speakers:
            for index in (0, 5):
                name = f"recordings/{digit}_{speaker}_{index}.wav"
                soundfile.write(
                    folder / name, 0.1 * rng.standard_normal(3000), 8000
                )
    images = rng.integers(0, 256, (90, 28, 28), np.uint8)
    labels = np.arange(90) % 3
    np.savez(folder / "mnist_10k.npz", image=images, label=labels)


def test_runs_offline_and_goes_on_where_it_stopped(tmp_path):
    write_data(tmp_path / "data")
    command = [
        sys.executable,
        str(ROOT / "examples" / "av_digits.py"),
        f"--data_dir={tmp_path / 'data'}",
        f"--output_dir={tmp_path / 'out'}",
        "--epochs=1",
        "--seeds=1",
    ]
    options = {
        "capture_output": True,
        "text": True,
        "env": {**os.environ, "PYTHONPATH": str(ROOT)},
    }
    first = subprocess.run(command, **options)
    assert first.returncode == 0, first.stderr
    output = tmp_path / "out" / "speaker"
    table = (output / "table.md").read_text()
    assert table in first.stdout
    rows = [line.split(" | ")[0] for line in table.splitlines()[2:]]
    assert rows == ["concatenation", "alternation", "mla"]
    assert (output / "mla.png").stat().st_size > 1000
    (output / "mla0" / "result.json").unlink()
    again = subprocess.run(command, **options)
    assert again.returncode == 0, again.stderr
    assert "recording" not in again.stdout
    assert (output / "table.md").read_text() == table
