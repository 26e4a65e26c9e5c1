"""Downloads data from their owners: with resume, a checksum, and a look at the free space first.

A file arrives as ``NAME.part`` and is renamed once it is whole and its sha256 is right. A connection that breaks is
taken up where it broke (HTTP ``Range``, guarded by ``If-Range``), in the same call and in later ones. Where nobody has
written a checksum down, the one of the first download that could be unpacked is kept in ``fetch.lock.json`` under the
data root, and later downloads are held to it. Archives are unpacked beside their place and moved, so that a folder is
whole or not there.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import json
import os
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data.annotations import read_json
from vrft_bench.tasks.data.sources import Download, HubDataset, Need

LOCK_FILE = "fetch.lock.json"
_RECORDING = ".fetch.lock"
"""What is locked while the lock file is read, changed and replaced, since a replaced file keeps nobody out."""
Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there, and the bytes of the whole where known."""

_CHUNK = 1 << 20
_SPARE = 100 << 20
"""Bytes that are left free on the disk."""
_CONNECTION_FAILURES = (OSError, http.client.HTTPException)
"""What a connection may die of; ``URLError`` and a time-out are ``OSError``."""
_DISK_FAILURES = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors that are the disk's and not the connection's, so that another attempt is of no use."""


class _Gone(Exception):  # noqa: N818 - what a server says, not what a user did
    """The server says that there is no such file, or that we may not have it."""


def fetch_file(
    source: Download,
    root: Path,
    *,
    progress: Progress | None = None,
    attempts: int = 5,
    wait: Callable[[float], None] = time.sleep,
) -> Path:
    """Download ``source`` to its place under ``root`` and unpack it; returns the folder that it went into.

    ``attempts`` that bring nothing new in a row end the call; between them it waits 1, 2, 4, ... seconds.

    Raises :class:`DataError` where the file cannot be had, is not what its checksum says, cannot be unpacked, or needs
    more room than there is; :class:`UserError` where its folder cannot be made. What has arrived is kept, unless its
    checksum is wrong.
    """
    folder = root / source.into
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the folder {folder} cannot be made: {error.strerror}", fix="choose another --data folder"
        ) from error
    path = folder / source.name
    with _alone(folder):
        expected, whose = _expected(source, root)
        digest = _sha256(path) if path.is_file() else _download(source, path, expected, whose, progress, attempts, wait)
        if expected is not None and digest != expected:  # only of a file that somebody else put there
            raise DataError(
                f"{path} has the sha256 {digest}, and {whose} has {expected}",
                fix="move it away, and repeat the command",
            )
        entry = {"sha256": digest, "bytes": path.stat().st_size}
        if source.is_archive:
            unpack(path, folder, only=source.only)
        _record(root, source.url, entry)
        if source.is_archive:
            path.unlink()
    return folder


def fetch_hub(source: HubDataset, root: Path, *, endpoint: str | None = None) -> Path:
    """Download a dataset of the hub; returns its folder. A later call fetches the same revision and checks the files.

    Raises :class:`UserError` where huggingface_hub is not installed, :class:`DataError` where the hub does not give the
    dataset or a file is not the one of the first download.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            f"{source.repo} is on the Hugging Face hub, and huggingface_hub is not installed",
            fix="pip install 'vrft-bench[fetch]'",
        ) from error
    folder = root / source.into
    known = read_lock(root).get(source.url, {})
    try:
        api = huggingface_hub.HfApi(endpoint=endpoint)
        revision = known.get("revision") or api.dataset_info(source.repo).sha
        huggingface_hub.snapshot_download(
            source.repo, repo_type="dataset", revision=revision, local_dir=folder, endpoint=endpoint
        )
    except Exception as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(
            f"{source.url} cannot be fetched: {reason}",
            fix="repeat the command when the hub can be reached; what has arrived is kept",
        ) from error
    files = {
        path.relative_to(folder).as_posix(): _sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }
    for name, digest in known.get("files", {}).items():
        if files.get(name) != digest:
            raise DataError(
                f"{folder / name} is not the file that was fetched first (revision {revision})",
                fix=f"delete {folder} and fetch it again",
            )
    _record(root, source.url, {"revision": revision, "files": files})
    return folder


