"""Marks that several figures share: dots with their spread, and keys."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_mla.comparison.report.drawing import INK, color, label

ROW = 26  # Pixels.
WIDTH = 380
Values = Sequence[float]


def height(rows: int, names: Sequence[str] = ()) -> int:
    """Returns the height of a figure of dots, in pixels.

    Args:
        rows: int. The number of rows.
        names: Sequence of str. The names in the figure's key.
    """
    each = ROW if len(names) < 3 else 9 * len(names) + 8
    return 52 + each * rows + key_height(names)


def key_height(names: Sequence[str], width: float = WIDTH) -> int:
    """Returns the height of a key, in pixels."""
    return 18 * math.ceil(len(names) / _columns(names, width)) if names else 0


def _columns(names: Sequence[str], width: float) -> int:
    """Returns how many entries of a key fit beside each other."""
    widest = max(len(label(name)) for name in names)
    return max(1, min(len(names), int(width / (8 * widest + 25))))


def dots(
    axis: Any,
    rows: Sequence[str],
    series: Mapping[str, Sequence[Values]],
    text: Callable[[float], str],
    title: str,
    bold: str | None = None,
) -> None:
    """Draws a dot for the mean of values, and a line of a deviation each way.

    Small strokes are the values. Nothing is drawn for values that are not
    finite.

    Args:
        axis: Axes of matplotlib.
        rows: Sequence of str. Labels, from above.
        series: Mapping from a name to values for each row.
        text: Function from a number to the text at the axis.
        title: str. What the axis shows.
        bold: str. The row whose label is bold.
    """
    shift = 0.55 / max(len(series) - 1, 1)
    for index, (name, found) in enumerate(series.items()):
        mine = color(index)
        axis.plot([], [], "o", color=mine, markersize=6, label=label(name))
        for row, values in enumerate(found):
            values = np.asarray(values, float)
            values = values[np.isfinite(values)]
            if not values.size:
                continue
            y = row + shift * (index - (len(series) - 1) / 2)
            mean = values.mean()
            if values.size > 1:
                spread = values.std(ddof=1)
                ends = [mean - spread, mean + spread]
                axis.plot(ends, [y, y], color=mine, linewidth=1.4)
                axis.plot(
                    values,
                    np.full(values.size, y),
                    "|",
                    color=mine,
                    markersize=8,
                    markeredgewidth=1,
                    alpha=0.6,
                )
            axis.plot(mean, y, "o", color=mine, markersize=6)
    rows_axis(axis, rows, bold)
    numbers_axis(axis.xaxis, text)
    axis.set_xlabel(title)
    if len(series) > 1:
        key(axis)


def rows_axis(axis: Any, rows: Sequence[str], bold: str | None = None) -> None:
    """Labels the rows of a figure, from above."""
    axis.set_yticks(range(len(rows)), [label(row) for row in rows])
    for tick, row in zip(axis.get_yticklabels(), rows, strict=True):
        tick.set_fontweight("bold" if row == bold else "normal")
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.tick_params(axis="y", length=0)
    axis.spines["left"].set_visible(False)
    axis.grid(axis="y")


def numbers_axis(axis: Any, text: Callable[[float], str]) -> None:
    """Shows few numbers at an axis, as the report's text shows them."""
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    axis.set_major_locator(MaxNLocator(4))
    axis.set_major_formatter(FuncFormatter(lambda value, _: text(value)))


def key(axis: Any) -> None:
    """Explains the colours of a panel above it, in rows from the left."""
    handles, labels = axis.get_legend_handles_labels()
    columns = _columns(labels, 72 * axis.figure.get_figwidth())
    # matplotlib fills column after column.
    order = [
        index
        for column in range(columns)
        for index in range(column, len(labels), columns)
    ]
    axis.figure.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="outside upper left",
        ncols=columns,
        borderpad=0,
        borderaxespad=0,
        columnspacing=1.2,
        handlelength=1,
        handletextpad=0.4,
        labelspacing=0.3,
    )


def zero(axis: Any) -> None:
    """Draws the line at zero, between less and more."""
    axis.axvline(0, color=INK, linewidth=0.8)
