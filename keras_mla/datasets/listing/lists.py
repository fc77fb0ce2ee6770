"""Reads list files of several formats, and texts."""

import csv
import json
from collections.abc import Iterator, Sequence

from keras_mla.datasets.listing import encodings
from keras_mla.datasets.listing.problems import Problems

MAX_LINE = 1_000_000
# Parsing a row anew at each quote takes long if there are many.
_MAX_PARSED = 1000


def read_lines(path: str) -> Iterator[tuple[str, str]]:
    """Yields `(source, line)` for each line of a text file that isn't blank.

    `source` is `"<file>, line <n>"`. A line ends with CR, LF or both. The
    text is in the encoding that `encoding_of` finds.

    Args:
        path: str. The file.

    Raises:
        ValueError: If the file is no text, or a line has more than a million
            characters.
    """
    for number, line in _lines(path):
        if line.strip():
            yield f"{path}, line {number}", line.rstrip("\r\n")


def _lines(path: str, newline: str | None = None) -> Iterator[tuple[int, str]]:
    with encodings.open_text(path, newline) as file:
        number = 0
        while line := file.readline(MAX_LINE + 1):
            number += 1
            if len(line) > MAX_LINE:
                raise ValueError(
                    f"{path}, line {number}: longer than {MAX_LINE:,} "
                    "characters. Is this a list file?"
                )
            yield number, line


def read_rows(
    path: str, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """Yields `(source, fields)` for each row of a comma-separated file.

    Quoted fields may hold commas and line breaks. A quote that never closes
    costs its own row alone: a quoted field ends before the next line that is
    a whole row. The text is in the encoding that `encoding_of` finds.

    Args:
        path: str. The file.
        columns: Names of the fields of a row.
        problems: `Problems`. It decides what happens to a row that cannot be
            parsed, or that has another number of fields.

    Raises:
        ValueError: If the file is no text, or a line has more than a million
            characters.
    """
    lines = _lines(path, newline="")
    ahead = next(lines, None)
    while ahead is not None:
        number, line = ahead
        ahead, taken = next(lines, None), [line]
        row, length, parsed = _parse(taken), len(line), 0
        while (
            row is None
            and ahead is not None
            and len(_parse([ahead[1]]) or ()) != len(columns)
            and length < MAX_LINE
            and parsed < _MAX_PARSED
        ):
            more = ahead[1]
            taken.append(more)
            length += len(more)
            if '"' in more:
                row, parsed = _parse(taken), parsed + 1
            ahead = next(lines, None)
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


def read_objects(path: str) -> Iterator[tuple[str, str, dict | None]]:
    """Yields `(source, line, object)` for each line of a jsonl file.

    The object is `None` if the line holds no JSON object. The text is in the
    encoding that `encoding_of` finds.

    Args:
        path: str. The file.
    """
    for source, line in read_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        yield source, line, record if isinstance(record, dict) else None


def read_json_lines(
    path: str, keys: Sequence[str], problems: Problems
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields `(source, record)` for each line of a jsonl file.

    The text is in the encoding that `encoding_of` finds.

    Args:
        path: str. A file with one JSON object a line.
        keys: The keys that each object must have. Their values are turned
            into strings.
        problems: `Problems`. It decides what happens to a line in the wrong
            form.
    """
    for source, line, record in read_objects(path):
        if record is None or not all(
            isinstance(record.get(key), str | int) for key in keys
        ):
            problems.add(
                f"{source}: expected a JSON object with the keys "
                f"{', '.join(keys)}. Received: line={line[:200]!r}"
            )
            continue
        yield source, {key: _text(record[key]) for key in keys}


def _text(value: str | int) -> str:
    """Returns a string that can be encoded: half a surrogate pair cannot."""
    data = str(value).encode("utf-16-le", "surrogatepass")
    return data.decode("utf-16-le", errors="replace")


def read_text(path: str, max_bytes: int = 1_000_000) -> str:
    """Returns a text file's content, stripped.

    The text is in the encoding that `encoding_of` finds. Version 0.1.0 took
    every file for UTF-8, and bytes that are not UTF-8 became U+FFFD.

    Args:
        path: str. The file.
        max_bytes: int. The most bytes that the file may have. Defaults to one
            million.

    Raises:
        ValueError: If the file cannot be read, is no text, or is longer than
            `max_bytes`.
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
    return encodings.decode(path, data).strip()
