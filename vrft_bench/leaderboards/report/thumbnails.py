"""Small copies of the images that a report shows: each drawn once, however many questions ask about it.

They are WebP files with names of our own making, in the report's folder or inside the page as ``data:`` URLs; nothing
of a source image's path or metadata gets into a report.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from vrft_bench.errors import UserError
from vrft_bench.harness.images import ImageError, load_image
from vrft_bench.harness.progress import Progress
from vrft_bench.tasks.base import ImageRef

EDGE = 448
"""Pixels of a thumbnail's longer side, at most."""
_QUALITY, _EFFORT = 60, 1
"""Of WebP. A photograph of COCO's size takes 19 kB and 12 ms."""
_FOLDERS = re.compile(r"(?<![\w./~-])~?/(?:[^\s/'\"]+/)*(?=[^\s/])")
_OURS = re.compile(r"\d{6}\.webp")


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """Where an image's small copy is: a URL relative to the page, or a ``data:`` URL. Without one, ``why`` says so."""

    url: str
    why: str = ""


def draw_thumbnails(images: Iterable[ImageRef], folder: Path | None, progress: Progress) -> list[Thumbnail]:
    """A thumbnail of each image, in their order, as files in ``folder`` or, without one, as ``data:`` URLs.

    An image that cannot be read gets none, and the reason. Drawing runs on all cores; what waits is bounded.
    """
    refs = list(images)
    if folder is not None:
        _clear(folder)
    progress.begin("drawing thumbnails", len(refs), scored=False)
    thumbnails = []
    try:
        for thumbnail in _drawn(refs, folder):
            thumbnails.append(thumbnail)
            progress.advance(None if thumbnail.why else 0.0)
    finally:
        progress.end()
    return thumbnails


def _drawn(refs: list[ImageRef], folder: Path | None) -> Iterator[Thumbnail]:
    workers = len(os.sched_getaffinity(0))
    waiting: deque[Future[Thumbnail]] = deque()
    with ThreadPoolExecutor(workers) as pool:  # Pillow lets go of the interpreter while it decodes and encodes
        for number, ref in enumerate(refs):
            waiting.append(pool.submit(_draw, ref, number, folder))
            if len(waiting) > 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _draw(ref: ImageRef, number: int, folder: Path | None) -> Thumbnail:
    from PIL.Image import Resampling

    try:
        image = load_image(ref).image
    except ImageError as error:
        return Thumbnail("", without_folders(str(error)))
    if max(image.size) > EDGE:
        image.thumbnail((EDGE, EDGE), Resampling.BILINEAR)
    image.info.clear()
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=_QUALITY, method=_EFFORT)
    if folder is None:
        return Thumbnail(f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}")
    path = folder / f"{number:06d}.webp"
    try:
        path.write_bytes(stream.getvalue())
    except OSError as error:
        raise unwritable(path, error) from error
    return Thumbnail(f"{folder.name}/{path.name}")


def _clear(folder: Path) -> None:
    """Make ``folder``, without the thumbnails of an earlier report."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in folder.iterdir():
            if _OURS.fullmatch(path.name):
                path.unlink()
    except OSError as error:
        raise unwritable(folder, error) from error


def unwritable(path: Path, error: OSError) -> UserError:
    """What a user is told when a part of a report cannot be written."""
    return UserError(f"cannot write {path}: {error.strerror or error}", fix="choose another place with --output")


def without_folders(text: str) -> str:
    """``text`` with no more than the last part of every absolute path: a report tells nothing about a machine."""
    return _FOLDERS.sub("", text)
