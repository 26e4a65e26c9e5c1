"""Matching: the pairs are those of the one IoU, and the assignment is the best there is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.matching import match_boxes, overlapping_pairs

_corners = st.floats(0, 60)
_boxes = st.tuples(_corners, _corners, st.floats(1, 40), st.floats(1, 40)).map(
    lambda box: (box[0], box[1], box[0] + box[2], box[1] + box[3])
)
_any_four = st.tuples(*[st.integers(-3, 3).map(float) | st.floats(-1e12, 1e12) | st.sampled_from([5e-324, 1e-160])] * 4)
"""Reversed, empty, touching, equal and huge boxes, and such whose areas are too small to be told from 0."""


@settings(max_examples=500)
@given(
    st.lists(_boxes | _any_four, max_size=4),
    st.lists(_boxes | _any_four, min_size=4, max_size=5),
    st.sampled_from([0.0, 0.05, 0.5, 1.0]),
)
def test_pairs_have_the_iou_of_boxes_bit_for_bit(predictions: list[Box], truths: list[Box], threshold: float) -> None:
    of_every_pair = [(i, j, iou(box, truth)) for j, truth in enumerate(truths) for i, box in enumerate(predictions)]
    expected = [pair for pair in of_every_pair if pair[2] >= threshold and pair[2] > 0.0]
    assert overlapping_pairs(predictions, truths, threshold) == expected


@settings(max_examples=200)
@given(st.lists(_boxes, max_size=4), st.lists(_boxes, min_size=1, max_size=4), st.sampled_from([0.05, 0.3, 0.5]))
def test_matching_is_the_best_of_all_assignments(predictions: list[Box], truths: list[Box], threshold: float) -> None:
    best = 0.0
    padded = [*range(len(predictions)), *([None] * len(truths))]
    for assignment in itertools.permutations(padded, len(truths)):
        overlaps = [iou(predictions[i], truths[j]) for j, i in enumerate(assignment) if i is not None]
        best = max(best, sum(overlap for overlap in overlaps if overlap >= threshold))
    matches = match_boxes(predictions, truths, threshold)
    assert len({i for i, _, _ in matches}) == len(matches) == len({j for _, j, _ in matches})
    assert sum(overlap for _, _, overlap in matches) == pytest.approx(best, abs=1e-9)


def test_matching_is_optimal_where_greedy_is_not() -> None:
    truths = [(0.0, 0.0, 10.0, 10.0), (2.0, 0.0, 12.0, 10.0)]
    predictions = [(1.0, 0.0, 11.0, 10.0), (-2.0, 0.0, 8.0, 10.0)]
    assert [(truth, prediction) for prediction, truth, _ in match_boxes(predictions, truths)] == [(0, 1), (1, 0)]


def test_of_many_predictions_on_one_truth_only_as_many_are_kept_as_may_matter() -> None:
    truths = [(0.0, 0.0, 10.0, 10.0), (40.0, 0.0, 50.0, 10.0)]
    crowding = [(0.0, 0.0, 10.0, 10.0 - 0.1 * step) for step in range(40)]
    assert [(i, j) for i, j, _ in overlapping_pairs(crowding, truths)] == [(0, 0), (1, 0), (2, 0)]
    assert match_boxes(crowding[::-1], truths) == [(39, 0, 1.0)]
