"""The truth of a sample, in original-image pixels, and its JSON form."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from math import isfinite
from typing import Any, ClassVar

from vrft_bench.errors import UserError
from vrft_bench.tasks.coordinates import Box


@dataclass(frozen=True, slots=True)
class ClassTarget:
    """The true class of an image, and other spellings of it that count as right."""

    label: str
    aliases: tuple[str, ...] = ()
    kind: ClassVar[str] = "class"


@dataclass(frozen=True, slots=True)
class BoxTarget:
    """All true boxes of one category in one image, in annotation order; empty where the category is absent.

    ``areas`` are the objects' areas in square pixels as annotated (COCO's size classes use the mask's area, not the
    box's); empty means: take the boxes' own. ``crowd`` holds regions that swallow predictions without reward or cost
    (COCO ``iscrowd``), with their own ``crowd_areas``. ``exhaustive`` is false where LVIS marks the category as not
    exhaustively annotated in this image: a prediction that matches nothing is then not an error. ``verified`` is false
    where LVIS never checked this category in this image: the question then counts for nothing and earns nothing.
    """

    boxes: tuple[Box, ...]
    areas: tuple[float, ...] = ()
    crowd: tuple[Box, ...] = ()
    crowd_areas: tuple[float, ...] = ()
    exhaustive: bool = True
    verified: bool = True
    findable: tuple[Box, ...] = field(init=False, repr=False, compare=False)
    """The boxes that have an area. COCO holds a few without, which no prediction can ever overlap: they count as missed
    in AP, as COCO has it, and for nothing in rewards."""
    kind: ClassVar[str] = "box"

    def __post_init__(self) -> None:
        """Derives ``findable`` once, since every completion of a group asks for it."""
        findable = tuple([box for box in self.boxes if box[2] > box[0] and box[3] > box[1]])
        object.__setattr__(self, "findable", findable)


@dataclass(frozen=True, slots=True)
class MaskTarget:
    """One region of an image: its bounding box, its polygons as flat (x, y, x, y, ...) tuples, regions to ignore."""

    box: Box
    polygons: tuple[tuple[float, ...], ...]
    ignore: tuple[tuple[float, ...], ...] = ()
    kind: ClassVar[str] = "mask"


Target = ClassTarget | BoxTarget | MaskTarget


def target_to_json(target: Target) -> dict[str, Any]:
    """A JSON-ready dict with a ``kind`` key; fields at their default are left out."""
    value: dict[str, Any] = {"kind": target.kind}
    for item in fields(target):
        if item.init and (given := getattr(target, item.name)) not in ((), True):
            value[item.name] = given
    return value


def target_from_json(value: Mapping[str, Any]) -> Target:
    """The inverse of :func:`target_to_json`.

    Raises :class:`UserError` for an unknown kind; ``LookupError``, ``TypeError`` or ``ValueError`` for what no target
    holds, such as a label that is no text or a box with NaN.
    """
    rest = {key: item for key, item in value.items() if key != "kind"}
    match value.get("kind"):
        case "class":
            return ClassTarget(_text(rest["label"]), tuple(map(_text, rest.get("aliases", ()))))
        case "box":
            return BoxTarget(
                boxes=tuple(_box(box) for box in rest.get("boxes", ())),
                areas=tuple(float(area) for area in rest.get("areas", ())),
                crowd=tuple(_box(box) for box in rest.get("crowd", ())),
                crowd_areas=tuple(float(area) for area in rest.get("crowd_areas", ())),
                exhaustive=_flag(rest.get("exhaustive", True)),
                verified=_flag(rest.get("verified", True)),
            )
        case "mask":
            return MaskTarget(
                _box(rest["box"]),
                tuple(tuple(map(float, polygon)) for polygon in rest.get("polygons", ())),
                tuple(tuple(map(float, polygon)) for polygon in rest.get("ignore", ())),
            )
        case kind:
            raise UserError(f"unknown target kind {kind!r}", fix="valid kinds are class, box and mask")


def _box(values: Iterable[float]) -> Box:
    x1, y1, x2, y2 = map(float, values)
    if not isfinite(x1 + y1 + x2 + y2):
        raise ValueError("a box with numbers that are not finite")
    return x1, y1, x2, y2


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a label that is no text: {value!r:.60}")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"neither true nor false: {value!r:.60}")
    return value
