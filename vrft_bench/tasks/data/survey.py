"""What a data set holds, in numbers and one hash: what a manifest is compared with, and part of what identifies a run.

The hash covers each sample's id, fields and truth, and its image's name and declared size. It depends on no prompt, no
profile and no protocol, so it stays the same for as long as the data do. The images' content is not read: their number,
and how many bytes their files have, are among the numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vrft_bench.tasks.base import Dataset, ImageRef, target_to_json

canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode
"""The one JSON text of a value, whatever the order of its keys."""

IMAGES, ANNOTATIONS, CATEGORIES, QUESTIONS = "images", "annotations", "categories", "questions"
MISSING, IMAGE_BYTES = "missing image files", "bytes of image files"


@dataclass(frozen=True)
class DataFacts:
    """The numbers of one split by name, and the hash of its content.

    ``first_missing`` is an image file that is not there, if any.
    """

    counts: Mapping[str, int]
    sha256: str
    first_missing: str | None = None


class FileSizes:
    """File size in bytes, ``None`` for a missing file. An image is asked up to 80 times in a row: the last is kept."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._size: int | None = None

    def __call__(self, image: ImageRef) -> int | None:
        if image.path is None:
            return len(image.data) if image.data is not None else None
        if image.path != self._path:
            self._path = image.path
            try:
                self._size = image.path.stat().st_size
            except OSError:
                self._size = None
        return self._size


def survey(dataset: Dataset) -> DataFacts:
    """Walk ``dataset`` once and count what it holds, keeping none of it.

    Questions about one image follow each other, as every reader gives them.
    """
    digest = hashlib.sha256()
    file_size = FileSizes()
    questions = images = missing = image_bytes = 0
    first_missing = None
    last: ImageRef | None = None
    for sample in dataset.samples():
        image = sample.image
        name = image.path.name if image.path else None
        content = [sample.id, dict(sample.fields), target_to_json(sample.target), [name, image.width, image.height]]
        digest.update(canonical(content).encode())
        questions += 1
        if last is not None and image.path is not None and image.path == last.path:
            continue
        last = image
        images += 1
        size = file_size(image)
        image_bytes += size or 0
        if size is None:
            missing += 1
            first_missing = first_missing or name
    counts = {IMAGES: images, QUESTIONS: questions, MISSING: missing, IMAGE_BYTES: image_bytes}
    if dataset.categories:
        counts[CATEGORIES] = len(dataset.categories)
    return DataFacts({**counts, **dataset.counts}, digest.hexdigest(), first_missing)
