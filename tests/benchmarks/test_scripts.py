"""Each benchmark runs, in small sizes, and prints a ratio."""

import re

import pytest
from utils import ROOT, in_process, long, only_on

SMALL = {
    "calibration": ("--samples=200", "--classes=5", "--repeats=1"),
    "compare": (
        "--methods=SumFusion,MLA",
        "--epochs=1",
        "--seeds=1",
        "--repeats=1",
    ),
    "correlation": ("--width=4", "--steps=3", "--repeats=1"),
    "encoders": ("--encoder=audio_resnet18", "--repeats=1"),
    "methods": ("--methods=DGL",),
    "pipelines": (
        "--samples=8",
        "--passes=1",
        "--repeats=1",
        "--seconds=1",
        "--only=mvsa",
    ),
    "presence": ("--steps=2", "--repeats=1", "--width=40"),
    "processes": (
        "--steps=2",
        "--repeats=1",
        "--batch_size=16",
        "--units=16",
        "--width=16",
    ),
    "projection": ("--small", "--noresnet", "--repeats=1", "--seconds=0"),
    "serve": ("--clients=1,4", "--requests=8", "--repeats=1"),
    "tables": ("--rows=5000", "--repeats=1"),
    "train_step": ("--steps=3", "--repeats=1", "--nomemory"),
}


def test_each_benchmark_is_tried():
    scripts = {path.stem for path in (ROOT / "benchmarks").glob("*.py")}
    assert scripts == {*SMALL, "gpu"}  # The GPU's has tests of its own.


@only_on("torch")
@long()
@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs(name):
    script = ROOT / "benchmarks" / f"{name}.py"
    result = in_process(script, *SMALL[name], hidden=False)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    assert re.search(r"\d\.\d", result.stdout), result.stdout
