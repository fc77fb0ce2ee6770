"""The files of `cache_features`: shards, their indexes, the joined features."""

import contextlib
import hashlib
import json
import os
import re
import time
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_INDEX = "index.json"
_FEATURES = "features.npy"
_INDEXES = re.compile(r"index(-\d+-of-\d+)?\.json")
# What this module writes, and nothing else, may be taken up or deleted.
_OWN = re.compile(
    r"(index(-\d+-of-\d+)?\.json|shard-\d+\.npy|features\.npy)"
    r"(\.[0-9a-f]+\.part)?|index\.json\.part|shard-\d+\.part"
)
# Nobody writes a part that is as old as this.
_STALE_SECONDS = 3600


class FeatureStore:
    """The features of one encoder in a directory.

    Each shard is a file until all of them are joined. A worker records the
    checksums of its shards in an index of its own, and so no two processes
    write one file. All indexes count.

    Args:
        directory: `Path`. The directory; made if it is missing.
        index: dict. What the features belong to.
        overwrite: bool. Whether to delete the features of something else.
        worker: pair of int. The number of this process and the number of
            processes, or `None` for the process that joins the shards.

    Raises:
        ValueError: If the directory holds the features of something else, or
            files of others.
    """

    def __init__(
        self,
        directory: Path,
        index: dict[str, Any],
        overwrite: bool,
        worker: tuple[int, int] | None,
    ) -> None:
        if overwrite and worker is not None:
            raise ValueError(
                "A worker cannot overwrite: it would delete what the others "
                f"compute. Received: overwrite=True, worker={tuple(worker)}"
            )
        self.directory, self.index, self.worker = directory, index, worker
        self.overwrite = overwrite
        self.name = _INDEX
        if worker is not None:
            self.name = f"index-{worker[0]}-of-{worker[1]}.json"
        # Checksums that this process has found, of all indexes, and the rows
        # of shards that were found whole.
        self.own: dict[str, str] = {}
        self.checksums: dict[str, set[str]] = {}
        self.whole: dict[int, int] = {}
        # The record of the joined features, and where its shards are.
        self.joined: dict[str, Any] = {}
        self.regions: dict[int, slice] = {}
        self.moved = False
        self._claim()
        found = self._read_indexes()
        self.own = found.get(self.name, {}).get("checksums", {})
        self._open_joined(found.get(_INDEX, {}))

    def is_own(self, number: int) -> bool:
        """Returns whether this process computes a shard if it is missing."""
        return self.worker is None or number % self.worker[1] == self.worker[0]

    def rows(self, number: int) -> int | None:
        """Returns the samples of a shard, or `None` if it is not there."""
        if self._has_file(number):
            return self.whole[number]
        if number in self.regions:
            region = self.regions[number]
            return region.stop - region.start
        return None

    def write(self, number: int, shard: np.ndarray) -> None:
        """Writes a shard under its name once it is complete."""
        name = _shard(number)
        with self._part() as part:
            np.save(part, shard, allow_pickle=False)
        path = Path(part.name)
        self.own[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        os.replace(path, self.directory / name)
        self.checksums.setdefault(name, set()).add(self.own[name])
        self.whole[number] = len(shard)
        self._write_index()

    def join(self, count: int) -> np.ndarray:
        """Joins the first shards to one file, and returns it memory-mapped.

        Args:
            count: int. Number of shards.
        """
        path = self.directory / _FEATURES
        last = count - 1
        there = all(number in self.regions for number in range(count))
        if not there or any(self._has_file(n) for n in range(count)):
            try:
                self._write_features(count)
            except OSError as error:  # The disk is full or read-only.
                warnings.warn(
                    f"Cannot join the features in {self.directory}, and so "
                    f"they are read into memory: {error}",
                    stacklevel=3,
                )
                return np.concatenate([self._load(n) for n in range(count)])
        self._clean()
        features = np.load(path, mmap_mode="r", allow_pickle=False)
        return features[: self.regions[last].stop]

    def _claim(self) -> None:
        """Starts the directory, or checks that it is one of these features."""
        found = self._read_indexes()
        changed = self._changed(found)
        if changed and self.overwrite:
            self._delete()
            found = {}
        elif changed:
            raise ValueError(self._else(changed))
        elif not found and self.directory.exists():
            # Without an index, joined features are a stranger's.
            others = any(
                not _OWN.fullmatch(file.name) or file.name == _FEATURES
                for file in self.directory.iterdir()
            )
            # Another worker may have begun since.
            if others and not self._read_indexes():
                raise ValueError(
                    f"{self.directory} holds files, but no {_INDEX}: "
                    "`cache_features` did not make it. Use another directory."
                )
        if self.name not in found:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._write_index()
            # Of two workers that begin at once, one sees the other's index.
            changed = self._changed(self._read_indexes())
            if changed:
                (self.directory / self.name).unlink(missing_ok=True)
                raise ValueError(self._else(changed))

    def _else(self, changed: list[str]) -> str:
        return (
            f"{self.directory} holds features of something else: "
            f"{', '.join(changed)} changed. Use another directory, or "
            "pass overwrite=True to delete them."
        )

    def _changed(self, found: dict[str, dict[str, Any]]) -> list[str]:
        return sorted(
            key
            for key, value in self.index.items()
            if any(value != old.get(key) for old in found.values())
        )

    def _read_indexes(self) -> dict[str, dict[str, Any]]:
        """Reads all indexes and takes up the checksums in them."""
        found: dict[str, dict[str, Any]] = {}
        names = os.listdir(self.directory) if self.directory.exists() else []
        for name in filter(_INDEXES.fullmatch, names):
            try:
                text = (self.directory / name).read_text()
                found[name] = json.loads(text)
            except FileNotFoundError:
                continue  # The shards were joined since.
            except ValueError as error:
                if not self.overwrite:
                    raise ValueError(
                        f"{self.directory / name} is damaged: {error}"
                    ) from error
                found[name] = {}
        for content in found.values():
            for name, checksum in content.get("checksums", {}).items():
                self.checksums.setdefault(name, set()).add(checksum)
        return found

    def _write_index(self, **more: Any) -> None:
        content = {**self.index, "checksums": self.own, **more}
        if self.joined and self.worker is None:
            content["features"] = self.joined
        with self._part() as part:
            part.write(json.dumps(content, indent=2).encode())
        os.replace(part.name, self.directory / self.name)

    @contextlib.contextmanager
    def _part(self) -> Iterator[Any]:
        """Opens a new file that no other process writes."""
        name = f"{self.name}.{uuid.uuid4().hex}.part"
        path = self.directory / name
        try:
            with path.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            path.unlink(missing_ok=True)
            raise

    def _has_file(self, number: int) -> bool:
        """Returns whether a shard has a file of its own that is whole."""
        if number in self.whole:
            return True
        path = self.directory / _shard(number)
        try:
            data = path.read_bytes()
        except OSError:
            return False
        checksum = hashlib.sha256(data).hexdigest()
        if checksum not in self.checksums.get(path.name, ()):
            self._read_indexes()  # Another worker may have written it since.
        if checksum not in self.checksums.get(path.name, ()):
            return False
        features = np.load(path, mmap_mode="r", allow_pickle=False)
        self.whole[number] = len(features)
        return True

    def _load(self, number: int) -> np.ndarray:
        """Reads a shard into memory, from its own file or the joined one."""
        if self._has_file(number):
            path = self.directory / _shard(number)
            return np.load(path, allow_pickle=False)
        return self._read_region(self.regions[number], self.joined)

    def _open_joined(self, index: dict[str, Any]) -> None:
        """Finds the shards that the joined features hold.

        A file of the recorded size and time is taken for the one that was
        written: all of a large file would have to be read at each call.
        """
        try:
            stamp = _stamp(self.directory / _FEATURES)
        except OSError:
            return
        # A kill may have come before or after the file took its name.
        records = [index.get("features"), index.get("next")]
        for record in filter(None, records):
            if record["stamp"] == stamp:
                self.joined, self.regions = record, _regions(record)
                return
        for record in filter(None, records):
            regions = self._intact(record)
            if len(regions) > len(self.regions):
                self.joined, self.regions = {**record, "stamp": stamp}, regions
                self.moved = True

    def _intact(self, record: dict[str, Any]) -> dict[int, slice]:
        """Returns the rows of the shards whose checksums match."""
        expected = (sum(record["rows"]), record["width"])
        try:
            path = self.directory / _FEATURES
            features = np.load(path, mmap_mode="r", allow_pickle=False)
            if features.shape != expected or (
                features.dtype.str != record["dtype"]
            ):
                return {}
            return {
                number: region
                for number, region in _regions(record).items()
                if _checksum(self._read_region(region, record))
                == record["checksums"][number]
            }
        except (OSError, ValueError, EOFError):
            return {}

    def _read_region(self, region: slice, record: dict[str, Any]) -> np.ndarray:
        """Reads rows of the joined features; a map would stay in memory."""
        width, dtype = record["width"], np.dtype(record["dtype"])
        path = self.directory / _FEATURES
        size = dtype.itemsize * width
        head = path.stat().st_size - sum(record["rows"]) * size
        count = (region.stop - region.start) * width
        data = np.fromfile(
            path, dtype, count, offset=head + region.start * size
        )
        return data.reshape(-1, width)

    def _write_features(self, count: int) -> None:
        """Writes the joined features, one shard in memory at a time."""
        first = self._load(0)
        rows = [self.rows(number) or 0 for number in range(count)]
        width, checksums = first.shape[1], []
        header = {
            "descr": np.lib.format.dtype_to_descr(first.dtype),
            "fortran_order": False,
            "shape": (sum(rows), width),
        }
        with self._part() as part:
            np.lib.format.write_array_header_1_0(part, header)
            for number in range(count):
                shard = np.ascontiguousarray(self._load(number))
                if shard.shape[1:] != (width,) or shard.dtype != first.dtype:
                    raise ValueError(
                        "All batches must give features of one width and "
                        f"type: {width} of {first.dtype}. Received: "
                        f"{shard.shape[1]} of {shard.dtype}"
                    )
                checksums.append(_checksum(shard))
                part.write(shard.data)
        record = {
            "rows": rows,
            "width": width,
            "dtype": first.dtype.str,
            "checksums": checksums,
            "stamp": _stamp(Path(part.name)),
        }
        # Shards of older joined features have no other copy. They are found
        # again whether a kill comes before or after the new file's name.
        self._write_index(next=record)
        os.replace(part.name, self.directory / _FEATURES)
        self.joined, self.regions = record, _regions(record)
        self._write_index()

    def _clean(self) -> None:
        """Deletes what the joined features make superfluous."""
        now, changed = time.time(), bool(self.own) or self.moved
        with contextlib.suppress(OSError):  # The disk may be read-only.
            for file in list(self.directory.iterdir()):
                if file.name in (_INDEX, _FEATURES):
                    continue
                if not _OWN.fullmatch(file.name):
                    continue
                age = now - file.stat().st_mtime
                if file.suffix != ".part" or age > _STALE_SECONDS:
                    file.unlink(missing_ok=True)
                    changed = True
            self.own, self.checksums, self.whole = {}, {}, {}
            if changed:
                self._write_index()

    def _delete(self) -> None:
        """Deletes the features of something else."""
        (self.directory / _FEATURES).unlink(missing_ok=True)
        # The indexes first: what a kill leaves behind belongs to nothing.
        files = [f for f in self.directory.iterdir() if _OWN.fullmatch(f.name)]
        for file in sorted(files, key=lambda f: f.suffix != ".json"):
            file.unlink(missing_ok=True)
        self.own, self.checksums = {}, {}


def _shard(number: int) -> str:
    return f"shard-{number:05d}.npy"


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _regions(record: dict[str, Any]) -> dict[int, slice]:
    """Returns the rows of each shard in the joined features."""
    stops = np.cumsum(record["rows"]).tolist()
    return dict(enumerate(map(slice, [0, *stops[:-1]], stops)))


def _checksum(shard: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(shard).data).hexdigest()
