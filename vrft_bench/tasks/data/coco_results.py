"""A COCO-format results file and the truth that it is held against, as columns of numbers.

A results file is a JSON list with an entry per detection, in any order:

    [{"image_id": 397133, "category_id": 18, "bbox": [x, y, width, height], "score": 0.87}, ...]

Boxes stay as the files have them, (x, y, width, height) in pixels: the official evaluations compute with these numbers,
and the corners that the rest of the project uses would differ from them in the last bit. Images are numbered by
ascending id and categories in the order asked for; a *pair* is ``category * images + image``.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.data.annotations import Category, Document, ImageId, is_number, json_kind, read_json

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_FIX = 'give a JSON list of {"image_id": ..., "category_id": ..., "bbox": [x, y, width, height], "score": ...}'
_KEYS = ("image_id", "category_id", "bbox", "score")
_LARGEST = 1e15
"""Of a box's numbers, as :func:`~vrft_bench.tasks.data.annotations.is_number` has it."""
_NAMED = 3
"""How many entries a refusal names."""


@dataclass(frozen=True, slots=True)
class TruthColumns:
    """The annotated objects of the chosen categories, in file order.

    ``box`` is (objects, 4); ``area`` is the annotated one, in square pixels. ``absent`` are the pairs that LVIS
    verified to hold nothing (``None``: every pair is judged), ``incomplete`` those not exhaustively annotated.
    """

    images: int
    categories: int
    pair: Integers
    box: Floats
    area: Floats
    crowd: NDArray[np.bool_]
    absent: Integers | None
    incomplete: Integers


@dataclass(frozen=True, slots=True)
class ResultColumns:
    """The detections of a results file, in file order; ``category`` is -1 for one that was not chosen."""

    image: Integers
    category: Integers
    box: Floats
    score: Floats


def image_numbers(document: Document) -> dict[ImageId, int]:
    """Image id -> number. Raises :class:`DataError` for any entry of the file that is not what the format promises."""
    return {image.id: number for number, image in enumerate(document.images(()))}


def image_sizes(document: Document, numbers: Mapping[ImageId, int]) -> Floats:
    """(images, 2): width and height in pixels of every image, by its number (see :func:`image_numbers`)."""
    sizes = np.empty((len(numbers), 2))
    for row in document.raw["images"]:
        sizes[numbers[row["id"]]] = row["width"], row["height"]
    return sizes


def truth_columns(
    document: Document,
    numbers: Mapping[ImageId, int],
    chosen: Sequence[Category],
    rules: Literal["coco", "lvis"],
) -> TruthColumns:
    """The truth of the ``chosen`` categories, to be judged by ``rules``; ``numbers`` are :func:`image_numbers`.

    LVIS's rules know no crowd regions; COCO's take every pair to be annotated in full.

    Raises :class:`UserError` where LVIS's rules are asked for and the file does not say which categories were verified
    in an image.
    """
    if rules == "lvis" and document.rules != "lvis":
        raise UserError(
            f"{document.path} cannot be judged by LVIS's rules: its images do not say what is absent from them",
            fix="use --rules coco, or annotations whose images carry neg_category_ids",
        )
    own = {category.id: number for number, category in enumerate(chosen)}
    rows = [row for row in document.raw["annotations"] if row["category_id"] in own]
    images = len(numbers)

    def pairs(key: str) -> Integers:
        found = (
            own[category] * images + numbers[row["id"]]
            for row in document.raw["images"]
            for category in row.get(key) or ()
            if category in own
        )
        return np.unique(np.fromiter(found, np.int64))

    box = np.array([row["bbox"] for row in rows], dtype=np.float64).reshape(-1, 4)
    is_lvis = rules == "lvis"
    return TruthColumns(
        images=images,
        categories=len(chosen),
        pair=np.array([own[row["category_id"]] * images + numbers[row["image_id"]] for row in rows], dtype=np.int64),
        box=box,
        area=np.array([row.get("area", size) for row, size in zip(rows, box[:, 2] * box[:, 3], strict=True)], float),
        crowd=np.array([not is_lvis and bool(row.get("iscrowd", 0)) for row in rows], dtype=np.bool_),
        absent=pairs("neg_category_ids") if is_lvis else None,
        incomplete=pairs("not_exhaustive_category_ids") if is_lvis else np.empty(0, np.int64),
    )


class _Read:
    """Stands for an entry whose numbers are in the columns."""

    def __repr__(self) -> str:
        return "{...}"


_READ = _Read()


class _Reader:
    """Moves entries into columns while the file is parsed, so that a million of them need a tenth of the memory."""

    def __init__(self, images: Mapping[ImageId, int], categories: Mapping[int, int]) -> None:
        self._images, self._categories = images, categories
        self.image, self.category = array("q"), array("q")
        self.box, self.score = array("d"), array("d")

    def __call__(self, entry: dict[str, Any]) -> object:
        """The hook of the JSON parser, for every object: :data:`_READ`, or what is no detection as it is."""
        try:
            image, category, box, score = entry["image_id"], entry["category_id"], entry["bbox"], entry["score"]
            image_number, category_number = self._images[image], self._categories[category]
            if (
                type(score) not in (int, float)
                or len(box) != 4
                or bool in (type(image), type(category), *map(type, box))
            ):
                return entry
            score = float(score)
            self.box.fromlist(box)  # the last step that can fail, and it adds all four or none
        except (KeyError, TypeError, OverflowError):
            return entry
        self.score.append(score)
        self.image.append(image_number)
        self.category.append(category_number)
        return _READ


