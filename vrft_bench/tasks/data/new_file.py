"""Files that appear whole and never replace another: manifests and pins that results rest on."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path


def write_new(path: Path, text: str) -> None:
    """Write ``text`` to ``path`` at once, in a folder that is made where it is missing.

    Raises :class:`FileExistsError` where the file is there, also where another process was first; another
    :class:`OSError` where it cannot be written.
    """
    if path.exists():
        raise FileExistsError(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file in place of the folder
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path.parent)) from error
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", encoding="utf-8", delete=False) as beside:
        beside.write(text)
    try:
        Path(beside.name).chmod(0o644)
        os.link(beside.name, path)  # fails where another process was first, which a rename would overwrite
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links (exFAT, network shares): whole or not at all is lost, not "new"
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    finally:
        Path(beside.name).unlink()
