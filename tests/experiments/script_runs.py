"""Runs a script's `main` with flags, in this process."""

import importlib
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [
    str(ROOT / folder) for folder in ("experiments", "examples", "tests")
]


def run(script, *flags):
    """Returns the exit status."""
    return importlib.import_module(script).main([str(flag) for flag in flags])


def read_table(path):
    """Returns a table's cells, row by row."""
    lines = path.read_text().splitlines()
    rows = [[c.strip() for c in line.split("|")[1:-1]] for line in lines]
    return [rows[0], *rows[2:]]
