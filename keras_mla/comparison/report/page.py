"""The report as files."""

import dataclasses
import importlib.resources
import itertools
import os
import pathlib
import re
import warnings
from typing import Any

from keras_mla.comparison.report import drawing, files, numbers
from keras_mla.comparison.report.blocks import Block, Figure, Text
from keras_mla.comparison.report.registry import SECTIONS
from keras_mla.comparison.results import Comparison
from keras_mla.datasets.extras import need

# Names as `_slug` makes them: nothing else in the folder is deleted.
_FIGURES = re.compile(rb'<meta name="figures" content="([a-z0-9 -]*)">')


@dataclasses.dataclass(frozen=True)
class _Picture:
    """A figure that is drawn."""

    picture: Any
    caption: str
    wide: bool


def write(comparison: Comparison, folder: str | os.PathLike) -> pathlib.Path:
    """Writes the report of a comparison.

    The folder gets `report.html`, one file that needs no network and no
    script; `table.csv`, every metric of every method and part; `table.md`, the
    table of methods; and `figures/<name>.svg`. Files of the same names are
    replaced. The figures that the report there before names are deleted.

    Args:
        comparison: `Comparison`.
        folder: path. The folder, which is made if it does not exist.

    Returns:
        The path of `report.html`.

    Raises:
        ImportError: If a package is not installed that the extra `compare`
            brings.
    """
    jinja2 = need("jinja2", "write the report")
    need("matplotlib", "draw the report's figures")
    folder = pathlib.Path(folder)
    figures = folder / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    path = folder / "report.html"
    _delete_figures(path, figures)
    names: set[str] = set()
    with numbers.remembered():
        sections = _sections(comparison, figures, names)
        files.write_csv(comparison, folder / "table.csv")
        files.write_markdown(comparison, folder / "table.md")
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    text = environment.from_string(_file("page.html")).render(
        comparison=comparison,
        summary=_summary(comparison),
        sections=sections,
        figures=" ".join(sorted(names)),
        style=jinja2.utils.markupsafe.Markup(_file("style.css")),
    )
    path.write_text(text, **files.ENCODING)
    return path


def _delete_figures(report: pathlib.Path, folder: pathlib.Path) -> None:
    """Deletes the figures of an earlier report, which says their names."""
    if not report.is_file():
        return
    found = _FIGURES.search(report.read_bytes())
    for name in found[1].decode().split() if found else ():
        (folder / f"{name}.svg").unlink(missing_ok=True)


def _file(name: str) -> str:
    package = importlib.resources.files(__package__)
    return package.joinpath(name).read_text(encoding="utf-8")


def _summary(comparison: Comparison) -> str:
    seeds = {run.seed for run in comparison.runs}
    groups = numbers.group_count(comparison)
    parts = [
        comparison.task.replace("_", "-"),
        numbers.listed(list(comparison.modalities)),
        numbers.counted(len(comparison.y), "test sample")
        + ("" if groups is None else f" in {numbers.counted(groups, 'group')}"),
        numbers.counted(len(comparison.methods), "method"),
        numbers.counted(len(seeds), "seed"),
    ]
    if len(comparison.folds) > 1:
        parts.append(numbers.counted(len(comparison.folds), "fold"))
    return " · ".join(parts)


def _sections(
    comparison: Comparison, folder: pathlib.Path, used: set[str]
) -> list[dict[str, Any]]:
    """Returns titles, ids and rows of blocks; writes the figures' files.

    Adds the names of the figures to `used`.
    """
    found = []
    for index, (title, function) in enumerate(SECTIONS.items(), 1):
        try:
            blocks = list(function(comparison) or ())
            shown = [_shown(block, folder, used) for block in blocks]
        except ImportError:
            raise
        except Exception as error:
            # The other sections show results of hours.
            message = f"This section failed: {type(error).__name__}: {error}"
            warnings.warn(f"{title}: {message}", stacklevel=3)
            shown = [Text(message)]
        if shown:
            rows = [
                (words, list(group))
                for words, group in itertools.groupby(shown, _is_text)
            ]
            id_ = f"s{index}-{_slug(title)}"
            found.append({"title": title, "id": id_, "rows": rows})
    return found


def _is_text(block: Any) -> bool:
    return isinstance(block, Text)


def _shown(block: Block, folder: pathlib.Path, used: set[str]) -> Any:
    """Returns what the template shows of a block."""
    if not isinstance(block, Figure):
        return block
    from markupsafe import Markup

    name = slug = _slug(block.name)
    count = itertools.count(2)
    while name in used:
        name = f"{slug}-{next(count)}"
    used.add(name)
    inline, file = drawing.svg(block, f"f-{name}")
    (folder / f"{name}.svg").write_text(file, encoding="utf-8")
    # `drawing` has parsed and written it again, so its texts are escaped.
    return _Picture(Markup(inline), block.caption, block.size[0] > 380)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "part"
