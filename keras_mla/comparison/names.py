"""Names that are mistyped."""

import difflib
from collections.abc import Callable, Iterable


def hint(
    given: str,
    known: Iterable[str],
    cutoff: float = 0.6,
    shown: Callable[[str], str] = str,
) -> str:
    """Returns `" Did you mean 'MLA'?"`, or nothing if no name is near.

    Args:
        given: str. What the user wrote.
        known: The names.
        cutoff: float. How alike names must be, from 0 to 1.
        shown: Function from a name to the text that stands for the name.
    """
    near = difflib.get_close_matches(given, list(known), 1, cutoff)
    return f" Did you mean {shown(near[0])!r}?" if near else ""
