"""Figures of matplotlib, which is imported when a figure is drawn."""

from typing import Any


def panels(count: int = 1, size: tuple[float, float] = (4.2, 3.4)) -> tuple:
    """Returns a new figure and a list of panels beside each other.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    try:
        # Not pyplot, which keeps figures alive and needs a display.
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib: install `keras-mla[plot]`."
        ) from error
    width, height = size
    figure = Figure(figsize=(width * count, height), layout="constrained")
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def saved(figure: Any, path: Any) -> Any:
    """Saves a figure unless `path` is `None`, and returns the figure."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure
