"""Unpacks the archives of data owners: whole or not at all, nowhere but into their folder, with a look at the room."""

from __future__ import annotations

import shutil
import tarfile
import tempfile
import zipfile
import zlib
from fnmatch import fnmatch
from pathlib import Path

from vrft_bench.errors import DataError

_BESIDE = ".unpack-"
"""What the names of the folders begin with that contents are unpacked into before they are moved."""
_SPARE = 100 << 20
"""Bytes that are left free on the disk."""


def unpack(archive: Path, folder: Path, *, only: str = "*") -> None:
    """Unpack a zip or tar archive into ``folder``; what is there already is replaced file by file.

    Only one process may unpack into a folder at a time: what a killed one left behind is deleted. Members that would
    land outside are refused or renamed by Python's own rules (``tarfile``'s ``data`` filter). Raises
    :class:`DataError` for a damaged archive and a full disk.
    """
    for left in folder.glob(f"{_BESIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=_BESIDE, dir=folder) as beside:
        try:
            if archive.name.endswith(".zip"):
                with zipfile.ZipFile(archive) as packed:
                    members = [item for item in packed.infolist() if fnmatch(item.filename, only)]
                    check_room(folder, sum(item.file_size for item in members), f"unpacking {archive.name}")
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


def check_room(folder: Path, needed: int, what: str) -> None:
    """Raise :class:`DataError` where ``needed`` bytes, and some to spare, are not free in ``folder``."""
    free = shutil.disk_usage(folder).free
    if needed + _SPARE > free:
        raise DataError(
            f"{what} needs {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free",
            fix="make room, or choose another --data folder",
        )


def _move_into(source: Path, folder: Path) -> None:
    for item in sorted(source.iterdir()):
        target = folder / item.name
        if item.is_dir() and target.is_dir():
            _move_into(item, target)
        else:
            item.replace(target)
