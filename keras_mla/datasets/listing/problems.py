"""Wrong entries of a list: raised, or counted and reported once."""

import warnings


class Problems:
    """Raises each problem, or counts problems if the user chose to skip.

    Args:
        on_error: `"raise"` or `"skip"`.

    Raises:
        ValueError: If `on_error` is neither.
    """

    def __init__(self, on_error: str) -> None:
        if on_error not in ("raise", "skip"):
            raise ValueError(
                '`on_error` must be "raise" or "skip". '
                f"Received: on_error={on_error!r}"
            )
        self.skip = on_error == "skip"
        self.entries: list[str] = []

    def add(self, message: str) -> None:
        """Raises `ValueError(message)`, or keeps the message."""
        if not self.skip:
            raise ValueError(message)
        self.entries.append(message)

    def warn(self, what: str) -> None:
        """Warns once of everything that was skipped."""
        if self.entries:
            warnings.warn(
                f"{what}: skipped {len(self.entries)} entries. The first: "
                f"{self.entries[0]}",
                stacklevel=3,
            )
