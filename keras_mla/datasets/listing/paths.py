"""Paths that stay inside the data folder, and the list file of a split."""

import functools
import os
import pathlib
import re
from collections.abc import Sequence


@functools.lru_cache(maxsize=4096)
def _real_folder(path: str) -> str:
    return os.path.realpath(path)


def safe_path(root: str | os.PathLike, name: str, source: str = "") -> str:
    """Joins a name from a list file to the data folder, and never leaves it.

    Args:
        root: str or path. The data folder.
        name: str. A relative path, as a list file gives it.
        source: str. List file and line, for the error message.

    Returns:
        The absolute path, symbolic links resolved. The file need not exist.

    Raises:
        ValueError: If the path is empty or absolute, climbs with `..`, holds
            a NUL character, or is a symbolic link that leads out of `root`.

    Example:
    >>> from keras_mla.datasets import listing
    >>> listing.safe_path("/data", "images/1.jpg")
    '/data/images/1.jpg'
    """
    where = f"{source}: " if source else ""
    windows = pathlib.PureWindowsPath(name)
    if (
        not name.strip()
        or "\0" in name
        or os.path.isabs(name)
        or windows.drive
        or windows.root
        or ".." in re.split(r"[\\/]", name)
    ):
        raise ValueError(
            f"{where}a path must be relative and stay inside the data folder "
            f"{os.fspath(root)!r}. Received: path={name!r}"
        )
    base = _real_folder(os.fspath(root))
    joined = os.path.normpath(os.path.join(base, name))
    path = os.path.join(
        _real_folder(os.path.dirname(joined)), os.path.basename(joined)
    )
    if os.path.islink(path):
        path = os.path.realpath(path)
    if path != base and not path.startswith(base.rstrip(os.sep) + os.sep):
        raise ValueError(
            f"{where}the path is a symbolic link that leads out of the data "
            f"folder {os.fspath(root)!r}, to {path!r}. "
            f"Received: path={name!r}"
        )
    return path


def data_folder(data_dir: str | os.PathLike) -> str:
    """Returns `data_dir` as an absolute path.

    Args:
        data_dir: str or path. A folder. `~` stands for the home folder.

    Raises:
        ValueError: If there is no such folder.
    """
    path = os.path.realpath(os.path.expanduser(os.fspath(data_dir)))
    if not os.path.isdir(path):
        raise ValueError(
            "There is no folder at `data_dir`. "
            f"Received: data_dir={os.fspath(data_dir)!r}"
        )
    return path


def find_list(
    root: str,
    split: str,
    list_file: str | os.PathLike | None,
    kinds: str,
    names: Sequence[str] = (),
) -> str:
    """Returns the list file of a split: the one given, or `<split>.<kind>`.

    Args:
        root: str. The data folder.
        split: str. Name of the split.
        list_file: str or path. A list file anywhere on disk, or a name inside
            `root`. `None` stands for `<split>.<kind>` in `root`.
        kinds: str. Extensions to try, separated by spaces.
        names: Names of files in `root` to try after them.

    Returns:
        The path of an existing file.

    Raises:
        ValueError: If there is none.
    """
    if list_file is not None:
        given = os.path.expanduser(os.fspath(list_file))
        for path in (given, os.path.join(root, given)):
            if os.path.isfile(path):
                return path
        raise ValueError(
            f"There is no list file at `list_file`, neither as it stands nor "
            f"in {root!r}. Received: list_file={given!r}"
        )
    tried = [*(f"{split}.{kind}" for kind in kinds.split()), *names]
    for name in tried:
        path = os.path.join(root, name)
        if os.path.isfile(path):
            return path
    raise ValueError(
        f"Found no list of the split {split!r} in {root!r}: none of "
        f"{', '.join(tried)}. Put one there, or give its path as `list_file`."
    )
