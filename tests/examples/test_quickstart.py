import pytest
from utils import ROOT, in_process, mainly_on

pytest.importorskip("sklearn")
pytest.importorskip("matplotlib")


# The backend of the command in README.
@mainly_on("jax")
def test_prints_tables_and_draws(tmp_path):
    figure = tmp_path / "curves.png"
    script = ROOT / "examples" / "quickstart.py"
    result = in_process(script, "--epochs=4", f"--figure={figure}")
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [
        line.split()[-3:]
        for line in result.stdout.splitlines()
        if line.startswith(("joint training  ", "MLA  "))
    ]
    joint, mla = ([float(value) for value in row] for row in rows[:2])
    assert mla[1] > joint[1] + 10  # The profile is no longer left alone.
    assert figure.read_bytes().startswith(b"\x89PNG")
