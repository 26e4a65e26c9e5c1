"""Every sample instruction fits exactly one object: judged here by a reading of the phrases of its own."""

from __future__ import annotations

from random import Random

import pytest

from vrft_bench.tasks.data.sample_instructions import instructions
from vrft_bench.tasks.data.sample_scenes import Scene, Thing, reasonseg_scene

WORDS = {
    "tomato": "red", "grass": "green", "sky": "blue", "lemon": "yellow", "eggplant": "purple",
    "red": "red", "green": "green", "blue": "blue", "yellow": "yellow", "purple": "purple",
    "no corners": "circle", "roll": "circle", "four corners": "square", "box": "square", "three corners": "triangle",
    "point": "triangle", "twelve": "cross", "plus": "cross",
}  # fmt: skip
CELLS = {"top left": (0, 0), "top right": (2, 0), "bottom left": (0, 2), "bottom right": (2, 2), "middle": (1, 1)}


def fitting(phrase: str, scene: Scene) -> list[Thing]:
    """The things that a reader would take ``phrase`` to mean."""
    for words, (column, row) in CELLS.items():
        if words in phrase:
            x, y = column * 28 + 14, row * 28 + 14
            return [t for t in scene.things if t.box[0] < x < t.box[2] and t.box[1] < y < t.box[3]]
    extremes = {
        ("largest", "most room"): lambda t: t.columns * t.rows,
        ("smallest", "least room"): lambda t: -t.columns * t.rows,
        ("furthest to the left",): lambda t: -t.box[0],
        ("furthest to the right",): lambda t: t.box[2],
        ("highest",): lambda t: -t.box[1],
        ("lowest",): lambda t: t.box[3],
    }
    for words_of, measure in extremes.items():
        if any(words in phrase for words in words_of):
            most = max(measure(thing) for thing in scene.things)
            return [thing for thing in scene.things if measure(thing) == most]
    (meant,) = {value for words, value in WORDS.items() if words in phrase}
    return [thing for thing in scene.things if meant in thing.category.split()]


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_instruction_means_its_target_alone(split: str) -> None:
    asked = 0
    for index in range(300):
        scene = reasonseg_scene(split, index)
        found = instructions(scene, Random(index))
        if found is None:
            continue
        target, phrases = found
        assert 1 <= len(phrases) == len(set(phrases)) <= 3
        for phrase in phrases:
            assert fitting(phrase, scene) == [target], phrase
            asked += 1
    assert asked > 400


def test_two_alike_things_are_told_apart_by_place_only() -> None:
    thing = Thing("red circle", (215, 40, 40), 0, 0, 1, 1)
    other = Thing("red circle", (215, 40, 40), 2, 0, 1, 1)
    scene = Scene((thing, other), ((0, 0, 0), (0, 0, 0)), (0, 1))
    phrases = {phrase for seed in range(50) for phrase in (instructions(scene, Random(seed)) or (None, []))[1]}
    assert phrases == {
        "the object in the top left corner",
        "the object in the top right corner",
        "the object furthest to the left",
        "the object furthest to the right",
    }


def test_a_lone_thing_is_not_asked_for() -> None:
    scene = Scene((Thing("red circle", (215, 40, 40), 0, 0, 1, 1),), ((0, 0, 0), (0, 0, 0)), (0, 1))
    assert instructions(scene, Random(0)) is None
