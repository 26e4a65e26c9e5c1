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
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from vrft_bench.errors import DataError, PartialRunError

Record = dict[str, Any]
"""``{id, n, text, finish_reason, prediction, score, ...}``, or ``{id, n, error}`` for one that failed."""
Key = tuple[str, int]

SYNC_SECONDS = 5.0
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode

_Types = Mapping[str, tuple[type, ...]]
_NUMBER = (int, float)
_KEY: _Types = {"id": (str,), "n": (int,)}
_ANSWER: _Types = {**_KEY, "text": (str,), "finish_reason": (str,)}
_FAILURE: _Types = {**_KEY, "error": (str,)}
_OPTIONAL: _Types = {
    "prompt_tokens": _NUMBER,
    "completion_tokens": _NUMBER,
    "seconds": _NUMBER,
    "image_sha256": (str,),
    "processed": (list,),
    "token_logprobs": (list,),
}
_LARGEST_SIDE = 1e9


class RecordWriter:
    """Appends records to ``path``. A record is in the file when :meth:`append` returns, and synced within seconds."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise DataError(
                f"{path} cannot be written: {error.strerror}",
                fix="make it a file that can be written, or start anew with --fresh",
            ) from error
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
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", fix="make it a file that can be read") from error
    offset = 0
    with file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = _decode(line.decode())
                flaw = _flaw(record)
            except (ValueError, RecursionError) as error:
                flaw = f"it is not JSON ({error})"
            if flaw is not None:
                raise DataError(
                    f"{path}, line {number}: damaged, it is not a record of a completion: {flaw}",
                    fix="delete that line and repeat the command (it is asked again), or start anew with --fresh",
                )
            yield number, offset, record
            offset += len(line)


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


_decode = json.JSONDecoder(parse_constant=_no_number).decode


def _flaw(record: Any) -> str | None:
    """Why ``record`` is none, or ``None``. Predictions and scores are not looked at: they are made from the text."""
    if not isinstance(record, dict):
        return "it is no JSON object"
    for key, kinds in (_FAILURE if "error" in record else _ANSWER).items():
        if key not in record:
            return f"it has no {key!r}"
        if type(record[key]) not in kinds:  # not isinstance: true is no number
            return f"its {key!r} is {record[key]!r:.60}"
    for key, kinds in _OPTIONAL.items():
        if key in record and type(record[key]) not in kinds:
            return f"its {key!r} is {record[key]!r:.60}"
    if record["n"] < 0:
        return f"its 'n' is {record['n']}"
    size = record.get("processed")
    if size is not None and (
        len(size) != 2 or not all(type(side) in _NUMBER and 1 <= side < _LARGEST_SIDE for side in size)
    ):
        return f"its 'processed' is {size!r:.60}, and no width and height"
    for pair in record.get("token_logprobs", ()):
        if not (isinstance(pair, list) and len(pair) == 2 and type(pair[0]) is int and type(pair[1]) in _NUMBER):
            return f"its 'token_logprobs' hold {pair!r:.60}, and no end and logprob"
    return None


def _end_of_last_line(descriptor: int, chunk: int = 1 << 16) -> int:
    """The offset after the last newline, found from the end."""
    end = os.fstat(descriptor).st_size
    while end > 0:
        start = max(0, end - chunk)
        if (found := os.pread(descriptor, end - start, start).rfind(b"\n")) >= 0:
            return start + found + 1
        end = start
    return 0
