"""The log of runs, from which a killed comparison goes on."""

import json
import os
import pathlib
import uuid
from typing import Any

# The key of a log's own name in its first line.
_ID = "log_id"


class Log:
    """Appends the record of each run to a file, and finds it there again.

    Args:
        path: The file, with a JSON record a line. The first line holds
            `header`.
        header: dict of what all runs have in common.

    Attributes:
        id: str. A random name of the log. Empty for the log of an older
            version.

    Raises:
        ValueError: If the file exists with another header.
    """

    def __init__(self, path: str | os.PathLike, header: dict) -> None:
        self.path = pathlib.Path(path)
        self.records: dict[str, dict] = {}
        self.id = uuid.uuid4().hex[:12]
        if not self.path.exists():
            self._append({_ID: self.id, **header})
            return
        lines = self.path.read_bytes().split(b"\n")
        # A kill may have interrupted the last line.
        kept = b"\n".join(lines[:-1]) + b"\n" if len(lines) > 1 else b""
        there = [json.loads(line) for line in kept.splitlines()]
        header = json.loads(json.dumps(header))
        if there:
            self.id = there[0].pop(_ID, "")
        if there and there[0] != header:
            differs = sorted(
                key
                for key in {*there[0], *header}
                if there[0].get(key) != header.get(key)
            )
            raise ValueError(
                f"{self.path} holds runs with other settings: {differs}. "
                "Choose another folder for the results, or delete this one."
            )
        if lines[-1]:
            part = self.path.with_suffix(".partial")
            part.write_bytes(kept)
            part.replace(self.path)
        if not there:
            self._append({_ID: self.id, **header})
        for record in there[1:]:
            self.records[self.key(record["run"])] = record

    def get(self, what: dict) -> dict | None:
        """Returns a run's record, or `None`."""
        return self.records.get(self.key(what))

    def add(self, what: dict, record: dict) -> dict:
        """Appends a run's record; returns it."""
        record = {"run": what, **record}
        self._append(record)
        self.records[self.key(what)] = record
        return record

    def _append(self, record: dict) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps(record) + "\n")

    @staticmethod
    def key(what: dict[str, Any]) -> str:
        """Returns what identifies a run."""
        return json.dumps(what, sort_keys=True)
