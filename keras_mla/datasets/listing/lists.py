"""Reads list files of several formats, and texts."""

import csv
import json
from collections.abc import Iterator, Sequence
from typing import Any

from keras_mla.datasets.listing.problems import Problems

MAX_LINE = 1_000_000


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yields `(source, line)` for each line of a text file that isn't blank.

    `source` is `"<file>, line <n>"`. The text is read as UTF-8. Bytes that
    are not UTF-8 become U+FFFD.

    Raises:
        ValueError: If a line has more than a million characters.
    """
    with open(path, encoding="utf-8-sig", errors="replace") as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            source = f"{path}, line {number}"
            if len(line) > MAX_LINE:
                raise ValueError(
                    f"{source}: longer than {MAX_LINE:,} characters. Is this "
                    "a list file?"
                )
            if line.strip():
                yield source, line.rstrip("\r\n")


def read_rows(
    path: str, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """Yields `(source, fields)` for each row of a comma-separated file.

    Quoted fields may hold commas and line breaks. A quote that never closes
    costs its own row alone: a quoted field ends before the next line that is
    a whole row.

    Args:
        path: str. The file.
        columns: Names of the fields of a row.
        problems: `Problems`. It decides what happens to a row that cannot be
            parsed, or that has another number of fields.
    """
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as f:
        lines = ((n, line.replace("\0", "")) for n, line in enumerate(f, 1))
        ahead = next(lines, None)
        while ahead is not None:
            number, line = ahead
            ahead, taken = next(lines, None), [line]
            row = _parse(taken)
            while (
                row is None
                and ahead is not None
                and len(_parse([ahead[1]]) or ()) != len(columns)
                and sum(map(len, taken)) < MAX_LINE
            ):
                taken.append(ahead[1])
                ahead, row = next(lines, None), _parse(taken)
            source = f"{path}, line {number}"
            if row is None:
                problems.add(f"{source}: a quote never closes.")
            elif row and len(row) != len(columns):
                problems.add(
                    f"{source}: expected the columns {', '.join(columns)}. "
                    f"Received: row={str(row)[:200]}"
                )
            elif row:
                yield source, row


def _parse(lines: list[str]) -> list[str] | None:
    """Returns the fields of a row, or `None` if its last quote is open."""
    try:
        # An open quote takes in the line behind the row.
        rows = list(csv.reader([*lines, "\n", "end"]))
    except csv.Error:  # The field behind an open quote is too long.
        return None
    return rows[0] if rows[-1] == ["end"] else None


def read_json_lines(
    path: str, keys: Sequence[str], problems: Problems
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields `(source, record)` for each line of a jsonl file.

    Args:
        path: str. A file with one JSON object a line.
        keys: The keys that each object must have. Their values are turned
            into strings.
        problems: `Problems`. It decides what happens to a line in the wrong
            form.
    """
    for source, line in read_lines(path):
        try:
            record: Any = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict) or not all(
            isinstance(record.get(key), str | int) for key in keys
        ):
            problems.add(
                f"{source}: expected a JSON object with the keys "
                f"{', '.join(keys)}. Received: line={line[:200]!r}"
            )
            continue
        yield source, {key: str(record[key]) for key in keys}


def read_text(path: str, max_bytes: int = 1_000_000) -> str:
    """Returns a text file's content, stripped, as UTF-8 (bad bytes U+FFFD).

    Raises:
        ValueError: If the file cannot be read or is longer than `max_bytes`.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ValueError(f"Cannot read the text {path!r}: {error}") from error
    if len(data) > max_bytes:
        raise ValueError(
            f"The text {path!r} is longer than {max_bytes:,} bytes."
        )
    return data.decode("utf-8", errors="replace").strip()
