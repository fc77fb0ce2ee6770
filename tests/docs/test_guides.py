"""The code of the guides runs, and prints what they say."""

import json
import os
import re
import sys

import pytest
from utils import ROOT, in_process, only_on

pytest.importorskip("sybil")
sys.path.insert(0, str(ROOT / "docs"))

import run_guides


def guides():
    """Yields the guides; exporters and interrupted writers warn by design."""
    for name in run_guides.names():
        warns = name in ("deploy", "resume")
        mark = pytest.mark.filterwarnings("ignore") if warns else ()
        yield pytest.param(name, marks=mark)


@pytest.mark.parametrize("name", list(guides()))
def test_a_guide_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if name == "resume":
        # It presses Ctrl-C, which a process that runs tests takes for its own.
        code = "import run_guides; run_guides.run('resume')"
        more = {"PYTHONPATH": f"{ROOT / 'docs'}{os.pathsep}{ROOT}"}
        in_process("-c", code, more=more, check=True)
    else:
        run_guides.run(name)
    # The page shows what the code draws.
    for picture in run_guides.pictures(name):
        assert (tmp_path / picture).stat().st_size > 1000
        assert (ROOT / "docs" / "images" / picture).exists()


@only_on("torch")
@pytest.mark.parametrize(
    "said, printed, same",
    [
        ("loss 0.31, 12 rows", "loss  0.33,\n12 rows", True),
        ("loss 0.31", "loss 0.35", False),
        ("12 rows", "13 rows", False),
        ("93%", "95%", True),
        ("93 %", "97 %", False),
        ("m1 0.5", "m2 0.5", False),
        ("-0.10 (3 of 4)", "-0.12 (3 of 4)", True),
        ("0.10", "0.10 0.10", False),
    ],
)
def test_what_counts_as_printed(said, printed, same):
    assert run_guides.alike(said, printed) == same


@only_on("torch")
def test_a_wrong_result_fails(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    monkeypatch.setattr(run_guides, "path_of", lambda name: page)
    page.write_text("```python\nprint(2)\n```\n\n```text\n2\n```\n")
    run_guides.run("page")
    page.write_text("```python\nprint(2)\n```\n\n```text\n3\n```\n")
    with pytest.raises(Exception, match="It printed"):
        run_guides.run("page")
    page.write_text("<!-- skip: next -->\n```python\nraise OSError\n```\n")
    run_guides.run("page")
    page.write_text("```python\nx = 1\n```\n\n```python\nassert x == 2\n```\n")
    with pytest.raises(AssertionError):
        run_guides.run("page")


@only_on("torch")
@pytest.mark.parametrize("name", run_guides.NOTEBOOKS)
def test_a_notebook_is_its_guide(name):
    pytest.importorskip("jupytext")
    path = ROOT / "docs" / "notebooks" / f"{name}.ipynb"
    stored = json.loads(path.read_text(encoding="utf-8"))
    made = run_guides.notebook(name)
    assert [(c["cell_type"], _text(c)) for c in stored["cells"]] == [
        (c["cell_type"], _text(c)) for c in made.cells
    ]
    printed = [o for c in stored["cells"] for o in c.get("outputs", ())]
    assert printed and all(o["output_type"] != "error" for o in printed)
    assert not re.search(r"/(home|root|tmp|work)/", path.read_text())


def _text(cell):
    return "".join(cell["source"])
