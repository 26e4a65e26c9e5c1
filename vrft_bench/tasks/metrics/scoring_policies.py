"""Scoring policies: what ranks the boxes of a model that states no confidence, or whose confidences mean nothing.

AP needs a ranking. These give one to the boxes of the answers to one question (all completions of it):

* ``self_reported``: the confidence that the model states; 1 where it states none;
* ``constant``: 1 for every box, so that images are ranked by their id alone;
* ``order``: 1/p for the box in place p of the answer: what is named first is surest;
* ``agreement``: the share of all answers to the question (this one too) that hold a box with IoU >= .5 with it, boxes
  of two answers paired one to one: self-consistency, for two and more completions;
* ``logprob``: how likely the model found the box (:mod:`~vrft_bench.tasks.box_likelihood`), where the backend gave the
  log-probabilities of its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isnan
from types import MappingProxyType
from typing import NamedTuple

from vrft_bench.tasks.base import Detection
from vrft_bench.tasks.matching import match_boxes


class Answer(NamedTuple):
    """The boxes of one answer, and how likely the model found each of them (NaN where that is not known)."""

    boxes: Sequence[Detection]
    likelihoods: Sequence[float] = ()


Answers = Sequence[Answer]
"""The answers to one question."""
Policy = Callable[[Answers], list[list[Detection]]]
AGREEMENT_IOU = 0.5


def self_reported(answers: Answers) -> list[list[Detection]]:
    """Boxes with the confidence that they came with."""
    return [list(answer.boxes) for answer in answers]


def constant(answers: Answers) -> list[list[Detection]]:
    """Boxes that all score 1."""
    return [[Detection(item.box, 1.0) for item in answer.boxes] for answer in answers]


def order(answers: Answers) -> list[list[Detection]]:
    """Boxes that score 1, 1/2, 1/3, ... in the order of the answer."""
    return [[Detection(item.box, 1.0 / place) for place, item in enumerate(answer.boxes, 1)] for answer in answers]


def agreement(answers: Answers) -> list[list[Detection]]:
    """Boxes that score the share of the answers which hold them. An answer counts for its own boxes."""
    scored = []
    for number, answer in enumerate(answers):
        boxes = [item.box for item in answer.boxes]
        votes = [1] * len(boxes)
        for other_number, other in enumerate(answers):
            if other_number != number:
                for _, held, _ in match_boxes([item.box for item in other.boxes], boxes, AGREEMENT_IOU):
                    votes[held] += 1
        scored.append([Detection(box, count / len(answers)) for box, count in zip(boxes, votes, strict=True)])
    return scored


def logprob(answers: Answers) -> list[list[Detection]]:
    """Boxes that score how likely the model found them; 0 where that is not known."""
    return [
        [
            Detection(item.box, 0.0 if isnan(likely) else likely)
            for item, likely in zip(answer.boxes, answer.likelihoods, strict=True)
        ]
        for answer in answers
    ]


POLICIES: MappingProxyType[str, Policy] = MappingProxyType(
    {
        "self_reported": self_reported,
        "constant": constant,
        "order": order,
        "agreement": agreement,
        "logprob": logprob,
    }
)
