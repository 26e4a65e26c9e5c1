"""Properties of box geometry, and the equality of the scalar and the vectorised IoU."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.tasks.boxes import area, clip, covered, covered_column, intersection, iou, iou_column

coordinate = st.integers(-50, 50).map(float) | st.floats(-1e4, 1e4)
boxes = st.tuples(coordinate, coordinate, coordinate, coordinate)
proper_boxes = boxes.map(lambda b: (min(b[0], b[2]), min(b[1], b[3]), max(b[0], b[2]), max(b[1], b[3])))
grid_boxes = st.tuples(*[st.integers(0, 60).map(float)] * 4)


def test_iou_of_known_boxes():
    assert iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(1 / 3)
    assert iou((0, 0, 10, 10), (0, 0, 10, 5)) == 0.5
    assert iou((0, 0, 10, 10), (10, 0, 20, 10)) == 0.0
    assert covered((0, 0, 10, 10), (5, -100, 500, 500)) == 0.5
    assert intersection((0, 0, 4, 4), (2, 1, 9, 9)) == 6.0
    assert area((1, 2, 4, 6)) == 12.0


def test_boxes_without_area_overlap_nothing():
    for empty in [(5, 5, 5, 9), (5, 5, 5, 5), (9, 9, 1, 1), (9, 1, 1, 9)]:
        assert area(empty) == 0.0
        assert iou(empty, (0, 0, 10, 10)) == 0.0
        assert iou(empty, empty) == 0.0
        assert covered(empty, (0, 0, 10, 10)) == 0.0


@given(boxes, boxes)
def test_iou_is_symmetric_and_within_0_and_1(a, b):
    value = iou(a, b)
    assert 0.0 <= value <= 1.0
    assert value == iou(b, a)


@given(proper_boxes)
def test_a_box_with_area_covers_itself(box):
    assert iou(box, box) == (1.0 if area(box) > 0.0 else 0.0)


@given(grid_boxes, grid_boxes, st.integers(-1000, 1000), st.integers(-1000, 1000))
def test_iou_is_invariant_under_translation(a, b, dx, dy):
    def move(box):
        return box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy

    assert iou(move(a), move(b)) == iou(a, b)


@given(proper_boxes, proper_boxes)
def test_iou_is_intersection_over_union(a, b):
    union = area(a) + area(b) - intersection(a, b)
    assert iou(a, b) == (intersection(a, b) / union if union > 0.0 and intersection(a, b) > 0.0 else 0.0)


@given(st.lists(boxes, min_size=1, max_size=8), proper_boxes)
def test_columns_equal_the_scalar_functions_bit_for_bit(rows, truth):
    array = np.array(rows, dtype=np.float64)
    assert iou_column(array, truth).tolist() == [iou(row, truth) for row in rows]
    assert covered_column(array, truth).tolist() == [covered(row, truth) for row in rows]


@given(boxes)
def test_clipped_boxes_lie_in_the_image_and_stay_there(box):
    clipped = clip(box, 30.0, 20.0)
    assert 0.0 <= clipped[0] <= 30.0
    assert 0.0 <= clipped[1] <= 20.0
    assert 0.0 <= clipped[2] <= 30.0
    assert 0.0 <= clipped[3] <= 20.0
    assert clip(clipped, 30.0, 20.0) == clipped


def test_clip_keeps_a_box_that_is_inside_and_collapses_one_that_is_outside():
    assert clip((1.0, 2.0, 3.0, 4.0), 30.0, 20.0) == (1.0, 2.0, 3.0, 4.0)
    assert clip((40.0, 50.0, 60.0, 70.0), 30.0, 20.0) == (30.0, 20.0, 30.0, 20.0)
