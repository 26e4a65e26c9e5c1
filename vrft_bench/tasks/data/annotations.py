"""COCO and LVIS annotation files: read, checked, and grouped by image.

LVIS v1 is COCO's format with federated fields. Per image it lists the categories that were verified to be absent
(``neg_category_ids``) and those annotated incompletely (``not_exhaustive_category_ids``), per category its
``frequency``. A file whose images carry ``neg_category_ids`` is LVIS.
"""

from __future__ import annotations

import gzip
import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import BoxTarget
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.data.image_files import check_name, check_text

ABSENT = BoxTarget(())
UNVERIFIED = BoxTarget((), verified=False)
ImageId = int | str

ROUNDED_OUT = 1.5
"""Pixels by which a box may leave its image where only its corner and its size were rounded."""

_LARGEST_SIDE = 10_000_000
"""Of an image, in pixels. No image is larger; a number that is larger is a mistake."""
_GZIP = b"\x1f\x8b"
_FORMAT_FIX = "give a COCO- or LVIS-format file: an object with the lists 'images', 'annotations' and 'categories'"


@dataclass(frozen=True, slots=True)
class Category:
    id: int
    name: str
    frequency: str | None


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image. ``truth`` holds its annotated categories by id; ``negative`` those that LVIS verified to be absent.

    For COCO ``negative`` is ``None``: there, whatever is not annotated is absent.

    ``file_name`` is relative to an image folder; in LVIS it may begin with the split's folder (``val2017/``).
    """

    id: ImageId
    file_name: str
    width: int
    height: int
    truth: dict[int, BoxTarget]
    negative: frozenset[int] | None

    def target(self, category: int) -> BoxTarget:
        """The truth of a category, by its id."""
        if (found := self.truth.get(category)) is not None:
            return found
        return ABSENT if self.negative is None or category in self.negative else UNVERIFIED


@dataclass(frozen=True)
class Document:
    """A checked annotation file. ``raw`` is the parsed JSON without segmentations."""

    path: Path
    rules: Literal["coco", "lvis"]
    categories: tuple[Category, ...]
    raw: Mapping[str, list[dict[str, Any]]]

    def images(self, category_ids: Collection[int]) -> list[ImageEntry]:
        """Every image by ascending id, with its truth for the categories of ``category_ids``.

        Raises :class:`DataError` for an entry that is not what the format promises, of whatever category.
        """
        wanted = frozenset(category_ids)
        rows = {_image_id(row, self.path): row for row in self.raw["images"]}
        if len({str(image_id) for image_id in rows}) < len(self.raw["images"]):
            raise DataError(f"{self.path} {_first_twice(self.raw['images'])}", fix="give every image an id of its own")
        truth = self._truth(rows, wanted)
        entries = []
        for image_id in sorted(rows, key=lambda given: (isinstance(given, str), given)):
            row, owner = rows[image_id], f"{self.path}: image {image_id!r}"
            negative = wanted.intersection(_ids(row, "neg_category_ids", owner)) if self.rules == "lvis" else None
            size = _side(row, "width", owner), _side(row, "height", owner)
            entry = ImageEntry(image_id, _file_name(row, owner), *size, truth.get(image_id, {}), negative)
            for category in wanted.intersection(_ids(row, "not_exhaustive_category_ids", owner)):
                entry.truth[category] = replace(entry.target(category), exhaustive=False)
            entries.append(entry)
        return entries

    def _truth(self, images: Mapping[ImageId, object], wanted: frozenset[int]) -> dict[ImageId, dict[int, BoxTarget]]:
        known = {category.id for category in self.categories}
        lists: dict[ImageId, dict[int, _Boxes]] = {}
        for position, row in enumerate(self.raw["annotations"]):
            owner = f"{self.path}: annotation {row.get('id', f'number {position + 1}')!r}"
            image_id, category = row.get("image_id"), row.get("category_id")
            for key, value, valid in (("image_id", image_id, images), ("category_id", category, known)):
                if not isinstance(value, (int, str)) or isinstance(value, bool) or value not in valid:
                    raise DataError(
                        f"{owner} has {key} {value!r:.60}, which the file does not list",
                        fix=f"remove the annotation, or add the missing {key.removesuffix('_id')} entry",
                    )
            assert isinstance(image_id, (int, str))
            box, area = _box(row, owner)
            is_crowd = _is_crowd(row, owner)
            if category in wanted:
                lists.setdefault(image_id, {}).setdefault(category, _Boxes()).add(box, area, is_crowd)
        return {
            image_id: {category: boxes.target() for category, boxes in by_category.items()}
            for image_id, by_category in lists.items()
        }


class _Boxes:
    """The annotations of one (image, category) pair, gathered in file order."""

    __slots__ = ("areas", "boxes", "crowd", "crowd_areas")

    def __init__(self) -> None:
        self.boxes: list[Box] = []
        self.areas: list[float] = []
        self.crowd: list[Box] = []
        self.crowd_areas: list[float] = []

    def add(self, box: Box, area: float, is_crowd: bool) -> None:
        (self.crowd if is_crowd else self.boxes).append(box)
        (self.crowd_areas if is_crowd else self.areas).append(area)

    def target(self) -> BoxTarget:
        return BoxTarget(tuple(self.boxes), tuple(self.areas), tuple(self.crowd), tuple(self.crowd_areas))


def read_document(path: Path) -> Document:
    """Read an annotation file and check its outline; :meth:`Document.images` checks the entries.

    Raises :class:`DataError` when the file is missing, is not JSON, or is not in COCO's or LVIS's format.
    """
    # Segmentations are most of a file and nobody here needs them: they are dropped object by object while parsing.
    raw = read_json(path, object_hook=_without_outline)
    if not isinstance(raw, dict):
        kind = "a list, as results files do" if isinstance(raw, list) else json_kind(raw)
        raise DataError(f"{path} is not a COCO annotation file: it holds {kind}, not an object", fix=_FORMAT_FIX)
    for key in ("images", "annotations", "categories"):
        if key not in raw:
            raise DataError(f"{path} is not a COCO annotation file: the key {key!r} is missing", fix=_FORMAT_FIX)
        value = raw[key]
        if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
            raise DataError(
                f"{path} is not a COCO annotation file: {key!r} is not a list of objects but a {type(value).__name__}",
                fix=_FORMAT_FIX,
            )
    if not raw["images"]:
        raise DataError(f"{path} lists no images", fix="give annotations with at least one image")
    is_lvis = any("neg_category_ids" in row for row in raw["images"])
    return Document(path, "lvis" if is_lvis else "coco", _categories(raw["categories"], path), raw)


def read_json(path: Path, *, object_hook: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """The JSON value in ``path``, every object of it as ``object_hook`` makes it. Raises :class:`DataError`.

    What gzip packed is read too, whatever the file is called.
    """
    try:
        raw = path.read_bytes()
        if raw.startswith(_GZIP):
            raw = gzip.decompress(raw)
        text = raw.decode(json.detect_encoding(raw), "surrogatepass")
        del raw  # LVIS's files are so large that a second copy counts
        return json.loads(text, object_hook=object_hook)
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}", fix="check the path") from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be unpacked: {error}", fix="give a whole gzip file, or unpack it") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", fix="give a JSON file that can be read") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", fix="give a complete JSON file in UTF-8") from error


def json_kind(value: object) -> str:
    """What JSON calls a ``value`` that it was read as: ``a list``, ``null``."""
    if value is None:
        return "null"
    names = ((dict, "an object"), (list, "a list"), (str, "a string"), (bool, "a boolean"))
    return next((name for kind, name in names if isinstance(value, kind)), "a number")


def _without_outline(row: dict[str, Any]) -> dict[str, Any]:
    row.pop("segmentation", None)
    return row


def _categories(rows: list[dict[str, Any]], path: Path) -> tuple[Category, ...]:
    """By ascending id, which is the order of the published files."""
    found: dict[int, Category] = {}
    for row in rows:
        number, name = row.get("id"), row.get("name")
        if not isinstance(number, int) or isinstance(number, bool) or not isinstance(name, str) or not name:
            raise DataError(f"{path}: the category {row!r:.80} lacks an integer 'id' or a 'name'", fix=_FORMAT_FIX)
        check_text(name, f"{path}: category {number} has the name")
        if number in found or any(name == other.name for other in found.values()):
            raise DataError(
                f"{path}: the category {name!r} (id {number}) is listed twice",
                fix="give every category an id and a name of its own",
            )
        frequency = row.get("frequency")
        found[number] = Category(number, name, frequency if frequency in ("r", "c", "f") else None)
    return tuple(found[number] for number in sorted(found))


def _image_id(row: dict[str, Any], path: Path) -> ImageId:
    image_id = row.get("id")
    if not isinstance(image_id, (int, str)) or isinstance(image_id, bool):
        raise DataError(f"{path}: an image has the id {image_id!r}", fix="image ids are integers or strings")
    if isinstance(image_id, str):
        check_text(image_id, f"{path}: an image has the id")
    return image_id


def _first_twice(rows: list[dict[str, Any]]) -> str:
    seen = set()
    for row in rows:
        if str(row["id"]) in seen:
            break
        seen.add(str(row["id"]))
    return f"lists the image id {row['id']!r} twice"


def _side(row: dict[str, Any], key: str, owner: str) -> int:
    value = row.get(key)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= _LARGEST_SIDE:
        raise DataError(
            f"{owner} has the {key} {value!r:.60}",
            fix=f"give its {key} in pixels, an integer from 1 to {_LARGEST_SIDE:,}",
        )
    return value


def _file_name(row: dict[str, Any], owner: str) -> str:
    """``file_name``, or the last two parts of ``coco_url`` where LVIS gives only that: ``val2017/000000397133.jpg``."""
    name = row.get("file_name")
    if name is None and isinstance(url := row.get("coco_url"), str):
        name = "/".join(url.rsplit("/", 2)[-2:])
    if not isinstance(name, str):
        raise DataError(f"{owner} has neither a 'file_name' nor a 'coco_url'", fix="name its file in 'file_name'")
    check_name(name, owner)
    return name


def _ids(row: dict[str, Any], key: str, owner: str) -> list[int]:
    value = row.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
        raise DataError(f"{owner}: {key!r} is not a list of category ids", fix=_FORMAT_FIX)
    return value


def _is_crowd(row: dict[str, Any], owner: str) -> bool:
    """``iscrowd``, which LVIS does not have."""
    value = row.get("iscrowd", 0)
    if not isinstance(value, int) or value not in (0, 1):
        raise DataError(f"{owner} has iscrowd {value!r:.60}", fix="iscrowd is 0 or 1, or left out")
    return bool(value)


def _box(row: dict[str, Any], owner: str) -> tuple[Box, float]:
    """The annotation's box as xyxy and its area. The file's ``bbox`` is (x, y, width, height) in pixels."""
    bbox = row.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(is_number(value) for value in bbox):
        raise DataError(f"{owner} has the bbox {bbox!r:.80}", fix="a bbox is 4 finite numbers: [x, y, width, height]")
    x, y, width, height = (float(value) for value in bbox)
    # A width of exactly 0 occurs in the published COCO files.
    if width < 0 or height < 0:
        raise DataError(f"{owner} has a bbox of negative size: {bbox}", fix="a bbox is [x, y, width, height]")
    area = row.get("area", width * height)
    if not is_number(area) or area < 0:
        raise DataError(f"{owner} has the area {area!r:.60}", fix="an area is a number of square pixels, 0 or more")
    return (x, y, x + width, y + height), float(area)


def is_number(value: object) -> bool:
    """Whether ``value`` is a finite number of pixels that a float holds; ``isfinite`` overflows on some integers."""
    return (
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e15 and math.isfinite(value)
    )
