"""Runs a script as its reader does, in a process of its own."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "experiments"), str(ROOT / "tests")]


def run(script, data_dir, output_dir, *flags, code=0):
    """Returns what was printed; on an error, what was written about it."""
    folder = ROOT / ("examples" if script == "food101_clip" else "experiments")
    result = subprocess.run(
        [
            sys.executable,
            str(folder / f"{script}.py"),
            f"--data_dir={data_dir}",
            f"--output_dir={output_dir}",
            "--epochs=1",
            "--seeds=1",
            *flags,
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert result.returncode == code, result.stderr[-3000:]
    return result.stderr if code else result.stdout


def read_table(folder):
    """Returns the table's cells, row by row, and checks what is beside it."""
    lines = (folder / "table.md").read_text().splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "table.csv").read_text().startswith("method,part,")
    return [rows[0], *rows[2:]]
