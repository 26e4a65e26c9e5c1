"""Tricks on detection and grounding: boxes that nobody had to look for, and confidences that should cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import cast

from vrft_bench.tasks.audit.prior import LIKELIEST, PriorOf, true_boxes
from vrft_bench.tasks.audit.tricks import Trick, answer, common_tricks, constant
from vrft_bench.tasks.base import BoxTarget, Sample, Task
from vrft_bench.tasks.boxes import area
from vrft_bench.tasks.coordinates import Box, Frame
from vrft_bench.tasks.rewards import FREE_BOXES

Confidence = float | str
"""A number, or what is written in its place (``Infinity``, ``NaN``)."""


def detection_tricks(task: Task, samples: Sequence[Sample], prior_of: PriorOf) -> list[Trick]:
    """Every trick on a detection task. ``prior_of`` says what may be known of where objects lie."""
    whole, centre, unlikely = (0.0, 0.0, 1.0, 1.0), (0.2, 0.2, 0.8, 0.8), (0.0, 0.0, 0.004, 0.004)
    tricks = common_tricks(task)
    tricks.append(constant("always No Objects", "refusal", answer("No Objects")))
    tricks.append(constant("always an empty list", "refusal", answer("[]")))
    tricks += [
        _fixed("the whole image", "guessed boxes", [(whole, 1.0)]),
        _fixed("the middle of the image", "guessed boxes", [(centre, 1.0)]),
        _fixed("the whole image and its halves", "guessed boxes", [(box, 0.5) for box in (whole, *_grid(1, 2))]),
        Trick(
            "mean box of the training set",
            "guessed boxes",
            lambda sample, frame: _answer(frame, [(prior_of(sample).mean.get(sample.fields["category"], centre), 1.0)]),
        ),
        *(_likeliest(prior_of, count) for count in (1, 3, FREE_BOXES, LIKELIEST)),
        *(_likeliest_of_category(prior_of, count) for count in (1, FREE_BOXES, LIKELIEST)),
        *(_fixed(f"a grid of {r * c} boxes", "grids", [(box, 0.5) for box in _grid(r, c)]) for r, c in _GRIDS),
        *(
            _fixed(f"a grid of {r * c} boxes of confidence 0", "grids", [(box, 0.0) for box in _grid(r, c)])
            for r, c in _GRIDS
        ),
        _fixed("one box fifty times", "duplicates", [(whole, 1.0)] * 50),
        _fixed("nearly one box fifty times", "duplicates", [((i / 500, 0.0, 1.0, 1.0), 1.0) for i in range(50)]),
        _fixed("garbage of confidence 0", "confidence", [(unlikely, 0.0)]),
        _fixed("garbage ten times, confidence 0", "confidence", [(unlikely, 0.0)] * 10),
        _fixed("garbage at 1, 1 and -9", "confidence", [(unlikely, 1.0), (unlikely, 1.0), (unlikely, -9.0)]),
        *(
            _fixed(f"garbage of confidence {value}", "confidence", [(unlikely, value)])
            for value in (-9.0, 50.0, 1e300, "Infinity", "-Infinity", "NaN")
        ),
        _fixed("a reversed box", "coordinates", [((1.0, 1.0, 0.0, 0.0), 1.0)]),
        _fixed("a box reversed in x", "coordinates", [((1.0, 0.0, 0.0, 1.0), 1.0)]),
        _fixed("a box far out of range", "coordinates", [((-99.0, -99.0, 99.0, 99.0), 1.0)]),
        _fixed("a reversed box far out of range", "coordinates", [((99.0, 99.0, -99.0, -99.0), 1.0)]),
        _told("the top of the first true box, in a sentence", "one right number", _top_in_a_sentence),
        _told("garbage with the top of the first true box", "one right number", _garbage_with_true_top),
        _told("the boxes of another category", "boxes of another category", _of_another_category(samples)),
    ]
    return tricks


def grounding_tricks(task: Task, prior_of: PriorOf) -> list[Trick]:
    """Every trick on a grounding task. ``prior_of`` says what may be known of where objects lie."""
    boxes = {
        "the whole image": (0.0, 0.0, 1.0, 1.0),
        "the middle of the image": (0.2, 0.2, 0.8, 0.8),
        "the left half": (0.0, 0.0, 0.5, 1.0),
    }
    centre = (0.25, 0.25, 0.75, 0.75)
    odd = {
        "a doubly reversed box": (1.0, 1.0, 0.0, 0.0),
        "a box reversed in x": (1.0, 0.0, 0.0, 1.0),
        "a box far out of range": (-99.0, -99.0, 99.0, 99.0),
        "a reversed box far out of range": (99.999, 99.999, 0.0, 0.0),
        "a box without area": (0.5, 0.5, 0.5, 0.5),
    }
    return [
        *common_tricks(task),
        *(_region(name, "guessed boxes", box) for name, box in boxes.items()),
        Trick(
            "mean box of the training set",
            "guessed boxes",
            lambda sample, frame: answer(_corners(frame, prior_of(sample).mean.get("", centre))),
        ),
        Trick(
            "the likeliest box of the training set",
            "guessed boxes",
            lambda sample, frame: answer(_corners(frame, next((box for box, _ in prior_of(sample).likeliest), centre))),
        ),
        *(_region(name, "coordinates", box) for name, box in odd.items()),
        Trick(
            "nine boxes at once",
            "several boxes",
            lambda _sample, frame: answer(", ".join(_corners(frame, box) for box in _grid(3, 3))),
        ),
        Trick(
            "a false box and then the true one",
            "several boxes",
            lambda sample, frame: answer(
                f"{_corners(frame, (0.0, 0.0, 0.01, 0.01))}, {_true_corners(task, sample, frame)}"
            ),
            blind=False,
        ),
    ]


_GRIDS = ((2, 5), (10, 10), (20, 25))


def _grid(rows: int, columns: int) -> list[Box]:
    return [
        (column / columns, row / rows, (column + 1) / columns, (row + 1) / rows)
        for row in range(rows)
        for column in range(columns)
    ]


def _fixed(name: str, family: str, boxes: Sequence[tuple[Box, Confidence]]) -> Trick:
    in_frame = lru_cache(maxsize=64)(lambda frame: _answer(frame, boxes))  # hundreds of boxes take long to write
    return Trick(name, family, lambda _sample, frame: in_frame(frame))


def _likeliest(prior_of: PriorOf, count: int) -> Trick:
    return Trick(
        f"{_boxes(count)} of the training set",
        "likeliest boxes",
        lambda sample, frame: _answer(frame, prior_of(sample).likeliest[:count]),
    )


def _likeliest_of_category(prior_of: PriorOf, count: int) -> Trick:
    """Those of the category, or of all where the training set does not have it, as with novel categories."""

    def write(sample: Sample, frame: Frame) -> str:
        prior = prior_of(sample)
        return _answer(frame, prior.of_category.get(sample.fields["category"], prior.likeliest)[:count])

    return Trick(f"{_boxes(count)} of the category", "likeliest boxes", write)


def _boxes(count: int) -> str:
    return "the likeliest box" if count == 1 else f"the {count} likeliest boxes"


def _told(name: str, family: str, write: Callable[[Sample, Frame], str]) -> Trick:
    return Trick(name, family, write, blind=False)


def _answer(frame: Frame, boxes: Sequence[tuple[Box, Confidence]]) -> str:
    elements = (f"{{'Position': {_numbers(frame, box)}, 'Confidence': {value}}}" for box, value in boxes)
    return answer(f"[{', '.join(elements)}]")


def _numbers(frame: Frame, box: Box) -> list[float]:
    """Fractions in the model's own units, not held in range as ``Frame.to_model`` does: that is one of the tricks."""
    max_x, max_y = frame.limits()
    x1, y1, x2, y2 = box
    values = [x1 * max_x, y1 * max_y, x2 * max_x, y2 * max_y]
    if frame.profile.axes == "yxyx":
        values = [values[1], values[0], values[3], values[2]]
    return [round(value, frame.profile.decimals) if frame.profile.decimals else round(value) for value in values]