def is_there(need: Need, root: Path) -> bool:
    """Whether ``need`` is under ``root``, and is no dataset of the hub whose fetching was stopped."""
    found = need.found(root)
    if found is None or not isinstance(need.source, HubDataset):
        return found is not None
    return not (found / ".cache").is_dir() or need.source.url in read_lock(root)


def unpack(archive: Path, folder: Path, *, only: str = "*") -> None:
    """Unpack a zip or tar archive into ``folder``; what is there already is replaced file by file.

    Members that would land outside are refused or renamed by Python's own rules (``tarfile``'s ``data`` filter).
    Raises :class:`DataError` for a damaged archive and a full disk.
    """
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as beside:
        try:
            if archive.name.endswith(".zip"):
                with zipfile.ZipFile(archive) as packed:
                    members = [item for item in packed.infolist() if fnmatch(item.filename, only)]
                    _check_room(folder, sum(item.file_size for item in members), f"unpacking {archive.name}")
                    packed.extractall(beside, members)
            else:
                with tarfile.open(archive) as packed_tar:
                    wanted = (item for item in packed_tar if fnmatch(item.name.removeprefix("./"), only))
                    packed_tar.extractall(beside, wanted, filter="data")
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError) as error:
            raise DataError(f"{archive} is damaged: {error}", fix="delete it and fetch it again") from error
        except RuntimeError as error:  # what zipfile raises for an encrypted member
            raise DataError(f"{archive} cannot be read: {error}", fix="delete it and fetch it again") from error
        except OSError as error:
            raise DataError(
                f"{archive} cannot be unpacked: {error}", fix="make room, and repeat the command"
            ) from error
        if not any(Path(beside).iterdir()):
            raise DataError(f"{archive} holds nothing like {only}", fix="delete it and fetch it again")
        try:
            _move_into(Path(beside), folder)
        except OSError as error:
            raise DataError(
                f"what {archive.name} holds cannot be put into {folder}: {error}", fix="move away what is in its place"
            ) from error


def read_lock(root: Path) -> dict[str, dict[str, Any]]:
    """What was fetched into ``root`` before: url -> its ``sha256`` and ``bytes``, or ``revision`` and ``files``."""
    path = root / LOCK_FILE
    if not path.exists():
        return {}
    value = read_json(path)
    if not isinstance(value, dict) or not all(isinstance(entry, dict) for entry in value.values()):
        raise DataError(f"{path} is not what `vrft-bench data fetch` wrote", fix="restore it, or delete it")
    return value


def _record(root: Path, url: str, entry: dict[str, Any]) -> None:
    """Add an entry to the lock file. Processes that fetch into other folders of the same root wait for each other."""
    with (root / _RECORDING).open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        lock = read_lock(root)
        lock[url] = {**entry, "fetched": datetime.now(UTC).isoformat(timespec="seconds")}
        with tempfile.NamedTemporaryFile("w", dir=root, prefix=".lock-", encoding="utf-8", delete=False) as beside:
            json.dump(lock, beside, indent=1, sort_keys=True)
        Path(beside.name).replace(root / LOCK_FILE)


def _expected(source: Download, root: Path) -> tuple[str | None, str]:
    """The sha256 that the file of ``source`` must have, where one is known, and what it is that of."""
    if source.sha256 is not None:
        return source.sha256, "its owner's file"
    return read_lock(root).get(source.url, {}).get("sha256"), f"the first download, recorded in {root / LOCK_FILE},"


def _download(
    source: Download,
    path: Path,
    expected: str | None,
    whose: str,
    progress: Progress | None,
    attempts: int,
    wait: Callable[[float], None],
) -> str:
    """Bring ``path`` into being, whole and checked; returns its sha256."""
    part = path.with_name(path.name + ".part")
    resumed = part.exists()
    while True:
        _receive(source, part, progress, attempts, wait)
        digest = _sha256(part)
        if expected is None or digest == expected:
            break
        _discard(part)
        if not resumed:
            raise DataError(
                f"{source.url} gave a file with the sha256 {digest}, and {whose} has {expected}",
                fix="try again later; if it stays so, ask the owner whether the file has changed, and do not use it",
            )
        resumed = False  # the old part may have been at fault: once more, from the beginning
    part.rename(path)
    _validator(part).unlink(missing_ok=True)
    return digest


