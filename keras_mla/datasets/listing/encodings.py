"""The encoding of a text file, decided once for the whole file."""

import codecs
import os
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

_BLOCK = 1 << 20
# The longest first: UTF-32's mark begins as UTF-16's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = bytes([*range(1, 7), *range(14, 27), *range(28, 32)])
# A text may hold a stray control character. Compressed data are full of them.
_MAX_CONTROLS = 0.05
_RIGHT = 10
# Windows-1252 leaves five bytes undefined. Latin-1 defines them.
_NOT_WINDOWS = b"\x81\x8d\x8f\x90\x9d"


def encoding_of(path: str | os.PathLike) -> str:
    """Returns the encoding of a text file, as `open` takes it.

    A byte-order mark decides: UTF-8, UTF-16 or UTF-32. A file without one is
    UTF-8 if all its bytes are. Otherwise the whole file is Windows-1252, of
    which Latin-1's printable characters are a part; or Latin-1, if it holds
    one of the five bytes that Windows-1252 does not define. A UTF-8 file with
    a few wrong bytes, at most a tenth of its characters beyond ASCII, stays
    UTF-8. The file is read in blocks.

    Args:
        path: str or path. The file.

    Returns:
        `"utf-8"`, `"utf-8-sig"`, `"utf-16"`, `"utf-32"`, `"cp1252"` or
        `"latin-1"`.

    Raises:
        ValueError: If the file is no text: it holds a NUL character, or more
            than 5 % of its bytes are control characters, or it does not keep
            to the encoding of its byte-order mark. The message names the file.
        OSError: If the file cannot be read.

    Warns:
        UserWarning: If a UTF-8 file has wrong bytes. The warning names the
            first line with one.

    Example:
    >>> import pathlib
    >>> from keras_mla.datasets import listing
    >>> pathlib.Path("a.txt").write_bytes("10 €".encode("cp1252"))
    4
    >>> listing.encoding_of("a.txt")
    'cp1252'
    """
    path = os.fspath(path)
    with open(path, "rb") as file:

        def blocks() -> Iterator[bytes]:
            file.seek(0)
            while block := file.read(_BLOCK):
                yield block

        return _decide(path, blocks)


def decode(path: str, data: bytes) -> str:
    """Decodes the content of a text file, without its byte-order mark."""
    return data.decode(_decide(path, lambda: iter([data])), errors="replace")


def open_text(path: str, newline: str | None = None) -> Any:
    """Opens a text file in the encoding that `encoding_of` finds."""
    encoding = encoding_of(path)
    return open(path, encoding=encoding, errors="replace", newline=newline)


def _decide(path: str, blocks: Any) -> str:
    """Returns the encoding of the bytes that `blocks()` yields in order."""
    start = next(blocks(), b"")[:4]
    marked = next((e for mark, e in _MARKS if start.startswith(mark)), None)
    if marked in ("utf-16", "utf-32"):
        for text in _decoded(path, blocks(), marked):
            if "\0" in text:
                raise ValueError(f"{path!r} is no text: it holds NUL.")
        return marked
    size = controls = 0
    windows = True
    for block in blocks():
        if b"\0" in block:
            raise ValueError(f"{path!r} is no text: it holds NUL bytes.")
        size += len(block)
        controls += len(block) - len(block.translate(None, _CONTROLS))
        windows &= len(block.translate(None, _NOT_WINDOWS)) == len(block)
    if controls > _MAX_CONTROLS * size:
        raise ValueError(
            f"{path!r} is no text: {controls} of its {size} bytes are control "
            "characters."
        )
    try:
        for _ in _decoded(path, blocks(), marked or "utf-8"):
            pass
    except ValueError:
        if marked:
            raise
        line = _wrong_line(blocks())
        if not line:
            return "cp1252" if windows else "latin-1"
        warnings.warn(
            f"{path!r} is UTF-8 with wrong bytes, the first in line {line}. "
            "They become U+FFFD.",
            stacklevel=4,
        )
    return marked or "utf-8"


def _decoded(
    path: str, blocks: Iterable[bytes], encoding: str
) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        for block in blocks:
            yield decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path!r} begins as {encoding} and does not keep to it: "
            f"{error.reason}."
        ) from error


def _wrong_line(blocks: Iterable[bytes]) -> int:
    """Returns the first line with a wrong byte, or 0 for a file not in UTF-8.

    Text in another encoding holds few characters that are UTF-8 by chance.
    Where these are ten times as many as the wrong bytes, the file is UTF-8.
    """
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    right = wrong = lines = first = 0
    for block in blocks:
        text = decoder.decode(block)
        found = text.count("\ufffd")
        if found and not first:
            first = lines + text[: text.index("\ufffd")].count("\n") + 1
        lines += text.count("\n")
        wrong += found
        right += len(text) - len(text.encode("ascii", "ignore")) - found
    wrong += bool(decoder.decode(b"", final=True))
    return (first or lines + 1) if right >= _RIGHT * wrong else 0
