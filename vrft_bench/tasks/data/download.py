"""One file over HTTP into ``NAME.part``, which is taken up where it broke, in the same call and in later ones.

A connection that breaks is taken up by ``Range``, guarded by ``If-Range`` with the ETag or date that is kept beside the
part. What a server says is not trusted: a piece is added only where it begins at the end of what is there.
"""

from __future__ import annotations

import errno
import http.client
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import IO

from vrft_bench.errors import DataError
from vrft_bench.tasks.data.archives import check_room
from vrft_bench.tasks.data.sources import Download

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there, and the bytes of the whole where known."""

_CHUNK = 1 << 20
_CONNECTION_FAILURES = (OSError, http.client.HTTPException)
"""What a connection may die of; ``URLError`` and a time-out are ``OSError``."""
_DISK_IS_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_ASK_AGAIN = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
"""Answers below 500 that do not say that the file is gone."""


class _Gone(Exception):  # noqa: N818 - what a server says, not what a user did
    """The server says that there is no such file, or that we may not have it."""


def receive(
    source: Download, part: Path, progress: Progress | None, attempts: int, wait: Callable[[float], None]
) -> None:
    """Fill ``part`` until the whole file is there.

    ``attempts`` that bring nothing new in a row end the call; between them it waits 1, 2, 4, ... seconds. Raises
    :class:`DataError` where the file cannot be had or written; what has arrived is kept.
    """
    failed = 0
    while True:
        before = _size(part)
        try:
            if _receive_more(source, part, progress):
                return
            reason = "the connection was cut"
        except _Gone as error:
            raise DataError(
                f"{source.url} cannot be fetched: {error}", fix="see where its owner keeps it now"
            ) from None
        except _CONNECTION_FAILURES as error:
            reason = str(error) or type(error).__name__
        failed = 0 if _size(part) > before else failed + 1
        if failed >= attempts:
            raise DataError(
                f"{source.url} cannot be fetched: {reason} ({attempts} times in a row)",
                fix="repeat the command when the server can be reached: it goes on where this one stopped",
            )
        wait(float(2**failed) / 2)


def discard(part: Path) -> None:
    """Delete ``part`` and what is kept beside it."""
    part.unlink(missing_ok=True)
    validator(part).unlink(missing_ok=True)


def validator(part: Path) -> Path:
    """Where the ETag or date of a partial file is kept."""
    return part.with_name(part.name + ".etag")


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Raise :class:`DataError` where ``path`` cannot be written, for which another attempt is of no use."""
    try:
        yield
    except OSError as error:
        fix = (
            "make room, and repeat the command: it goes on where this one stopped"
            if error.errno in _DISK_IS_FULL
            else "make its folder writable and move away what is in its place, or choose another --data folder"
        )
        raise DataError(f"{path} cannot be written: {error.strerror}", fix=fix) from error


def _receive_more(source: Download, part: Path, progress: Progress | None) -> bool:
    """One request; whether the file is whole afterwards."""
    start, known = _size(part), ""
    with on_disk(part):
        known = validator(part).read_text() if validator(part).exists() else ""
    headers = {"User-Agent": "vrft-bench", "Accept-Encoding": "identity"}
    if start and known:
        headers |= {"Range": f"bytes={start}-", "If-Range": known}
    else:
        start = 0
    try:
        with urllib.request.urlopen(urllib.request.Request(source.url, headers=headers), timeout=60) as response:
            if response.status == HTTPStatus.OK:
                start = 0
            elif response.status != HTTPStatus.PARTIAL_CONTENT:
                raise _Gone(f"the server says {response.status} {response.reason}")
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                discard(part)  # it is another piece than the one asked for: begin again, and ask for none
                return False
            left = response.headers.get("Content-Length", "")
            total = start + int(left) if left.isdecimal() else source.size
            if source.size not in (None, total):  # a login page, say, which must not take the place of what has arrived
                raise _Gone(f"it is to have {source.size:,} bytes, and the server gives {total:,}")
            check_room(part.parent, _room_for(source, total, start), source.name)
            with on_disk(part):
                validator(part).write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
            done = _write(response, part, start, lambda count: progress and progress(source.name, count, total))
            return total is None or done >= total
    except urllib.error.HTTPError as error:
        if error.code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
                return True  # all of it was here already: the checksum decides
            discard(part)  # more is here than there: begin again
            return False
        if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code not in _ASK_AGAIN:
            raise _Gone(f"the server says {error.code} {error.reason}") from None
        raise


def _write(response: IO[bytes], part: Path, start: int, report: Callable[[int], object]) -> int:
    """Append the body to the first ``start`` bytes of ``part``; the size that it has then."""
    with on_disk(part):
        file = part.open("ab" if start else "wb", buffering=0)  # so that closing it has nothing left to write

    def append(chunk: bytes) -> None:
        with on_disk(part):
            rest = memoryview(chunk)
            while rest:
                rest = rest[file.write(rest) :]
        report(file.tell())

    with file:
        report(start)
        try:
            while chunk := response.read(_CHUNK):
                append(chunk)
        except http.client.IncompleteRead as error:  # only where the server does not say how much is to come
            append(error.partial)
            raise
        return file.tell()


def _room_for(source: Download, total: int | None, start: int) -> int:
    if total is None:
        return 0
    return total - start + (int(total * source.unpacked) if source.is_archive else 0)


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0
