"""What a section of the report is made of."""

import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: str. Plain text. The report escapes HTML in it.
        kind: str. `"plain"`; `"lead"`, the large text of the answer; `"note"`,
            small text that explains; or `"code"`, such as a command. Defaults
            to `"plain"`.

    Raises:
        ValueError: If `kind` is none of the four.

    Example:
    >>> from keras_mla.comparison import report
    >>> report.Text("Two methods were left out.", "note").kind
    'note'
    """

    text: str
    kind: str = "plain"

    def __post_init__(self) -> None:
        kinds = ("plain", "lead", "note", "code")
        if self.kind not in kinds:
            raise ValueError(
                f"`kind` must be one of {kinds}. Received: kind={self.kind!r}"
            )


@dataclasses.dataclass(frozen=True)
class Table:
    """A table, which scrolls in its own box if it is wider than the page.

    Args:
        columns: Sequence of str. The header.
        rows: Sequence of rows. A cell is shown as `str(cell)`.
        caption: str. Text above the table. Defaults to none.
        words: Collection of int. The columns of words, aligned left; the other
            columns are aligned right. Defaults to the first column.
        marked: Collection of int. The rows in bold. Defaults to none.

    Raises:
        ValueError: If a row has another length than the header.

    Example:
    >>> from keras_mla.comparison import report
    >>> table = report.Table(["method", "accuracy"], [["MLA", "93.1 %"]])
    >>> table.rows[0][1]
    '93.1 %'
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    words: Collection[int] = (0,)
    marked: Collection[int] = ()

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    "A row must have a cell for each column. Received: "
                    f"columns={list(self.columns)}, row={list(row)}"
                )


@dataclasses.dataclass(frozen=True)
class Figure:
    """A figure, inside the report and as the file `figures/<name>.svg`.

    Figures that follow each other are shown side by side where there is room.

    Args:
        name: str. Name of the file.
        draw: Function that draws on an empty `matplotlib.figure.Figure`. What
            it draws in matplotlib's default colour for text or axes follows
            the reader's light or dark mode.
        alt: str. What the figure shows, for readers who cannot see it.
        caption: str. Text above the figure. Defaults to none.
        size: tuple of two numbers. Width and height in pixels. Above a width
            of 380 pixels, the figure scrolls on a phone. Defaults to
            `(360, 240)`.

    Example:
    >>> from keras_mla.comparison import report
    >>> figure = report.Figure(
    ...     "line", lambda f: f.subplots().plot([1, 2]), "A rising line."
    ... )
    >>> figure.size
    (360, 240)
    """

    name: str
    draw: Callable[[Any], Any]
    alt: str
    caption: str = ""
    size: tuple[float, float] = (360, 240)


Block = Text | Table | Figure