def _receive(
    source: Download, part: Path, progress: Progress | None, attempts: int, wait: Callable[[float], None]
) -> None:
    """Fill ``part`` until the whole file is there."""
    failed = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _receive_more(source, part, progress):
                return
            reason = "the connection was cut"
        except _Gone as error:
            raise DataError(
                f"{source.url} cannot be fetched: {error}", fix="see where its owner keeps it now"
            ) from None
        except _CONNECTION_FAILURES as error:
            if isinstance(error, OSError) and error.errno in _DISK_FAILURES:
                raise DataError(
                    f"{part} cannot be written: {error.strerror}",
                    fix="make room, and repeat the command: it goes on where this one stopped",
                ) from error
            reason = str(error) or type(error).__name__
        failed = 0 if part.exists() and part.stat().st_size > before else failed + 1
        if failed >= attempts:
            raise DataError(
                f"{source.url} cannot be fetched: {reason} ({attempts} times in a row)",
                fix="repeat the command when the server can be reached: it goes on where this one stopped",
            )
        wait(float(2**failed) / 2)


def _receive_more(source: Download, part: Path, progress: Progress | None) -> bool:
    """One request; whether the file is whole afterwards."""
    start = part.stat().st_size if part.exists() else 0
    validator = _validator(part).read_text() if _validator(part).exists() else ""
    headers = {"User-Agent": "vrft-bench", "Accept-Encoding": "identity"}
    if start and validator:
        headers |= {"Range": f"bytes={start}-", "If-Range": validator}
    else:
        start = 0
    try:
        with urllib.request.urlopen(urllib.request.Request(source.url, headers=headers), timeout=60) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                start = 0
            left = response.headers.get("Content-Length")
            total = start + int(left) if left is not None else source.size
            _check_room(part.parent, _room_for(source, total, start), f"{source.name}")
            _validator(part).write_text(response.headers.get("ETag") or response.headers.get("Last-Modified") or "")
            done = _write(response, part, start, lambda count: progress and progress(source.name, count, total))
            return total is None or done >= total
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            if error.headers.get("Content-Range", "").strip() == f"bytes */{start}":
                return True  # all of it was here already: the checksum decides
            _discard(part)  # more is here than there: begin again
            return False
        if error.code < http.HTTPStatus.INTERNAL_SERVER_ERROR and error.code != http.HTTPStatus.TOO_MANY_REQUESTS:
            raise _Gone(f"the server says {error.code} {error.reason}") from None
        raise


def _write(response: IO[bytes], part: Path, start: int, report: Callable[[int], object]) -> int:
    """Append the body to the first ``start`` bytes of ``part``; the size that it has then."""
    with part.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        report(start)
        try:
            while chunk := response.read(_CHUNK):
                file.write(chunk)
                report(file.tell())
        except http.client.IncompleteRead as error:  # only where the server does not say how much is to come
            file.write(error.partial)
            raise
        return file.tell()


def _room_for(source: Download, total: int | None, start: int) -> int:
    if total is None:
        return 0
    return total - start + (int(total * source.unpacked) if source.is_archive else 0)


def _check_room(folder: Path, needed: int, what: str) -> None:
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise DataError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free",
            fix="make room, or choose another --data folder",
        )


def _validator(part: Path) -> Path:
    """Where the ETag or date of a partial file is kept."""
    return part.with_name(part.name + ".etag")


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _move_into(source: Path, folder: Path) -> None:
    for item in sorted(source.iterdir()):
        target = folder / item.name
        if item.is_dir() and target.is_dir():
            _move_into(item, target)
        else:
            item.replace(target)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep a second process from fetching into ``folder``. The lock is the folder's own, and goes with the process."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise UserError(f"another process is fetching into {folder}", fix="wait until it is done") from None
    finally:
        os.close(handle)