def read_results(
    path: Path, images: Mapping[ImageId, int], known: Sequence[Category], chosen: Sequence[Category]
) -> ResultColumns:
    """Read a results file about ``images`` (see :func:`image_numbers`) and the ``known`` categories.

    Raises :class:`DataError` when the file cannot be read, for the first entry that lacks a key or names an image or a
    category that the annotations do not list, and for entries whose numbers are not finite.
    """
    categories = {category.id: -1 for category in known}
    categories |= {category.id: number for number, category in enumerate(chosen)}
    reader = _Reader(images, categories)
    entries = read_json(path, object_hook=reader)
    if not isinstance(entries, list):
        kind = "an object" if entries is _READ else json_kind(entries)
        raise DataError(f"{path} is not a results file: it holds {kind}, not a list", fix=_FIX)
    read = next((number for number, entry in enumerate(entries) if entry is not _READ), len(entries))
    box = np.array(reader.box).reshape(-1, 4)
    score = np.array(reader.score)
    # Not below, rather than not less than: NaN compares as neither.
    usable = (np.abs(box[:read]) < _LARGEST).all(axis=1) & np.isfinite(score[:read])
    if not usable.all():
        raise _not_finite(path, np.flatnonzero(~usable), box, score)
    if read < len(entries):
        raise _refused(path, read + 1, _flaw(entries[read], images, categories))
    if len(entries) != len(reader.image):
        raise DataError(f"{path} is not a results file: it holds detections inside of detections", fix=_FIX)
    return ResultColumns(np.array(reader.image), np.array(reader.category), box, score)


def _refused(path: Path, number: int, flaw: tuple[str, str]) -> DataError:
    return DataError(f"{path}: entry {number:,} {flaw[0]}", fix=flaw[1])


def _not_finite(path: Path, rows: Integers, box: Floats, score: Floats) -> DataError:
    """The refusal of the entries ``rows``, whose numbers no evaluation can take; the first few are named."""
    named = []
    for row in rows[:_NAMED].tolist():
        flaws = [] if np.isfinite(score[row]) else [f"the score {float(score[row])}"]
        if not (np.abs(box[row]) < _LARGEST).all():
            flaws.append(f"the bbox {box[row].tolist()}")
        named.append(f"entry {row + 1:,} has {' and '.join(flaws)}")
    more = f", and so on ({len(rows):,} entries)" if len(rows) > _NAMED else ""
    fixes = []
    if not np.isfinite(score[rows]).all():
        fixes.append("without a finite score a detection has no rank: give it one, or leave the entry out")
    if not (np.abs(box[rows]) < _LARGEST).all():
        fixes.append("a bbox is 4 finite numbers, of pixels below 1e15: mend it, or leave the entry out")
    return DataError(f"{path}: {'; '.join(named)}{more}", fix="; ".join(fixes))


def _flaw(entry: object, images: Mapping[ImageId, int], categories: Mapping[int, int]) -> tuple[str, str]:
    """What is wrong with an entry that was not read, and how to mend it."""
    if not isinstance(entry, dict):
        return f"is {'a list' if isinstance(entry, list) else f'{entry!r:.60}'}, not an object", _FIX
    if missing := [key for key in _KEYS if key not in entry]:
        return f"lacks {', '.join(map(repr, missing))}", _FIX
    for key, known in (("image_id", images), ("category_id", categories)):
        value = entry[key]
        if isinstance(value, bool) or not isinstance(value, (int, str)) or value not in known:
            return f"has the {key} {value!r:.60}, which the annotations do not list{_other_type(value, known)}", (
                "score it against the annotations that it was made for"
            )
    if not is_number(entry["score"]):
        return f"has the score {entry['score']!r:.60}", "a score is a finite number"
    return f"has the bbox {entry['bbox']!r:.80}", "a bbox is 4 finite numbers: [x, y, width, height]"


def _other_type(value: object, known: Mapping[Any, int]) -> str:
    """A remark where an id is listed, but as a number instead of a text or the other way round."""
    for other in known:
        if str(other) == str(value) and type(other) is not type(value):
            return f" (they list it as a {type(other).__name__}: {other!r})"
    return ""


def pixels_outside(results: ResultColumns, sizes: Floats) -> Floats:
    """By how many pixels each box leaves its image (see :func:`image_sizes`); 0 or less for one inside."""
    corner = results.box[:, :2]
    beyond = corner + results.box[:, 2:] - sizes[results.image]
    farthest: Floats = np.maximum(beyond, -corner).max(axis=1, initial=-np.inf)
    return farthest
