"""Figure 2's experiment, on a small file of arrays."""

import csv

import numpy as np
import pytest
from script_runs import run
from utils import only_on

pytest.importorskip("jinja2")
pytestmark = only_on("torch")

SMALL = ("--seeds=2", "--epochs=2", "--width=8", "--methods=mla")


def test_a_curve_for_each_modality_and_method(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(60) % 2
    arrays = {n: rng.normal(y[:, None], 1, (60, 3)) for n in ("text", "audio")}
    np.savez(tmp_path / "data.npz", **arrays, y=y)
    flags = [
        f"--data={tmp_path / 'data.npz'}",
        f"--out={tmp_path / 'out'}",
        "--shares=0,0.8",
        *SMALL,
    ]
    assert run("modality_isolation", *flags) == 0
    assert "| text | MLA | audio |" in capsys.readouterr().out
    with (tmp_path / "out" / "isolation.csv").open() as file:
        rows = list(csv.DictReader(file))
    # Two modalities taken away, two shares, two measured and two seeds.
    assert len(rows) == 2**4
    complete = {
        (row["method"], row["modality"], row["run"], row["value"])
        for row in rows
        if row["share"] == "0.0"
    }
    assert len(complete) == 2**2  # One training without anything taken away.
    assert "<svg" in (tmp_path / "out" / "isolation.svg").read_text()


def test_wrong_shares(tmp_path, capsys):
    assert run("modality_isolation", "--shares=0.2,1") == 1
    assert "less than 1. Received: 0.2,1" in capsys.readouterr().err
