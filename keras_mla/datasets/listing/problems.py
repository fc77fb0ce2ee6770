"""What to do about wrong entries and files that are missing."""

import warnings


class Problems:
    """Raises each problem, or counts problems if the user chose to skip.

    Args:
        on_error: `"raise"`; `"skip"` to leave out what is wrong; or
            `"absent"`: what is missing or cannot be decoded is an absent
            modality. Wrong entries of a list raise then.

    Raises:
        ValueError: If `on_error` is none of them.
    """

    def __init__(self, on_error: str) -> None:
        if on_error not in ("raise", "skip", "absent"):
            raise ValueError(
                '`on_error` must be "raise", "skip" or "absent". '
                f"Received: on_error={on_error!r}"
            )
        self.skip = on_error == "skip"
        self.absent = on_error == "absent"
        self.entries: list[str] = []

    def add(self, message: str) -> None:
        """Raises `ValueError(message)`, or keeps the message.

        Args:
            message: str. What is wrong, and where.

        Raises:
            ValueError: Unless `on_error` is `"skip"`.
        """
        if not self.skip:
            raise ValueError(message)
        self.entries.append(message)

    def warn(self, what: str) -> None:
        """Warns once of everything that was skipped.

        Args:
            what: str. What was read, such as the name of a data set. The
                warning begins with it.
        """
        if self.entries:
            warnings.warn(
                f"{what}: skipped {len(self.entries)} entries. The first: "
                f"{self.entries[0]}",
                stacklevel=3,
            )
