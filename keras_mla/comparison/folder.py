"""The folder of a comparison: its lock, its log, and the files of each run."""

import contextlib
import hashlib
import json
import os
import pathlib
import shutil
import traceback
from collections.abc import Iterable, Iterator

from keras_mla.comparison.log import Log


@contextlib.contextmanager
def locked(path: str | os.PathLike) -> Iterator[None]:
    """Keeps other processes out of a folder, which is made if it lacks.

    The lock ends with the process, also if the process is killed. A system
    without `fcntl`, and a file system without locks, has no lock.

    Raises:
        ValueError: If another process has the lock.
    """
    path = pathlib.Path(path)
    path.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (path / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"Another comparison is writing to {path}. Wait for its end, "
                "or choose another folder for the results."
            ) from None
        except OSError:
            pass
        yield


class Folder:
    """The log of runs, and where the files of each run are.

    Args:
        path: The folder.
        header: dict of what all runs have in common.

    Raises:
        ValueError: If the folder has a log with another header.
    """

    def __init__(self, path: str | os.PathLike, header: dict) -> None:
        self.path = pathlib.Path(path)
        self.log = Log(self.path / "runs.jsonl", header)

    def weights(self, what: dict) -> pathlib.Path:
        """Returns the file of a run's weights."""
        return self._file(what, ".weights.h5")

    def backup(self, what: dict) -> pathlib.Path:
        """Returns the folder of what a killed run goes on from."""
        return self._file(what, ".weights.backup")

    def predictions(self, what: dict) -> pathlib.Path:
        """Returns the file of a run's predictions for the test split."""
        return self._file(what, ".npz")

    def notes(self, what: dict) -> pathlib.Path:
        """Returns the file of what else a run has shown on the test split."""
        return self._file(what, ".json")

    def _file(self, what: dict, ending: str) -> pathlib.Path:
        # Files that outlive their log are not those of a new log's runs.
        key = f"{Log.key(what)}{self.log.id}"
        digest = hashlib.blake2b(key.encode(), digest_size=6).hexdigest()
        return self.path / "runs" / f"{_slug(what['method'])}-{digest}{ending}"

    def tell(self, what: dict) -> None:
        """Appends the error that is being handled to `errors.txt`."""
        with (self.path / "errors.txt").open("a") as file:
            file.write(f"{json.dumps(what)}\n{traceback.format_exc()}\n")

    def sweep(
        self,
        methods: Iterable[str],
        final: Iterable[dict],
        unfinished: Iterable[dict],
    ) -> None:
        """Deletes the files of methods that nothing needs any more.

        Args:
            methods: Titles of the methods.
            final: Runs whose weights and predictions stay.
            unfinished: Runs whose backups stay.
        """
        kept = {self.backup(what) for what in unfinished}
        for what in final:
            kept |= {self.weights(what), self.predictions(what)}
            kept.add(self.notes(what))
        digest = "[0-9a-f]" * 12
        for method in methods:
            found = (self.path / "runs").glob(f"{_slug(method)}-{digest}.*")
            for path in set(found) - kept:
                if path.is_dir():
                    shutil.rmtree(path, ignore_errors=True)
                else:
                    path.unlink(missing_ok=True)


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in name)
