"""ReasonSeg folders as a grounding :class:`Dataset`: an image and a JSON file of the same name beside it.

::

    {"text": ["what keeps the rain off?", ...], "is_sentence": true,
     "shapes": [{"label": "umbrella", "points": [[10, 20], [30, 20], [30, 40]]},
                {"label": "ignore", "points": [...]}]}

All other polygons together are the one target. A label that holds ``ignore`` marks a region that counts neither way;
shapes labelled ``flag`` are leftovers of the annotators and are dropped. Case does not matter. These are the rules of
LISA's own reader (arXiv 2308.00692, ``utils/data_processing.py``). Visual-RFT's code takes the first shape for the
whole truth, whatever its label.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import Dataset, ImageRef, MaskTarget, Sample
from vrft_bench.tasks.boxes import clip
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.data.annotations import is_number
from vrft_bench.tasks.data.image_files import UNREADABLE_SIZE, check_some_exist, check_text, image_size

_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")
_FIX = "give a ReasonSeg annotation: an object with 'text' (instructions) and 'shapes' (label and points)"


@dataclass(frozen=True, slots=True)
class _Shape:
    """``points`` is flat: x, y, x, y, ..."""

    label: str
    points: tuple[float, ...]

    @property
    def polygons(self) -> tuple[tuple[float, ...], ...]:
        """Its polygon; none of fewer than three points."""
        return (self.points,) if len(self.points) >= 6 else ()

    @property
    def ignored(self) -> bool:
        return "ignore" in self.label.lower()

    @property
    def dropped(self) -> bool:
        return self.label.lower() == "flag"


@dataclass(frozen=True, slots=True)
class _Annotation:
    stem: str
    image: Path
    instructions: tuple[str, ...]
    shapes: tuple[_Shape, ...]


def load_reasonseg(folder: Path, split: str, *, is_sample: bool = False, first_shape_only: bool = False) -> Dataset:
    """The questions of one split's ``folder``, by file name.

    For ``train`` every instruction of an image is a sample of its own (``{name}:{index}``); for other splits only the
    first is asked (``{name}``), as in the published evaluation. An image without a target region is left out and
    noted. Image sizes are read from the headers while iterating.

    With ``first_shape_only`` the first shape of an image is all of its truth, whatever its label and however few its
    points, and nothing is ignored. Its box may leave the image. Only an image without shapes is left out, and it is
    noted where the first shape is no target.

    Raises :class:`DataError` for a folder that is missing or has no annotations, for a file that is not ReasonSeg's
    format, and where no image is beside its annotation.
    """
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}", fix=f"name the folder that holds the {split} images and JSON files"
        )
    files = sorted(path for path in folder.glob("*.json") if not path.name.startswith("."))  # macOS adds "._a.json"
    if not files:
        raise DataError(
            f"{folder} has no *.json annotations", fix="name a folder of images with a JSON file beside each"
        )
    truth_of, truth_is = (_first_shape, "a shape") if first_shape_only else (_region, "a target region")
    asked: list[tuple[_Annotation, MaskTarget]] = []
    untargeted = []
    for annotation in map(_read, files):
        truth = truth_of(annotation.shapes)
        if truth is None:
            untargeted.append(annotation.stem)
        else:
            asked.append((annotation, truth))
    if not asked:
        raise DataError(f"no annotation in {folder} has {truth_is}", fix=_FIX)
    check_some_exist((annotation.image for annotation, _ in asked), [folder])

    def samples() -> Iterator[Sample]:
        for annotation, truth in asked:
            image = ImageRef(*image_size(annotation.image), annotation.image)
            target = truth if first_shape_only else _within(truth, image)
            if split != "train":
                yield Sample(annotation.stem, image, {"instruction": annotation.instructions[0]}, target)
                continue
            for index, text in enumerate(annotation.instructions):
                yield Sample(f"{annotation.stem}:{index}", image, {"instruction": text}, target)

    notes = []
    if untargeted:
        notes.append(f"without {truth_is}, and left out: {', '.join(untargeted)}")
    first_shapes = [(annotation.stem, annotation.shapes[0]) for annotation, _ in asked] if first_shape_only else []
    if odd := [stem for stem, shape in first_shapes if shape.ignored or shape.dropped]:
        some = ", ".join(odd[:5]) + (", ..." if len(odd) > 5 else "")
        notes.append(f"of {len(odd)} images an 'ignore' or 'flag' shape is the truth, since it comes first: {some}")
    return Dataset(split, (), samples, is_sample=is_sample, notes=tuple(notes), counts={"images": len(files)})


def _within(target: MaskTarget, image: ImageRef) -> MaskTarget:
    """``target`` with its box cut off at the edges of the image, beyond which no answer and no mask can reach."""
    size = image.width, image.height
    return target if size == UNREADABLE_SIZE else replace(target, box=clip(target.box, *size))


def _region(shapes: Sequence[_Shape]) -> MaskTarget | None:
    """All target polygons as one region, the ignored ones apart; ``None`` where there is no target."""
    targets = [polygon for shape in shapes if not shape.dropped and not shape.ignored for polygon in shape.polygons]
    ignored = [polygon for shape in shapes if shape.ignored for polygon in shape.polygons]
    if not targets:
        return None
    return MaskTarget(_box_around(number for polygon in targets for number in polygon), tuple(targets), tuple(ignored))


def _first_shape(shapes: Sequence[_Shape]) -> MaskTarget | None:
    """The first shape alone; ``None`` where there is none, or it has no point."""
    if not shapes or not shapes[0].points:
        return None
    return MaskTarget(_box_around(shapes[0].points), shapes[0].polygons)


def _box_around(points: Iterable[float]) -> Box:
    numbers = list(points)
    xs, ys = numbers[0::2], numbers[1::2]
    return min(xs), min(ys), max(xs), max(ys)


def _read(path: Path) -> _Annotation:
    check_text(path.name, f"{path.parent} has the file")
    value = _json(path)
    if not isinstance(value, dict) or not isinstance(value.get("shapes"), list):
        raise DataError(f"{path} is not a ReasonSeg annotation: it has no list 'shapes'", fix=_FIX)
    text = value.get("text")
    instructions = (text,) if isinstance(text, str) else tuple(text) if isinstance(text, list) else ()
    if not instructions or not all(isinstance(item, str) and item.strip() for item in instructions):
        raise DataError(f"{path} is not a ReasonSeg annotation: its 'text' is {text!r:.80}", fix=_FIX)
    for instruction in instructions:
        check_text(instruction, f"{path} has the instruction")
    shapes = tuple(_shape(shape, path) for shape in value["shapes"])
    candidates = [path.with_suffix(suffix) for suffix in _SUFFIXES]
    image = next((candidate for candidate in candidates if candidate.exists()), candidates[0])
    return _Annotation(path.stem, image, instructions, shapes)


def _json(path: Path) -> Any:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", fix="give a JSON file that can be read") from error
    try:
        try:
            return json.loads(raw.decode("utf-8-sig"))
        except UnicodeDecodeError:
            # Some published files hold cp1252 quotation marks.
            return json.loads(raw.decode("cp1252"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", fix=_FIX) from error


def _shape(shape: object, path: Path) -> _Shape:
    label, points = (shape.get("label"), shape.get("points")) if isinstance(shape, dict) else (None, None)
    if not isinstance(label, str) or not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise DataError(
            f"{path}: the shape {shape!r:.80} lacks a 'label' or has 'points' that are not [x, y]", fix=_FIX
        )
    return _Shape(label, tuple(float(number) for point in points for number in point))


def _is_point(point: object) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(is_number(number) for number in point)
