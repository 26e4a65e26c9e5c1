"""How small and how large the image may be that a processor resizes to: the area limits of smart-resize.

A run goes by the limits of its profile, which ``run.json`` records; what the checkpoint's own files say is replaced.
"""

from __future__ import annotations

import inspect
import logging
from dataclasses import replace
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.tasks.coordinates import ModelProfile

EDGES = ("shortest_edge", "longest_edge")
"""Under these keys of ``size`` transformers keeps the smallest and the largest area (not the lengths of edges)."""

logger = logging.getLogger(__name__)


def limit_pixels(profile: ModelProfile, min_pixels: int | None, max_pixels: int | None) -> ModelProfile:
    """``profile`` with the limits that the user gave in place of its own.

    Raises :class:`UserError` where the smallest area would be above the largest.
    """
    changed = replace(profile, min_pixels=min_pixels or profile.min_pixels, max_pixels=max_pixels or profile.max_pixels)
    if changed.min_pixels > changed.max_pixels:
        raise UserError(
            f"min_pixels={changed.min_pixels} is above max_pixels={changed.max_pixels} "
            f"(what is not given is profile {profile.name!r}'s)",
            fix="give both --model-args min_pixels=N and max_pixels=M, with N not above M",
        )
    return changed


def restore_edges(image_processor: Any) -> None:
    """Put the limits of older files, ``size: {min_pixels, max_pixels}``, where today's processors read them."""
    size = _size(image_processor)
    if _declares_limits(image_processor) and {"min_pixels", "max_pixels"} <= set(size) and not set(EDGES) & set(size):
        image_processor.size = dict(zip(EDGES, (size["min_pixels"], size["max_pixels"]), strict=True))


def set_pixel_limits(
    image_processor: Any, limits: tuple[int, int], given: tuple[int | None, int | None] = (None, None)
) -> None:
    """Make ``image_processor`` resize to an area within ``limits`` (smallest, largest).

    ``given`` are the ones that the user asked for by name. Other limits than the checkpoint's own are set with a note
    in the log, unless the user gave them. A processor that does not resize by area is left as it is; for limits that
    the user gave that is a :class:`UserError`.
    """
    size = _size(image_processor)
    resizes = getattr(image_processor, "do_resize", True)
    if not (resizes and _declares_limits(image_processor) and set(EDGES) <= set(size)):
        if given != (None, None):
            raise UserError(
                f"the images of this model cannot be held to {_words(given)}: its {type(image_processor).__name__} "
                + ("does not resize them by area" if resizes else "does not resize them (do_resize is false)"),
                fix="leave min_pixels and max_pixels out of --model-args",
            )
        return
    own = (size[EDGES[0]], size[EDGES[1]])
    if own == limits:
        return
    if any(new != old and asked is None for new, old, asked in zip(limits, own, given, strict=True)):
        logger.warning(
            "images are resized to %d to %d pixels, as the profile says, and not to %d to %d, as the checkpoint's own "
            "files say; to use those: --model-args min_pixels=%d,max_pixels=%d",
            *limits,
            *own,
            *own,
        )
    image_processor.size = dict(zip(EDGES, limits, strict=True))


def _size(image_processor: Any) -> dict[str, int]:
    return dict(getattr(image_processor, "size", None) or {})


def _declares_limits(image_processor: Any) -> bool:
    declared = getattr(image_processor, "valid_kwargs", None)
    if declared is not None:
        return "min_pixels" in declared.__annotations__
    return "min_pixels" in inspect.signature(type(image_processor).__init__).parameters


def _words(given: tuple[int | None, int | None]) -> str:
    named = zip(("min_pixels", "max_pixels"), given, strict=True)
    return " and ".join(f"{name}={value}" for name, value in named if value is not None)
