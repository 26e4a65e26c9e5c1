"""ReasonSeg folders as a grounding :class:`Dataset`: an image and a JSON file of the same name beside it.

::

    {"text": ["what keeps the rain off?", ...], "is_sentence": true,
     "shapes": [{"label": "umbrella", "points": [[10, 20], [30, 20], [30, 40]]},
                {"label": "ignore", "points": [...]}]}

All other polygons together are the one target, in the order of the file, so that its first polygon is the ``paper``
protocol's truth. A label that holds ``ignore`` marks a region that counts neither way; shapes labelled ``flag`` are
leftovers of the annotators and are dropped. Case does not matter. These are the rules of LISA's own reader (arXiv
2308.00692, ``utils/data_processing.py``).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import Dataset, ImageRef, MaskTarget, Sample
from vrft_bench.tasks.boxes import clip
from vrft_bench.tasks.data.annotations import is_number
from vrft_bench.tasks.data.image_files import UNREADABLE_SIZE, check_some_exist, check_text, image_size

_SUFFIXES = (".jpg", ".png", ".jpeg", ".JPG", ".PNG", ".JPEG")
_FIX = "give a ReasonSeg annotation: an object with 'text' (instructions) and 'shapes' (label and points)"


@dataclass(frozen=True, slots=True)
class _Annotation:
    stem: str
    image: Path
    instructions: tuple[str, ...]
    target: MaskTarget
    begins_with_target: bool


def load_reasonseg(folder: Path, split: str, *, is_sample: bool = False) -> Dataset:
    """The questions of one split's ``folder``, by file name.

    For ``train`` every instruction of an image is a sample of its own (``{name}:{index}``); for other splits only the
    first is asked (``{name}``), as in the published evaluation. An image without a target region is left out and
    noted, and so are images whose first shape is no target: Visual-RFT's code takes that shape for the truth all the
    same. Image sizes are read from the headers while iterating.

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
    annotations, untargeted = [], []
    for path in files:
        annotation = _read(path)
        if annotation is None:
            untargeted.append(path.stem)
        else:
            annotations.append(annotation)
    if not annotations:
        raise DataError(f"no annotation in {folder} has a target polygon", fix=_FIX)
    check_some_exist((annotation.image for annotation in annotations), [folder])

    def samples() -> Iterator[Sample]:
        for annotation in annotations:
            image = ImageRef(*image_size(annotation.image), annotation.image)
            target = _within(annotation.target, image)
            if split != "train":
                yield Sample(annotation.stem, image, {"instruction": annotation.instructions[0]}, target)
                continue
            for index, text in enumerate(annotation.instructions):
                yield Sample(f"{annotation.stem}:{index}", image, {"instruction": text}, target)

    notes = []
    if untargeted:
        notes.append(f"without a target region, and left out: {', '.join(untargeted)}")
    if odd := [annotation.stem for annotation in annotations if not annotation.begins_with_target]:
        some = ", ".join(odd[:5]) + (", ..." if len(odd) > 5 else "")
        notes.append(
            f"{len(odd)} images begin with a shape that is no target, which the paper's code takes for one: {some}"
        )
    return Dataset(split, (), samples, is_sample=is_sample, notes=tuple(notes), counts={"images": len(files)})


def _within(target: MaskTarget, image: ImageRef) -> MaskTarget:
    """``target`` with its box cut off at the edges of the image, beyond which no answer and no mask can reach."""
    size = image.width, image.height
    return target if size == UNREADABLE_SIZE else replace(target, box=clip(target.box, *size))


def _read(path: Path) -> _Annotation | None:
    """The annotation in ``path``; ``None`` where it has no target polygon."""
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
    targets: list[tuple[float, ...]] = []
    ignore: list[tuple[float, ...]] = []
    begins_with_target = False
    for index, shape in enumerate(value["shapes"]):
        label, polygon = _shape(shape, path)
        is_target = label.lower() != "flag" and "ignore" not in label.lower()
        if index == 0:
            begins_with_target = is_target and bool(polygon)
        if label.lower() != "flag" and polygon:
            (targets if is_target else ignore).append(polygon)
    if not targets:
        return None
    xs = [x for polygon in targets for x in polygon[0::2]]
    ys = [y for polygon in targets for y in polygon[1::2]]
    target = MaskTarget((min(xs), min(ys), max(xs), max(ys)), tuple(targets), tuple(ignore))
    candidates = [path.with_suffix(suffix) for suffix in _SUFFIXES]
    image = next((candidate for candidate in candidates if candidate.exists()), candidates[0])
    return _Annotation(path.stem, image, instructions, target, begins_with_target)


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


def _shape(shape: object, path: Path) -> tuple[str, tuple[float, ...]]:
    """A shape's label and its flat polygon; an empty polygon where it has fewer than three points."""
    label, points = (shape.get("label"), shape.get("points")) if isinstance(shape, dict) else (None, None)
    if not isinstance(label, str) or not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise DataError(
            f"{path}: the shape {shape!r:.80} lacks a 'label' or has 'points' that are not [x, y]", fix=_FIX
        )
    if len(points) < 3:
        return label, ()
    return label, tuple(float(number) for point in points for number in point)


def _is_point(point: object) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(is_number(number) for number in point)
