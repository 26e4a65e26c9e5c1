"""Image files on disk: which file a name in an annotation may mean, and an image's size from its header.

Annotations come from strangers. A name in them may only reach files inside the image folders that the user named.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from vrft_bench.errors import DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
"""What files are opened as, whatever they are called. Others run programs to decode (EPS), or fetch files."""

DECODER_FAILURES = (Exception,)
"""What a decoder may raise about a broken file: Pillow lets through more than it says. Only a lack of memory is not
the file's fault."""

UNREADABLE_SIZE = (1, 1)
"""The size given to an image whose header cannot be read. The run that opens the file records why it cannot be used."""

_LOOKED_AT = 20
_LONGEST_NAME, _LONGEST_PATH = 255, 2000
"""In bytes: what Linux takes for one part of a path, and half of what it takes for a whole one."""


def check_name(name: str, owner: str) -> None:
    """Refuse a file name that could leave its folder: absolute, with a drive, or with a ``..`` part.

    ``owner`` says what carries the name ("image 12"), for the message. Raises :class:`DataError`.
    """
    parts = re.split(r"[/\\]", name)
    if not parts[-1] or not parts[0] or ".." in parts or name[1:2] == ":" or "\0" in name:
        raise DataError(
            f"{owner} has the file name {name!r}, which leaves the image folder",
            fix="annotations may only name files inside the image folder: mend the name, or do not use the file",
        )
    check_text(name, f"{owner} has the file name")
    if len(name.encode()) > _LONGEST_PATH or max(len(part.encode()) for part in parts) > _LONGEST_NAME:
        raise DataError(
            f"{owner} has the file name {name!r:.60}... of {len(name):,} characters, which no file can have",
            fix=f"a name has at most {_LONGEST_NAME} bytes per folder and file: mend it, or remove the entry",
        )


def check_text(text: str, owner: str) -> None:
    """Refuse half a surrogate pair, which is no character: neither a file nor a terminal nor a tokenizer takes it.

    ``owner`` says what the text is ("image 12 has the file name"), for the message. Raises :class:`DataError`.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{owner} {text!r:.80}, which is no text: it holds half a surrogate pair at position {error.start}",
            fix="write it in UTF-8",
        ) from None


def find_image(name: str, folders: Sequence[Path]) -> tuple[Path, Path]:
    """Where ``name`` (checked by :func:`check_name`) is, and which of ``folders`` it is under: the first that has it.

    Where none has it, it belongs into the first.
    """
    if len(folders) > 1:
        for folder in folders:
            if (path := folder / name).exists():
                return path, folder
    return folders[0] / name, folders[0]


def check_links(path: Path, folder: Path) -> None:
    """Raise :class:`DataError` for a link inside ``folder`` that points out of it; ``folder`` itself may be one."""
    top, step = os.fspath(folder), os.fspath(path)
    while len(step) > len(top):
        if os.path.islink(step):  # noqa: PTH114 - three times as fast as Path.is_symlink, and asked of every image
            if not path.resolve().is_relative_to(folder.resolve()):
                raise DataError(
                    f"{path} is a link to {path.resolve()}, which is outside the image folder {folder}",
                    fix="put the image itself into the folder, or make the folder the link",
                )
            return
        step = os.path.dirname(step)  # noqa: PTH120


def check_some_exist(paths: Iterable[Path], folders: Sequence[Path]) -> None:
    """Raise :class:`DataError` if no folder is there, or if none of the first few of ``paths`` is.

    Single missing images are no error here: a run records them as failed samples.
    """
    looked_in = ", ".join(str(folder) for folder in folders)
    if not any(folder.is_dir() for folder in folders):
        raise DataError(f"the image folder is not there: {looked_in}", fix="name the folder that holds the images")
    first = None
    for _, path in zip(range(_LOOKED_AT), paths, strict=False):
        if path.exists():
            return
        first = first or path
    if first is not None:
        raise DataError(
            f"none of the first {_LOOKED_AT} images is there (the first is {first.name}); looked in {looked_in}",
            fix="name the folder that holds the images of these annotations",
        )


def image_size(image: Path | bytes) -> tuple[int, int]:
    """(width, height) in pixels from the header of a file or of its content, or :data:`UNREADABLE_SIZE`."""
    return header_size(image) or UNREADABLE_SIZE


def header_size(image: Path | bytes) -> tuple[int, int] | None:
    """As :func:`image_size`; ``None`` where no image can be made out."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS) as opened:
            return opened.size
    except MemoryError:
        raise
    except DECODER_FAILURES:
        return None
