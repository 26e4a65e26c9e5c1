"""samples.jsonl: one line per finished completion, written whole or not at all.

A line counts from the moment its newline is on disk. A tail without one was torn by a crash: readers ignore it, the
writer cuts it off before it appends. A line that ends properly and cannot be read means that the file was damaged or
edited, which is an error and never skipped.

A completion is known by its key (sample id, n). A failed record may be followed by a later one of the same key, which
supersedes it. Two answers for one key are refused rather than one of them picked, since the choice would change the
score: the store's lock keeps runs from writing them, so somebody joined files by hand.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from vrft_bench.errors import DataError, PartialRunError

Record = dict[str, Any]
"""``{id, n, text, finish_reason, prediction, score, ...}``, or ``{id, n, error}`` for one that failed."""
Key = tuple[str, int]

SYNC_SECONDS = 5.0
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


class RecordWriter:
    """Appends records to ``path``. A record is in the file when :meth:`append` returns, and synced within seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._size = _end_of_last_line(self._descriptor)
        self._synced = time.monotonic()
        if os.fstat(self._descriptor).st_size != self._size:
            os.ftruncate(self._descriptor, self._size)

    def append(self, record: Record) -> None:
        """Write one line. Raises :class:`PartialRunError` when the disk takes no more; no part of a line stays."""
        line = _encode(record).encode() + b"\n"
        try:
            rest = line
            while rest:  # a disk that is nearly full takes a part; writing what is left then says why
                rest = rest[os.write(self._descriptor, rest) :]
            now = time.monotonic()
            if now - self._synced > SYNC_SECONDS:
                os.fsync(self._descriptor)
                self._synced = now
        except OSError as error:
            os.ftruncate(self._descriptor, self._size)
            raise disk_error(self._path, error) from error
        self._size += len(line)

    def close(self) -> None:
        """Sync and close. May be called twice."""
        if self._descriptor < 0:
            return
        descriptor, self._descriptor = self._descriptor, -1
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise disk_error(self._path, error) from error
        finally:
            os.close(descriptor)


class RecordIndex:
    """Where the record of each key begins in a samples.jsonl: an offset per key, and no text in memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None
        self.answered: dict[Key, int] = {}
        self.failed: dict[Key, int] = {}
        for number, offset, record in _lines(path):
            key = (record["id"], record["n"])
            if "error" in record:
                self.failed[key] = offset
            elif key in self.answered:
                raise DataError(
                    f"{path}, line {number}: a second answer for sample {key[0]!r}, n={key[1]}",
                    fix="delete one of the two lines, or start anew with --fresh",
                )
            else:
                self.answered[key] = offset
        for key in self.answered.keys() & self.failed.keys():
            del self.failed[key]

    def read(self, offset: int) -> Record:
        """The record that begins at ``offset``."""
        if self._file is None:
            self._file = self._path.open("rb")
        self._file.seek(offset)
        record: Record = json.loads(self._file.readline())
        return record

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def read_records(path: Path) -> Iterator[Record]:
    """The records that count, in file order: a failed one that was asked again later is left out.

    Raises :class:`DataError` for a damaged line, naming its number, and for two answers with one key.
    """
    index = RecordIndex(path)
    counting = {*index.answered.values(), *index.failed.values()}
    return (record for _, offset, record in _lines(path) if offset in counting)


def disk_error(path: Path, error: OSError) -> PartialRunError:
    """What a user is told when a run cannot write its records."""
    return PartialRunError(
        f"the disk is full or takes no more: cannot write {path} ({error.strerror or error}); "
        "everything finished so far is kept",
        fix="make room and repeat the same command: it resumes where this one stopped",
    )


def _lines(path: Path) -> Iterator[tuple[int, int, Record]]:
    """(line number, offset, record) of every whole line."""
    if not path.exists():
        return
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
                whole = isinstance(record["id"], str) and isinstance(record["n"], int)
            except (ValueError, TypeError, KeyError):
                whole = False
            if not whole:
                raise DataError(
                    f"{path}, line {number}: damaged, it is not a record of a completion",
                    fix="delete that line and repeat the command (it is asked again), or start anew with --fresh",
                )
            yield number, offset, record
            offset += len(line)


def _end_of_last_line(descriptor: int, chunk: int = 1 << 16) -> int:
    """The offset after the last newline, found from the end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - chunk)
        if (found := os.pread(descriptor, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
