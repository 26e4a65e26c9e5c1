"""Scoring policies rank boxes as they say."""

from __future__ import annotations

from vrft_bench.tasks.base import Detection
from vrft_bench.tasks.metrics.scoring_policies import POLICIES, agreement, constant, order, self_reported

A, NEAR_A, B = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 8.0), (20.0, 0.0, 30.0, 10.0)


def _scores(answers: list[list[Detection]]) -> list[list[float | None]]:
    return [[item.confidence for item in answer] for answer in answers]


def test_names_are_fixed():
    assert list(POLICIES) == ["self_reported", "constant", "order", "agreement"]


def test_constant_order_and_self_reported():
    answers = [[Detection(A, 0.2), Detection(B, None), Detection(A, 0.9)], []]
    assert _scores(constant(answers)) == [[1.0, 1.0, 1.0], []]
    assert _scores(order(answers)) == [[1.0, 1 / 2, 1 / 3], []]
    assert _scores(self_reported(answers)) == [[0.2, None, 0.9], []]
    assert [item.box for item in order(answers)[0]] == [A, B, A]


def test_agreement_is_the_share_of_answers_that_hold_the_box():
    answers = [[Detection(A, 0.1)], [Detection(NEAR_A, None), Detection(B, 1.0)], [Detection(A, 0.9)], []]
    assert _scores(agreement(answers)) == [[3 / 4], [3 / 4, 1 / 4], [3 / 4], []]


def test_agreement_pairs_boxes_one_to_one():
    """Two boxes on one object of another answer are not both confirmed by it."""
    answers = [[Detection(A, 1.0), Detection(NEAR_A, 1.0)], [Detection(A, 1.0)]]
    assert _scores(agreement(answers)) == [[1.0, 0.5], [1.0]]
