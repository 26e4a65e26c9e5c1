"""The coordinate contract: truth lives in original pixels, a model speaks its own convention, conversion happens here.

A :class:`ModelProfile` declares what a model family emits; a :class:`Frame` binds it to one image (its original size
and the size that the processor really used) and converts both ways. Nothing here guesses a convention from magnitudes.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from vrft_bench.errors import UserError

Box = tuple[float, float, float, float]
"""A box as (x1, y1, x2, y2) in pixels of the original image, x right and y down, x2 and y2 exclusive edges."""

Convention = Literal["norm_1000", "abs_resized", "norm_1", "abs_original"]
MAX_SIDE = 2**31 - 1
"""More pixels than this no image format has on a side."""
MAX_ASPECT_RATIO = 200
"""Qwen's processors refuse an image whose long side exceeds this multiple of its short side."""


@dataclass(frozen=True, slots=True)
class ModelProfile:
    """What a model family expects and emits.

    ``convention`` is the unit of the numbers that the model writes:

    * ``norm_1000``: thousandths of the image's width and height;
    * ``abs_resized``: pixels of the image after smart-resize, the one that the model saw;
    * ``norm_1``: fractions of the image's width and height;
    * ``abs_original``: pixels of the original image.

    ``decimals`` is how many decimals a coordinate is written with, ``axes`` the order of a box's four numbers,
    ``factor`` the multiple that smart-resize rounds both sides to (``None``: the family does not use smart-resize),
    ``min_pixels`` and ``max_pixels`` the area limits of the resized image. ``model_types`` are the values of
    ``model_type`` in a checkpoint's ``config.json`` that select this profile.
    """

    name: str
    convention: Convention
    decimals: int = 0
    axes: Literal["xyxy", "yxyx"] = "xyxy"
    factor: int | None = None
    min_pixels: int = 3136
    max_pixels: int = 12_845_056
    think_tags: tuple[str, str] = ("<think>", "</think>")
    model_types: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Raises :class:`UserError` for values that no image could be converted with."""
        if self.convention not in get_args(Convention):
            raise UserError(
                f"unknown coordinate convention {self.convention!r}",
                fix=f"use one of: {', '.join(get_args(Convention))}",
            )
        if self.axes not in ("xyxy", "yxyx"):
            raise UserError(f"unknown order of axes {self.axes!r}", fix="use xyxy or yxyx")
        sizes = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
        if self.factor is not None:
            sizes["factor"] = self.factor
        for name, value in sizes.items():
            if type(value) is not int or value < 1:
                raise UserError(f"profile {self.name!r}: {name} is {value!r}", fix="give a positive integer")
        if type(self.decimals) is not int or not 0 <= self.decimals <= 9:
            raise UserError(f"profile {self.name!r}: decimals is {self.decimals!r}", fix="give an integer from 0 to 9")
        if len(self.think_tags) != 2 or not all(isinstance(tag, str) and tag for tag in self.think_tags):
            raise UserError(
                f"profile {self.name!r}: think_tags are {self.think_tags!r}", fix="give an opening and a closing tag"
            )

    def processed_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the image that the model sees, by this profile's resize rule."""
        if self.factor is None:
            return width, height
        resized = smart_resize(height, width, self.factor, self.min_pixels, self.max_pixels)
        return resized[1], resized[0]

    def to_json(self) -> dict[str, Any]:
        """All fields, for ``run.json`` and for the portable ground truth."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ModelProfile:
        """The inverse of :meth:`to_json`. Raises :class:`UserError` for a key that a profile does not have."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(value) - known):
            raise UserError(f"unknown profile fields {unknown}", fix=f"use only: {', '.join(sorted(known))}")
        lists = {key: tuple(item) for key, item in value.items() if isinstance(item, list)}
        return cls(**{**value, **lists})


