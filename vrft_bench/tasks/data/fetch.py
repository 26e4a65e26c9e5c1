"""Brings data from their owners to their place, each file held to a checksum.

A file arrives as ``NAME.part`` (see :mod:`~vrft_bench.tasks.data.download`) and is renamed once it is whole and its
sha256 is right. Where nobody has written a checksum down, the one of the first download that could be unpacked is kept
in ``fetch.lock.json`` under the data root, and later downloads are held to it. Archives are unpacked beside their place
and moved (see :mod:`~vrft_bench.tasks.data.archives`), so that a folder is whole or not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data.annotations import read_json
from vrft_bench.tasks.data.archives import unpack
from vrft_bench.tasks.data.download import Progress, discard, on_disk, receive, validator
from vrft_bench.tasks.data.sources import Download, HubDataset, Need

LOCK_FILE = "fetch.lock.json"
_RECORDING = ".fetch.lock"
"""What is locked while the lock file is read, changed and replaced, since a replaced file keeps nobody out."""


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
    with on_disk(root / LOCK_FILE), (root / _RECORDING).open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        lock = read_lock(root)
        lock[url] = {**entry, "fetched": datetime.now(UTC).isoformat(timespec="seconds")}
        with tempfile.NamedTemporaryFile("w", dir=root, prefix=".lock-", encoding="utf-8", delete=False) as beside:
            json.dump(lock, beside, indent=1, sort_keys=True)
        Path(beside.name).chmod(0o644)  # others who use the data are held to it too
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
        receive(source, part, progress, attempts, wait)
        digest = _sha256(part)
        if expected is None or digest == expected:
            break
        discard(part)
        if not resumed:
            raise DataError(
                f"{source.url} gave a file with the sha256 {digest}, and {whose} has {expected}",
                fix="try again later; if it stays so, ask the owner whether the file has changed, and do not use it",
            )
        resumed = False  # the old part may have been at fault: once more, from the beginning
    with on_disk(path):
        part.rename(path)
        validator(part).unlink(missing_ok=True)
    return digest


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
