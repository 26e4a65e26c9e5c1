"""The doctor's questions: drawn images of several sizes with coloured squares whose places are known.

The drawing is that of the sample data, enlarged without smoothing, so every edge lies exactly where the truth says. The
objects are squares in every image, also in tall and wide ones. Sizes are chosen so that every two coordinate
conventions put a box in clearly different places in some of them: none has a side near 1000 pixels, the smallest is
enlarged by some processors, and the two largest are shrunk by every one that limits the area.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from random import Random

from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ImageRef, MaskTarget, Sample, Task
from vrft_bench.tasks.coordinates import Box, ModelProfile
from vrft_bench.tasks.data.drawing import draw
from vrft_bench.tasks.data.sample_scenes import COLOURS, GRID, SIDE, Scene, Thing

SIZES = ((84, 84), (336, 336), (252, 504), (504, 252), (2016, 2016), (1176, 2352))
"""(width, height) in pixels: multiples of the drawing's side, with aspect ratios 1:1, 1:2 and 2:1."""

LARGEST_AREA = 200_704
"""Pixels that an image may keep in these questions: fewer than most profiles allow, so that the largest are shrunk."""

_SPANS = {1.0: ((1, 1), (2, 2)), 0.5: ((2, 1),), 2.0: ((1, 2),)}
"""Aspect ratio -> how many (columns, rows) of cells a square covers."""


@dataclass(frozen=True, slots=True)
class Question:
    """A task's question about the square in ``box`` (original pixels) of image ``image`` (size, number)."""

    task: Task
    sample: Sample
    image: tuple[tuple[int, int], int]
    box: Box


def questions(per_size: int) -> Iterator[Question]:
    """Two questions per image, one of detection and one of grounding, ``per_size`` images of each size."""
    detection, grounding = get_task("detection"), get_task("grounding")
    for size in SIZES:
        for number in range(per_size):
            scene = _scene(size, number)
            name = scene.things[0].category
            box = _enlarged(scene.things[0], size)
            image = ImageRef(*size, data=_png(scene, size))
            label = f"{size[0]}x{size[1]}/{number}"
            detected = Sample(f"{label}/detection", image, {"category": name, "image_id": label}, BoxTarget((box,)))
            grounded = Sample(f"{label}/grounding", image, {"instruction": f"the {name}"}, MaskTarget(box, ()))
            yield Question(detection, detected, (size, number), box)
            yield Question(grounding, grounded, (size, number), box)


def with_small_images(profile: ModelProfile) -> ModelProfile:
    """``profile`` with a limit of the area that the largest of :data:`SIZES` exceed."""
    return replace(profile, max_pixels=min(profile.max_pixels, max(LARGEST_AREA, profile.min_pixels * 2)))


def _scene(size: tuple[int, int], number: int) -> Scene:
    """One to three squares of different colours; the first is asked for, and its places take turns."""
    rng = Random(f"doctor/{size}/{number}")
    asked, *others = rng.sample(list(COLOURS), rng.randint(1, 3))
    places = _places(asked, size)
    if size[0] == size[1]:
        places = [place for place in places if place.column != place.row]  # where x and y are not alike
    Random(f"doctor/{size}").shuffle(places)
    things = [places[number % len(places)]]
    for colour in others:
        if free := [place for place in _places(colour, size) if not _overlaps(place, things)]:
            things.append(rng.choice(free))
    grey, other = rng.randint(60, 130), rng.randint(130, 200)
    return Scene(tuple(things), ((grey, grey, grey), (other, other, other)), (rng.randint(-8, 8), rng.randint(1, 8)))


def _places(colour: str, size: tuple[int, int]) -> list[Thing]:
    """Every place where the grid has room for a square of ``colour``."""
    return [
        Thing(f"{colour} square", COLOURS[colour], column, row, columns, rows)
        for columns, rows in _SPANS[size[0] / size[1]]
        for column in range(GRID - columns + 1)
        for row in range(GRID - rows + 1)
    ]


def _overlaps(thing: Thing, others: list[Thing]) -> bool:
    cells = [(thing.column + x, thing.row + y) for x in range(thing.columns) for y in range(thing.rows)]
    return any(other.covers(*cell) for other in others for cell in cells)


def _enlarged(thing: Thing, size: tuple[int, int]) -> Box:
    x1, y1, x2, y2 = (edge * size[index % 2] / SIDE for index, edge in enumerate(thing.box))
    return x1, y1, x2, y2


def _png(scene: Scene, size: tuple[int, int]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    draw(scene).resize(size, Image.Resampling.NEAREST).save(stream, "PNG", compress_level=1)
    return stream.getvalue()
