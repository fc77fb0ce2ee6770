"""Figures as SVG that follows light and dark mode."""

import io
import re
import warnings
from typing import Any
from xml.etree import ElementTree

from keras_mla.comparison.report.blocks import Figure
from keras_mla.datasets.extras import need

# Text and axes are drawn in this colour, which becomes `currentColor`.
INK = "#010203"
# Every colour has a contrast of about 4 with white and with near-black.
SERIES = (
    "#3b82c4",
    "#cf6a1f",
    "#2f9461",
    "#a865c9",
    "#c9566b",
    "#7f8a1d",
    "#2b93a5",
    "#a3744d",
)
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_SVG = "http://www.w3.org/2000/svg"
_LINK = "http://www.w3.org/1999/xlink"
# Characters that XML does not allow.
_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_STANDALONE = (
    "svg{color:#1b1b1b}@media (prefers-color-scheme:dark){svg{color:#dcdcdc}}"
)


def color(index: int) -> str:
    """Returns the colour of a series."""
    return SERIES[index % len(SERIES)]


def label(text: Any, most: int = 22) -> str:
    """Returns a text that fits into a figure, shortened and in one line."""
    words = " ".join(_NOT_XML.sub("\ufffd", str(text)).split())
    if len(words) > most:  # Names often differ at their ends.
        half = most // 2
        words = f"{words[: most - half - 1]}…{words[-half:]}"
    # matplotlib leaves labels out of a legend that begin with "_".
    return "\u200b" + words if words.startswith("_") else words


def theme() -> dict[str, Any]:
    """Returns matplotlib's settings for figures of the report."""
    from cycler import cycler

    ink = (
        "text.color",
        "axes.labelcolor",
        "axes.edgecolor",
        "axes.titlecolor",
        "xtick.color",
        "ytick.color",
        "xtick.labelcolor",
        "ytick.labelcolor",
        "grid.color",
        "lines.color",
        "patch.edgecolor",
        "hatch.color",
        "legend.labelcolor",
    )
    clear = ("axes.facecolor", "figure.facecolor", "savefig.facecolor")
    return {
        **dict.fromkeys(ink, INK),
        **dict.fromkeys(clear, "none"),
        "axes.formatter.useoffset": False,
        "axes.linewidth": 0.8,
        "axes.prop_cycle": cycler(color=SERIES),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 12,
        "figure.constrained_layout.h_pad": 2 / 72,
        "figure.constrained_layout.w_pad": 2 / 72,
        "figure.dpi": 72,
        "font.family": "DejaVu Sans",
        "font.size": 12,
        "axes.labelsize": 12,
        "legend.fontsize": 12,
        "xtick.labelsize": 12,
        "ytick.labelsize": 12,
        "grid.alpha": 0.15,
        "grid.linewidth": 0.8,
        "legend.frameon": False,
        "path.sketch": None,
        "savefig.dpi": 72,
        "svg.fonttype": "none",
        "svg.hashsalt": "keras_mla",
        # A name may have a dollar sign.
        "text.parse_math": False,
        "text.usetex": False,
    }


def svg(figure: Figure, prefix: str) -> tuple[str, str]:
    """Draws a figure.

    Args:
        figure: `Figure`.
        prefix: str. What the ids in the figure begin with, so that they are
            unique in the page.

    Returns:
        The SVG for the page, and the SVG for a file.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    matplotlib = need("matplotlib", "draw the report's figures")
    from matplotlib.figure import Figure as Canvas

    width, height = figure.size
    file = io.StringIO()
    with matplotlib.rc_context(theme()), warnings.catch_warnings():
        # The reader's fonts may have what matplotlib's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = Canvas(figsize=(width / 72, height / 72), layout="constrained")
        figure.draw(canvas)
        canvas.savefig(file, format="svg", metadata={"Date": None})
    root = ElementTree.fromstring(_NOT_XML.sub("\ufffd", file.getvalue()))
    _clean(root, prefix)
    root.set("width", f"{width:g}")
    root.set("height", f"{height:g}")
    root.set("role", "img")
    root.set("aria-label", _NOT_XML.sub("\ufffd", figure.alt))
    # Once a `<style>` for every element, also of the page.
    root.set("style", "stroke-linejoin:round;stroke-linecap:butt")
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _LINK)
    inline = ElementTree.tostring(root, encoding="unicode")
    style = ElementTree.Element(f"{{{_SVG}}}style")
    style.text = _STANDALONE
    root.insert(0, style)
    return inline, ElementTree.tostring(root, encoding="unicode")


def _clean(root: Any, prefix: str) -> None:
    """Makes ids unique and few, and colours and fonts the reader's."""
    used = set()
    for element in root.iter():
        for value in element.attrib.values():
            used.update(re.findall(r"url\(#([^)]+)\)", value))
        link = element.get(f"{{{_LINK}}}href", "")
        used.add(link.removeprefix("#"))
    names = {name: f"{prefix}-{i}" for i, name in enumerate(sorted(used))}
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    for element in root.iter():
        name = element.attrib.pop("id", None)
        if name in names:
            element.set("id", names[name])
        for key, value in element.attrib.items():
            if key == f"{{{_LINK}}}href":
                value = "#" + names[value.removeprefix("#")]
            elif key in ("style", "fill", "stroke", "clip-path"):
                value = value.replace(INK, "currentColor")
                value = re.sub("'DejaVu Sans'[^;]*", FONTS, value)
                value = re.sub(
                    r"url\(#([^)]+)\)",
                    lambda match: f"url(#{names[match[1]]})",
                    value,
                )
            element.set(key, value)
