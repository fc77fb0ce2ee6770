"""Reads tables: CSV, Parquet and JSON lines, as DataFrames."""

import csv
import io
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from keras_mla.datasets import listing
from keras_mla.datasets.extras import need

_SEPARATORS = ",;\t|"
_MOST_CHARACTERS = 1_000_000


def read_table(path: str | os.PathLike, separator: str | None = None) -> Any:
    r"""Reads a table from a file.

    In a CSV file an empty cell is missing, and nothing else is: "NA" and
    "None" are words. (In a column of numbers they are missing as well.) A
    column in which a cell has a needless zero, such as "007", holds words.

    Args:
        path: str or path. A `.csv`, `.tsv` or `.txt` file with a header, in
            UTF-8, UTF-16 with a byte-order mark or Windows-1252; a `.parquet`
            file; or a `.jsonl` file with an object a line.
        separator: str. What separates the cells of a CSV file. Defaults to
            the one of `,`, `;`, tab and `|` that the header holds most often.

    Returns:
        A `pandas.DataFrame`. Its index counts the rows, and its
        `attrs["source"]` names the file, for error messages.

    Raises:
        ValueError: If the file is missing, holds no table or no row, names a
            column twice, or has a quote that never closes or a row of another
            length. The message names the file and, where one is wrong, the
            row.
        ImportError: If pandas, or pyarrow for Parquet, is not installed.

    Example:
    >>> import pathlib
    >>> _ = pathlib.Path("dishes.csv").write_text("photo;price\na.jpg;3.5\n")
    >>> keras_mla.datasets.read_table("dishes.csv")
       photo  price
    0  a.jpg    3.5
    """
    need("pandas", "read tables")
    path = os.path.abspath(os.path.expanduser(os.fspath(path)))
    if not os.path.isfile(path):
        raise ValueError(f"There is no table at {path!r}.")
    kind = os.path.splitext(path)[1].lower()
    if kind in (".csv", ".tsv", ".txt"):
        frame = _read_csv(path, "\t" if kind == ".tsv" else separator)
    elif kind == ".parquet":
        frame = _read_parquet(path)
    elif kind == ".jsonl":
        frame = _read_json_lines(path)
    else:
        raise ValueError(
            "A table must be a .csv, .tsv, .txt, .parquet or .jsonl file. "
            f"Received: {path!r}"
        )
    if not len(frame):
        raise ValueError(f"{path} holds no row.")
    frame = frame.reset_index(drop=True)
    frame.attrs["source"] = path
    return frame


def as_frame(rows: Any, columns: Sequence[str] = ()) -> Any:
    """Returns rows, in any of the forms that a table takes, as a DataFrame.

    Args:
        rows: DataFrame; the path of a table; something with `to_pandas`, such
            as a Polars or Arrow table; a list of dicts, one for each row, in
            which a missing key is an empty cell; or a dict of lists.
        columns: Columns that lists of dicts get, if they lack them.

    Raises:
        TypeError: If `rows` has another type.
        ValueError: If there is no row, or a file cannot be read.
    """
    pd = need("pandas", "read tables")
    if isinstance(rows, str | os.PathLike):
        return read_table(rows)
    if hasattr(rows, "to_pandas"):
        rows = rows.to_pandas()
    if isinstance(rows, Mapping):
        # Columns of other frames are lists too: pandas would align their rows.
        lists = {c: getattr(v, "array", v) for c, v in rows.items()}
        try:
            rows = pd.DataFrame(lists)
        except ValueError as error:
            raise ValueError(
                "A dict of columns must hold lists of one length. One row is "
                f"`[{{column: cell}}]`. Received: {error}"
            ) from error
    elif isinstance(rows, list | tuple) and all(
        isinstance(row, Mapping) for row in rows
    ):
        rows = pd.DataFrame.from_records([dict(row) for row in rows])
        for column in columns:
            if column not in rows.columns:
                rows[column] = None
    if not isinstance(rows, pd.DataFrame):
        raise TypeError(
            "Rows must be a DataFrame, the path of a table, a list of dicts or "
            f"a dict of lists. Received: {type(rows).__name__}"
        )
    if not len(rows):
        raise ValueError("The table holds no row.")
    return rows


def _read_csv(path: str, separator: str | None) -> Any:
    if separator is not None and len(separator) != 1:
        raise ValueError(
            "`separator` must be one character. "
            f"Received: separator={separator!r}"
        )
    encoding = listing.encoding_of(path)
    with open(path, encoding=encoding, errors="replace", newline="") as file:
        head = file.readline(_MOST_CHARACTERS)
    if not head.strip():
        raise ValueError(f"{path} holds no header.")
    separator = separator or max(_SEPARATORS, key=head.count)
    names = _header(path, encoding, separator)
    try:
        frame, told = _parse(path, encoding, separator, [])
    except ValueError:
        # What is wrong with which row, in words of our own.
        _check_rows(path, encoding, separator, names, [])
        raise
    whole = [i for i, c in enumerate(frame.columns) if _is_whole(frame[c])]
    if not (told or whole or _may_be_broken(frame)):
        return frame
    words = _check_rows(path, encoding, separator, names, whole)
    return _parse(path, encoding, separator, words)[0] if words else frame


def _may_be_broken(frame: Any) -> bool:
    """Returns whether a row may be too short, or a cell hold whole rows."""
    return bool(frame.iloc[:, -1].isna().any()) or any(
        frame[column].str.contains("\n", regex=False, na=False).any()
        for column in frame.columns
        if frame[column].dtype.kind not in "iufb"
    )


def _header(path: str, encoding: str, separator: str) -> list[str]:
    """Returns the names of columns.

    Raises:
        ValueError: If a column is named twice.
    """
    _, names = next(_rows(path, encoding, separator))
    repeated = sorted({n for n in names if n and names.count(n) > 1})
    if repeated:
        raise ValueError(
            f"{path} names a column twice: {', '.join(map(repr, repeated))}."
        )
    return names


def _parse(
    path: str, encoding: str, separator: str, words: list[int]
) -> tuple[Any, bool]:
    """Lets pandas read the file, columns at these positions as words.

    Returns:
        A DataFrame, and whether pandas warned of rows that are too long.
    """
    pd = need("pandas", "read tables")
    try:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always", pd.errors.ParserWarning)
            frame = pd.read_csv(
                path,
                sep=separator,
                encoding=encoding,
                encoding_errors="replace",
                dtype=dict.fromkeys(words, str),
                keep_default_na=False,
                na_values=[""],
                index_col=False,
                low_memory=False,
            )
        return frame, bool(told)
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as error:
        raise ValueError(f"{path}: {_explain(str(error))}") from error


def _is_whole(column: Any) -> bool:
    """Returns whether pandas took all cells for whole numbers."""
    if column.dtype.kind == "f":
        held = column.dropna()
        return bool((held % 1 == 0).all())
    return column.dtype.kind in "iu"


def _explain(message: str) -> str:
    """Returns pandas' message in the words of a person who wrote the file."""
    message = message.replace("Error tokenizing data. C error: ", "").strip()
    if "EOF inside string" in message:
        row = message.rpartition(" ")[2]
        return f"a quote that opens in row {row} never closes."
    return message


def _check_rows(
    path: str,
    encoding: str,
    separator: str,
    names: list[str],
    whole: list[int],
) -> list[int]:
    """Checks the length of each row, which pandas does not.

    Args:
        path: str. The file.
        encoding: str. Its encoding.
        separator: str. What separates cells.
        names: The header.
        whole: Positions of columns of whole numbers.

    Returns:
        Positions of those in which a cell begins with a needless 0, such as
        007: it is a word, which loses the 0 as a number.

    Raises:
        ValueError: If a row has another length, or a cell swallowed whole
            rows, as an unclosed quote makes it.
    """
    words = set()
    number = before = 0
    for number, (line, row) in enumerate(_rows(path, encoding, separator)):
        if number == 0:
            before = line
            continue
        for column in whole:
            cell = row[column] if column < len(row) else ""
            if cell[:1] == "0" and cell[1:2].isdigit():
                words.add(column)
        if line > before + 1:
            for column, cell in enumerate(row[: len(names)]):
                if "\n" in cell and _holds_rows(cell, separator, len(names)):
                    raise ValueError(
                        f"{path}, row {number}, column {names[column]!r}: a "
                        f"quote that opens in row {number} never closes. The "
                        "cell holds whole rows of the table."
                    )
        before = line
        # A separator may end each row.
        if len(row) < len(names) or any(row[len(names) :]):
            raise ValueError(
                f"{path}, row {number} (it ends in line {line}, saw {len(row)} "
                f"cells): the header has {len(names)} columns."
            )
    return sorted(words)


def _rows(
    path: str, encoding: str, separator: str
) -> Iterator[tuple[int, list[str]]]:
    """Yields the line in which a row ends, and its cells; no blank lines."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        with open(
            path, encoding=encoding, errors="replace", newline=""
        ) as file:
            reader = csv.reader(file, delimiter=separator)
            for row in reader:
                if len(row) > 1 or "".join(row).strip():
                    yield reader.line_num, row
    finally:
        csv.field_size_limit(limit)


def _holds_rows(cell: str, separator: str, columns: int) -> bool:
    inside = csv.reader(io.StringIO(cell.replace('"', "")), delimiter=separator)
    return columns > 1 and any(len(row) == columns for row in inside)


def _read_parquet(path: str) -> Any:
    pd = need("pandas", "read tables")
    need("pyarrow", "read Parquet files")
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"Cannot read the table {path!r}: {error}") from error


def _read_json_lines(path: str) -> Any:
    pd = need("pandas", "read tables")
    records = []
    for source, line, record in listing.read_objects(path):
        if record is None:
            raise ValueError(
                f"{source}: expected a JSON object. "
                f"Received: line={line[:200]!r}"
            )
        records.append(record)
    return pd.DataFrame.from_records(records)
