"""Runs the code of guides, from their Markdown, and checks what they print.

    KERAS_BACKEND=jax python docs/run_guides.py             # all guides
    python docs/run_guides.py resume calibrate --pictures   # draws theirs anew
    python docs/run_guides.py --notebooks                   # writes notebooks

A block of `python` is executed, after those before it. A block of `text` that
follows it is what it prints: words must be equal, integers too, and other
numbers within three units of their last digit, since backends draw other
random numbers. `<!-- skip: next -->` before a block leaves it out.
"""

import argparse
import contextlib
import io
import os
import pathlib
import re
import shutil
import sys
import tempfile

import sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

HERE = pathlib.Path(__file__).parent
# These also open as notebooks, with their outputs.
NOTEBOOKS = ("missing_modalities", "own_encoders")
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?: ?%)?(?![\w])")


class _Python(PythonEvaluator):
    """Executes a block, and keeps what it prints."""

    def __call__(self, example):
        """Executes a block."""
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            super().__call__(example)
        example.namespace["__printed__"] = printed.getvalue()


def _check_printed(example):
    """Compares a block of text with what was printed before."""
    printed = example.namespace.pop("__printed__", "")
    if not alike(example.parsed, printed):
        return f"The guide says:\n{example.parsed}\nIt printed:\n{printed}"
    return None


def alike(said, printed):
    """Returns whether two texts are equal up to small gaps of numbers."""
    said, printed = (re.sub(r"\s+", " ", t).strip() for t in (said, printed))
    if _NUMBER.sub("#", said) != _NUMBER.sub("#", printed):
        return False
    pairs = zip(_NUMBER.findall(said), _NUMBER.findall(printed), strict=True)
    return all(_near(*pair) for pair in pairs)


def _near(said, printed):
    first, second = (float(n.rstrip("% ")) for n in (said, printed))
    decimals = len(said.rstrip("% ").partition(".")[2])
    exact = not decimals and "%" not in said
    return abs(first - second) <= (0 if exact else 3.001 * 10**-decimals)


def run(name):
    """Runs a guide in the current folder.

    Raises:
        Exception: The error of the first block that fails.
    """
    parsers = [
        CodeBlockParser("python", _Python()),
        CodeBlockParser("text", _check_printed),
        SkipParser(),
    ]
    document = sybil.Sybil(parsers).parse(path_of(name))
    for example in document.examples():
        example.evaluate()


def path_of(name):
    """Returns the file of a guide, or of the page `start`."""
    folder = HERE if name == "start" else HERE / "guides"
    return folder / f"{name}.md"


def names():
    """Returns the names of all pages whose code is run."""
    guides = sorted(path.stem for path in (HERE / "guides").glob("*.md"))
    return ["start", *(name for name in guides if name != "index")]


def pictures(name):
    """Returns the names of the pictures that a guide shows and draws."""
    text = path_of(name).read_text(encoding="utf-8")
    shown = re.findall(r"\.\./images/([\w.]+)", text)
    return [picture for picture in shown if f'"{picture}"' in text]


def notebook(name):
    """Returns a guide as a notebook without outputs."""
    import jupytext

    text = path_of(name).read_text(encoding="utf-8")
    # The outputs take the place of blocks of text. Jupyter knows no roles.
    text = re.sub(
        r"(^```\n)\s*```text\n.*?^```\n", r"\1", text, flags=re.S | re.M
    )
    text = re.sub(r"\{py:\w+\}`~?(?:[^`<]*<)?([^`>]+)>?`", r"`\1`", text)
    text = re.sub(r"\]\((\w+\.md)\)", r"](../guides/\1)", text)
    return jupytext.reads(text, "md")


def main(arguments):
    """Runs guides."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="guides; default: all")
    parser.add_argument("--pictures", action="store_true")
    parser.add_argument("--notebooks", action="store_true")
    given = parser.parse_args(arguments)
    for name in given.names or (NOTEBOOKS if given.notebooks else names()):
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            if given.notebooks:
                _write_notebook(name)
                continue
            run(name)
            for picture in pictures(name) if given.pictures else ():
                shutil.copy(picture, HERE / "images" / picture)


def _write_notebook(name):
    """Executes a notebook, and writes it with its outputs."""
    import nbclient
    import nbformat

    made = notebook(name)
    nbclient.NotebookClient(made, timeout=600).execute()
    for number, cell in enumerate(made.cells):
        # Times and identifiers would differ each time.
        cell.metadata.pop("execution", None)
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            # What frameworks say when they start.
            cell.outputs = [
                o for o in cell.outputs if o.get("name") != "stderr"
            ]
    path = HERE / "notebooks" / f"{name}.ipynb"
    path.parent.mkdir(exist_ok=True)
    nbformat.write(made, path)


if __name__ == "__main__":
    os.environ.setdefault("KERAS_BACKEND", "jax")
    main(sys.argv[1:])
