"""A list of labels without images as a classification :class:`Dataset`: what an audit needs, and no model can be asked.

By the file's name it is ``.csv`` with a column ``label`` (and ``image``, if there is one), ``.json`` with a list of
labels, or text with a label on each line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import ClassTarget, Dataset, ImageRef, Sample
from vrft_bench.tasks.data.annotations import read_json
from vrft_bench.tasks.data.class_lists import read_text
from vrft_bench.tasks.data.image_files import UNREADABLE_SIZE, check_text

_FIX = "give a .csv with a column `label`, a .json with a list of labels, or UTF-8 text with a label on each line"


def load_label_list(path: Path) -> Dataset:
    """A sample per label, in the order of the list; the classes are the labels that occur.

    A sample is called after its image, where the list names one, else after its number. Raises :class:`DataError` for a
    file that is missing, empty, or no such list.
    """
    if path.is_dir():
        raise DataError(f"{path} is a folder, not a list of labels", fix=_FIX)
    read = {".csv": _from_csv, ".json": _from_json}.get(path.suffix.lower(), _from_lines)
    rows = [(name, label.strip()) for name, label in read(path)]
    if not rows:
        raise DataError(f"{path} has no label in it", fix=_FIX)
    for name, label in rows:
        if not label or "\0" in label:
            raise DataError(f"{path}: {name} has no label that is text", fix=_FIX)
        check_text(label, f"{path}: {name} has the label")
    classes = tuple(sorted({label for _, label in rows}))
    fields = {"options": ", ".join(classes)}
    image = ImageRef(*UNREADABLE_SIZE)

    def samples() -> Iterator[Sample]:
        for name, label in rows:
            yield Sample(name, image, fields, ClassTarget(label))

    return Dataset("labels", classes, samples, notes=(f"labels of {path}, without images",))


def _from_csv(path: Path) -> list[tuple[str, str]]:
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path))))
    except csv.Error as error:
        raise DataError(f"{path} is not CSV: {error}", fix=_FIX) from error
    return [(row.get("image") or f"row {number}", row.get("label") or "") for number, row in enumerate(rows, start=1)]


def _from_json(path: Path) -> list[tuple[str, str]]:
    value = read_json(path)
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise DataError(f"{path} is not a list of labels", fix=_FIX)
    return [(f"label {number}", label) for number, label in enumerate(value, start=1)]


def _from_lines(path: Path) -> list[tuple[str, str]]:
    lines = read_text(path).splitlines()
    return [(f"line {number}", line) for number, line in enumerate(lines, start=1) if line.strip()]
