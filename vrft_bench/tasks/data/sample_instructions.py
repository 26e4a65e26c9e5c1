"""Instructions for the sample's grounding images: each needs a little reasoning and fits exactly one object."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from vrft_bench.tasks.data.sample_scenes import GRID, Scene, Thing

_COLOUR_PHRASES = {
    "red": ("the only red thing", "the thing in the colour of a ripe tomato"),
    "green": ("the only green thing", "the thing in the colour of grass"),
    "blue": ("the only blue thing", "the thing in the colour of a clear sky"),
    "yellow": ("the only yellow thing", "the thing in the colour of a lemon"),
    "purple": ("the only purple thing", "the thing in the colour of an eggplant"),
}
_SHAPE_PHRASES = {
    "circle": ("the shape that has no corners", "the shape that could roll"),
    "square": ("the shape that has four corners", "the shape that looks like a box"),
    "triangle": ("the shape that has three corners", "the shape that ends in a point at its top"),
    "cross": ("the shape that has twelve corners", "the shape that looks like a plus sign"),
}
_PLACE_PHRASES = {
    (0, 0): "the object in the top left corner",
    (GRID - 1, 0): "the object in the top right corner",
    (0, GRID - 1): "the object in the bottom left corner",
    (GRID - 1, GRID - 1): "the object in the bottom right corner",
    (GRID // 2, GRID // 2): "the object that covers the middle of the image",
}
_EXTREMES: tuple[tuple[tuple[str, ...], tuple[Callable[[Thing], float], ...]], ...] = (
    (("the largest object", "the thing that takes up the most room"), (lambda thing: thing.columns * thing.rows,)),
    (("the smallest object", "the thing that takes up the least room"), (lambda thing: -thing.columns * thing.rows,)),
    (("the object furthest to the left",), (lambda thing: -thing.box[0], lambda thing: -thing.box[2])),
    (("the object furthest to the right",), (lambda thing: thing.box[0], lambda thing: thing.box[2])),
    (("the highest object in the image",), (lambda thing: -thing.box[1], lambda thing: -thing.box[3])),
    (("the lowest object in the image",), (lambda thing: thing.box[1], lambda thing: thing.box[3])),
)
"""Phrases, and what the one object must have strictly more of than every other. A place must hold by both edges."""


def instructions(scene: Scene, rng: Random) -> tuple[Thing, list[str]] | None:
    """A target and one to three instructions that fit it alone.

    ``None`` where there is nothing to tell it apart from, or no instruction is unambiguous.
    """
    if len(scene.things) < 2:
        return None
    fitting: dict[Thing, list[str]] = {}
    for thing, phrase in _unambiguous(scene):
        fitting.setdefault(thing, []).append(phrase)
    if not fitting:
        return None
    target = rng.choice([thing for thing in scene.things if thing in fitting])
    phrases = fitting[target]
    rng.shuffle(phrases)
    return target, phrases[: rng.randint(1, 3)]


def _unambiguous(scene: Scene) -> Iterator[tuple[Thing, str]]:
    things = scene.things
    for thing in things:
        others = [other for other in things if other is not thing]
        if all(other.colour != thing.colour for other in others):
            yield from ((thing, phrase) for phrase in _COLOUR_PHRASES[thing.colour])
        if all(other.shape != thing.shape for other in others):
            yield from ((thing, phrase) for phrase in _SHAPE_PHRASES[thing.shape])
        for (column, row), phrase in _PLACE_PHRASES.items():
            if thing.covers(column, row):
                yield thing, phrase
        for phrases, measures in _EXTREMES:
            if all(measure(thing) > measure(other) for other in others for measure in measures):
                yield from ((thing, phrase) for phrase in phrases)
