"""The sections of the report, in their order."""

from collections.abc import Callable, Sequence

from keras_mla.comparison.report.blocks import Block
from keras_mla.comparison.results import Comparison

Section = Callable[[Comparison], Sequence[Block] | None]

SECTIONS: dict[str, Section] = {}


def section(
    title: str, before: str | None = None
) -> Callable[[Section], Section]:
    """Registers a function as a section of every report.

    The report leaves out a section that returns no block. A title that is
    registered again replaces the section of that title.

    Args:
        title: str. The section's title.
        before: str. Title of the section that this section precedes. Defaults
            to `None`, the end of the report.

    Returns:
        A decorator, which returns the function unchanged.

    Raises:
        ValueError: If `before` is not the title of a section.

    Example:
    >>> from keras_mla.comparison import report
    >>> @report.section("How long training took")
    ... def seconds(comparison):
    ...     rows = [[run.method, run.seconds] for run in comparison.runs]
    ...     return [report.Table(["method", "seconds"], rows)]
    >>> del report.registry.SECTIONS["How long training took"]
    """
    if before is not None and before not in SECTIONS:
        raise ValueError(
            f"`before` must be the title of a section: {list(SECTIONS)}. "
            f"Received: before={before!r}"
        )

    def register(function: Section) -> Section:
        titles = [other for other in SECTIONS if other != title]
        if before is not None:
            titles.insert(titles.index(before), title)
        elif title in SECTIONS:
            titles = list(SECTIONS)
        else:
            titles.append(title)
        functions = {**SECTIONS, title: function}
        SECTIONS.clear()
        SECTIONS.update({other: functions[other] for other in titles})
        return function

    return register
