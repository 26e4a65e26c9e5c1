"""Scoring policies rank boxes as they say."""

from __future__ import annotations

from vrft_bench.tasks.base import Detection
from vrft_bench.tasks.metrics.scoring_policies import (
    POLICIES,
    Answer,
    agreement,
    constant,
    logprob,
    order,
    self_reported,
)

A, NEAR_A, B = (0.0, 0.0, 10.0, 10.0), (0.0, 0.0, 10.0, 8.0), (20.0, 0.0, 30.0, 10.0)


def _scores(answers: list[list[Detection]]) -> list[list[float | None]]:
    return [[item.confidence for item in answer] for answer in answers]


def test_names_are_fixed():
    assert list(POLICIES) == ["self_reported", "constant", "order", "agreement", "logprob"]


def test_constant_order_and_self_reported():
    answers = [Answer([Detection(A, 0.2), Detection(B, None), Detection(A, 0.9)]), Answer([])]
    assert _scores(constant(answers)) == [[1.0, 1.0, 1.0], []]
    assert _scores(order(answers)) == [[1.0, 1 / 2, 1 / 3], []]
    assert _scores(self_reported(answers)) == [[0.2, None, 0.9], []]
    assert [item.box for item in order(answers)[0]] == [A, B, A]


def test_agreement_is_the_share_of_answers_that_hold_the_box():
    boxes = [[Detection(A, 0.1)], [Detection(NEAR_A, None), Detection(B, 1.0)], [Detection(A, 0.9)], []]
    answers = [Answer(own) for own in boxes]
    assert _scores(agreement(answers)) == [[3 / 4], [3 / 4, 1 / 4], [3 / 4], []]


def test_agreement_pairs_boxes_one_to_one():
    """Two boxes on one object of another answer are not both confirmed by it."""
    answers = [Answer([Detection(A, 1.0), Detection(NEAR_A, 1.0)]), Answer([Detection(A, 1.0)])]
    assert _scores(agreement(answers)) == [[1.0, 0.5], [1.0]]


def test_logprob_is_how_likely_the_model_found_each_box():
    answers = [Answer([Detection(A, 1.0), Detection(B, None)], (0.25, 0.75)), Answer([])]
    assert _scores(logprob(answers)) == [[0.25, 0.75], []]
    assert _scores(logprob([Answer([Detection(A, 1.0)], (float("nan"),))])) == [[0.0]]
