"""Pixels and outlines of the sample scenes.

Shapes are drawn from integer masks of our own, without antialiasing, and not with a library's ellipse: pixels are then
the same with every version of Pillow, and a shape's area is a count.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

from vrft_bench.tasks.data.sample_scenes import CELL, SIDE, Scene, Thing

if TYPE_CHECKING:
    from PIL import Image


def draw(scene: Scene) -> Image.Image:
    """The scene as an RGB image of 84x84 pixels."""
    from PIL import Image

    size = (SIDE, SIDE)
    near, far = (Image.new("RGB", size, colour) for colour in scene.background)
    image = Image.composite(far, near, _ramp(*scene.direction))
    for thing in scene.things:
        x1, y1, x2, y2 = thing.box
        mask = Image.frombytes("L", (x2 - x1, y2 - y1), _mask(thing.shape, x2 - x1, y2 - y1))
        image.paste(thing.tint, (x1, y1, x2, y2), mask)
    return image


def area(thing: Thing) -> int:
    """The number of pixels that the shape covers."""
    return _mask(thing.shape, thing.columns * CELL, thing.rows * CELL).count(255)


def outline(thing: Thing) -> list[tuple[float, float]]:
    """The shape's polygon in image pixels, whose bounding box is exactly the thing's box."""
    x1, y1, x2, y2 = thing.box
    return [(round(x1 + x * (x2 - x1), 2), round(y1 + y * (y2 - y1), 2)) for x, y in _UNIT_OUTLINES[thing.shape]]


_THIRD = 9 / 28
_UNIT_OUTLINES: dict[str, tuple[tuple[float, float], ...]] = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "circle": tuple(
        (0.5 + math.cos(step * math.tau / 32) / 2, 0.5 + math.sin(step * math.tau / 32) / 2) for step in range(32)
    ),
    "cross": (
        (_THIRD, 0), (1 - _THIRD, 0), (1 - _THIRD, _THIRD), (1, _THIRD), (1, 1 - _THIRD), (1 - _THIRD, 1 - _THIRD),
        (1 - _THIRD, 1), (_THIRD, 1), (_THIRD, 1 - _THIRD), (0, 1 - _THIRD), (0, _THIRD), (_THIRD, _THIRD),
    ),
}  # fmt: skip
"""Outlines in a box of side 1. A cross has arms of 10 pixels in 28."""


@cache
def _mask(shape: str, width: int, height: int) -> bytes:
    """The shape filling a box of this size, row by row: 255 inside, 0 outside. It touches all four sides."""
    return bytes(255 if _inside(shape, x, y, width, height) else 0 for y in range(height) for x in range(width))


def _inside(shape: str, x: int, y: int, width: int, height: int) -> bool:
    across, down = 2 * x + 1 - width, 2 * y + 1 - height
    match shape:
        case "square":
            return True
        case "circle":
            return (across * height) ** 2 + (down * width) ** 2 <= (width * height) ** 2
        case "triangle":
            return (abs(across) - 1) * (height - 1) <= (width - 2) * y
        case _:
            arm_x, arm_y = width * 9 // 28, height * 9 // 28
            return arm_x <= x < width - arm_x or arm_y <= y < height - arm_y


@cache
def _ramp(right: int, down: int) -> Image.Image:
    """A grey image that rises evenly from 0 to 255 along the direction (``right``, ``down``), ``down`` > 0."""
    from PIL import Image

    last = SIDE - 1
    lowest = min(0, right * last)
    span = max(0, right * last) + down * last - lowest
    values = bytes((right * x + down * y - lowest) * 255 // span for y in range(SIDE) for x in range(SIDE))
    return Image.frombytes("L", (SIDE, SIDE), values)