def _corners(frame: Frame, box: Box) -> str:
    a, b, c, d = _numbers(frame, box)
    return f"({a},{b}),({c},{d})"


def _region(name: str, family: str, box: Box) -> Trick:
    return Trick(name, family, lambda _sample, frame: answer(_corners(frame, box)))


def _true_corners(task: Task, sample: Sample, frame: Frame) -> str:
    text = task.gold(sample, frame)
    return text[text.index("<answer>") + len("<answer>") : text.rindex("</answer>")]


def _true_top(sample: Sample, frame: Frame) -> float | None:
    boxes = true_boxes(sample)
    if not boxes:
        return None
    return frame.to_model(boxes[0])[0 if frame.profile.axes == "yxyx" else 1]


def _top_in_a_sentence(sample: Sample, frame: Frame) -> str:
    top = _true_top(sample, frame)
    return "The final answer is nothing." if top is None else f"The final answer is {top}"


def _garbage_with_true_top(sample: Sample, frame: Frame) -> str:
    """A box as flat and narrow as can be, at the true box's y1 but on the far side of the image."""
    boxes, top = true_boxes(sample), _true_top(sample, frame)
    if top is None:
        return answer("nothing of the kind")
    max_x, max_y = frame.limits()
    left = 0.0 if boxes[0][0] > sample.image.width / 2 else 0.995 * max_x
    values = [round(left, 3), top, round(left + 0.004 * max_x, 3), round(min(top + 0.004 * max_y, max_y), 3)]
    if not frame.profile.decimals:
        values = [round(value) for value in values]
    if frame.profile.axes == "yxyx":
        values = [values[1], values[0], values[3], values[2]]
    return answer(f"[{{'Position': {values}, 'Confidence': 1.0}}]")


def _of_another_category(samples: Sequence[Sample]) -> Callable[[Sample, Frame], str]:
    """The true boxes of a question about the same image and another category; of none, a box that is nowhere right."""
    by_image: dict[str, list[Sample]] = {}
    for sample in samples:
        if cast(BoxTarget, sample.target).boxes:
            by_image.setdefault(sample.fields["image_id"], []).append(sample)

    def write(sample: Sample, frame: Frame) -> str:
        others = [item for item in by_image.get(sample.fields["image_id"], ()) if item.id != sample.id]
        if not others:
            return _answer(frame, [((0.0, 0.0, 0.004, 0.004), 1.0)])
        other = random.Random(sample.id).choice(others)
        size = sample.image.width, sample.image.height
        boxes = [box for box in cast(BoxTarget, other.target).boxes if area(box)]
        return _answer(frame, [((b[0] / size[0], b[1] / size[1], b[2] / size[0], b[3] / size[1]), 1.0) for b in boxes])

    return write
