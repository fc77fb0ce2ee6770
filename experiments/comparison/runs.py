"""Keeps finished runs in a file, and finds the best of them."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np


class Runs:
    """Makes each run once and appends it to a file.

    Args:
        path: The file, with a JSON record a line. The first holds `header`.
        header: What all runs have in common, such as flags.

    Raises:
        ValueError: If the file exists with another header.
    """

    def __init__(self, path: pathlib.Path, header: dict) -> None:
        self.path = path
        self.done: dict[str, dict] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        if not lines:
            self._append(header)
            return
        if json.loads(lines[0]) != header:
            raise ValueError(
                f"{path} holds runs with other flags. Choose another --out, or "
                f"delete the file. Received: {header}, there: {lines[0]}"
            )
        for index, line in enumerate(lines[1:], 1):
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                if index < len(lines) - 1:
                    raise
                # A kill interrupted the last line.
                path.write_text("\n".join(lines[:-1]) + "\n")
                break
            self.done[self._key(record["run"])] = record

    def get(self, make: Callable[[], dict], **what: Any) -> dict:
        """Returns a run's result; makes the run if it is not in the file."""
        key = self._key(what)
        if key not in self.done:
            record = {"run": what, **make()}
            self._append(record)
            self.done[key] = record
        return self.done[key]

    def _append(self, record: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    @staticmethod
    def _key(what: dict) -> str:
        return json.dumps(what, sort_keys=True)


def best_setting(trials: list[dict]) -> dict[str, Any]:
    """Returns the first setting with the best mean validation score."""
    by_setting: dict[str, list[dict]] = {}
    for record in trials:
        key = json.dumps(record["run"]["setting"])
        by_setting.setdefault(key, []).append(record["validation"])

    def score(key: str) -> tuple[float, float]:
        found = by_setting[key]
        mean = {m: np.mean([s[m] for s in found]) for m in ("accuracy", "nll")}
        return mean["accuracy"], -mean["nll"]

    return json.loads(max(by_setting, key=score))