@dataclass(frozen=True, slots=True)
class Frame:
    """A profile bound to one image: converts boxes between original pixels and what the model writes.

    ``width`` and ``height`` are the original image's; ``processed`` is the (width, height) that the processor really
    used, or ``None`` to take the profile's rule.
    """

    profile: ModelProfile
    width: int
    height: int
    processed: tuple[int, int] | None = None

    def limits(self) -> tuple[float, float]:
        """The largest x and y that the model may write.

        Never raises: for an image that the resize rule refuses, the original size stands in.
        """
        match self.profile.convention:
            case "norm_1000":
                return 1000.0, 1000.0
            case "norm_1":
                return 1.0, 1.0
            case "abs_original":
                return float(self.width), float(self.height)
            case "abs_resized":
                size = self.processed or self._resized()
                return float(size[0]), float(size[1])

    def _resized(self) -> tuple[int, int]:
        try:
            return self.profile.processed_size(self.width, self.height)
        except UserError:
            return self.width, self.height

    def to_model(self, box: Box) -> tuple[float, ...]:
        """``box`` in the model's units, axis order and decimals, inside the declared range.

        Integers are returned as ``int`` so that they print without a point.
        """
        max_x, max_y = self.limits()
        decimals = self.profile.decimals
        scaled = []
        for value, size, limit in zip(box, (self.width, self.height) * 2, (max_x, max_y) * 2, strict=True):
            unit = min(max(value / size * limit, 0.0), limit)
            scaled.append(round(unit, decimals) if decimals else math.floor(unit + 0.5))
        x1, y1, x2, y2 = scaled
        return (y1, x1, y2, x2) if self.profile.axes == "yxyx" else (x1, y1, x2, y2)

    def to_original(self, values: tuple[float, float, float, float]) -> Box:
        """What the model wrote, as a box in original pixels; neither clipped nor reordered."""
        max_x, max_y = self.limits()
        a, b, c, d = values
        if self.profile.axes == "yxyx":
            a, b, c, d = b, a, d, c
        to_x, to_y = self.width / max_x, self.height / max_y
        return a * to_x, b * to_y, c * to_x, d * to_y

    def to_json(self) -> dict[str, Any]:
        """Sizes and profile, for the portable ground truth."""
        return {
            "profile": self.profile.to_json(),
            "image_size": [self.width, self.height],
            "processed_size": list(self.processed) if self.processed else None,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Frame:
        """The inverse of :meth:`to_json`."""
        processed = value.get("processed_size")
        return cls(
            ModelProfile.from_json(value["profile"]),
            *_positive_pair(value["image_size"]),
            _positive_pair(processed) if processed else None,
        )


def _positive_pair(values: Any) -> tuple[int, int]:
    width, height = map(int, values)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise ValueError(f"sizes lie between 1 and {MAX_SIDE} pixels")
    return width, height


def smart_resize(height: int, width: int, factor: int, min_pixels: int, max_pixels: int) -> tuple[int, int]:
    """(height, width) after Qwen-VL's resize: multiples of ``factor``, area in [min_pixels, max_pixels], aspect kept.

    Agrees with ``transformers.models.qwen2_vl.image_processing_qwen2_vl.smart_resize``. Raises :class:`UserError` for
    an image whose aspect ratio exceeds 200, as the processor itself refuses it.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise UserError(
            f"an image of {width}x{height} pixels has an aspect ratio above {MAX_ASPECT_RATIO}",
            fix="crop or drop the image: Qwen-VL processors refuse it",
        )
    rows = round(height / factor) * factor
    columns = round(width / factor) * factor
    if rows * columns > max_pixels:
        shrink = math.sqrt(height * width / max_pixels)
        rows = max(factor, math.floor(height / shrink / factor) * factor)
        columns = max(factor, math.floor(width / shrink / factor) * factor)
    elif rows * columns < min_pixels:
        grow = math.sqrt(min_pixels / (height * width))
        rows = math.ceil(height * grow / factor) * factor
        columns = math.ceil(width * grow / factor) * factor
    return rows, columns
