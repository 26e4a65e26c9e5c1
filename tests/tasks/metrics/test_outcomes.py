"""Single answers, judged."""

from __future__ import annotations

import time
import tracemalloc

import numpy as np
import pytest

from vrft_bench.tasks.base import BoxTarget, Detection
from vrft_bench.tasks.metrics import outcomes
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES, COCO_RULES, LVIS_RULES, Rules, outcome_of

ALL_THRESHOLDS = (1 << 10) - 1
SQUARE = (0.0, 0.0, 100.0, 100.0)


def _in_range(mask: int, name: str) -> int:
    return mask >> 10 * list(AREA_RANGES).index(name) & ALL_THRESHOLDS


def test_a_perfect_box_is_right_at_every_threshold_in_its_area_range_only():
    outcome = outcome_of(BoxTarget((SQUARE,)), [Detection(SQUARE, 0.9)], COCO_RULES)
    assert outcome.truths == (1, 0, 0, 1)
    assert _in_range(outcome.true[0], "all") == _in_range(outcome.true[0], "large") == ALL_THRESHOLDS
    assert _in_range(outcome.true[0], "small") == _in_range(outcome.counted[0], "small") == 0
    assert (outcome.scores, outcome.hits, outcome.extras) == ([0.9], 1, 0)


def test_an_iou_on_a_threshold_reaches_it():
    outcome = outcome_of(BoxTarget((SQUARE,)), [Detection((0.0, 0.0, 100.0, 75.0), None)], COCO_RULES)
    assert _in_range(outcome.true[0], "all") == 0b0000111111
    assert _in_range(outcome.counted[0], "all") == ALL_THRESHOLDS
    assert outcome.scores == [1.0]


def test_annotated_area_decides_the_range_of_truth_and_both_ends_belong_to_it():
    areas = (1024.0, 9216.0, 1023.9)
    assert outcome_of(BoxTarget((SQUARE,) * 3, areas), [], COCO_RULES).truths == (3, 2, 2, 1)


def test_the_more_confident_detection_claims_the_truth_and_the_other_is_wrong():
    close, exact = Detection((0.0, 0.0, 100.0, 80.0), 0.9), Detection(SQUARE, 0.2)
    outcome = outcome_of(BoxTarget((SQUARE,)), [exact, close], COCO_RULES)
    assert outcome.scores == [0.9, 0.2]
    assert [_in_range(mask, "all") for mask in outcome.true] == [0b0001111111, 0b1110000000]
    assert (outcome.hits, outcome.extras) == (1, 1)


def test_a_crowd_swallows_any_number_of_boxes_without_cost():
    inside = [Detection((float(x), 0.0, x + 50.0, 50.0), 0.5) for x in range(5)]
    outcome = outcome_of(BoxTarget((), crowd=((0.0, 0.0, 300.0, 300.0),)), inside, COCO_RULES)
    assert outcome.true == outcome.counted == [0] * 5 == [_in_range(mask, "all") for mask in outcome.counted]
    assert outcome.truths == (0, 0, 0, 0)
    assert (outcome.hits, outcome.extras) == (0, 0)


def test_extras_are_no_errors_where_annotation_is_not_exhaustive_or_not_verified():
    answer = [Detection(SQUARE, 0.9), Detection((300.0, 300.0, 400.0, 400.0), 0.8)]
    partly = outcome_of(BoxTarget((SQUARE,), exhaustive=False), answer, LVIS_RULES)
    assert (partly.hits, partly.extras) == (1, 0)
    assert _in_range(partly.counted[0], "all") == ALL_THRESHOLDS
    assert partly.counted[1] == 0
    unknown = outcome_of(BoxTarget((), verified=False), answer, LVIS_RULES)
    assert (unknown.hits, unknown.extras, unknown.counted) == (0, 0, [0, 0])
    known = outcome_of(BoxTarget(()), answer, LVIS_RULES)
    assert (known.hits, known.extras) == (0, 2)


def test_empty_boxes_count_for_coco_and_not_for_lvis():
    empty = (50.0, 50.0, 50.0, 90.0)
    target, answer = BoxTarget((SQUARE, empty)), [Detection(empty, 1.0)]
    assert outcome_of(target, answer, COCO_RULES).truths[0] == 2
    assert _in_range(outcome_of(target, answer, COCO_RULES).counted[0], "all") == ALL_THRESHOLDS
    assert outcome_of(target, answer, LVIS_RULES).truths[0] == 1
    assert outcome_of(target, answer, LVIS_RULES).counted == [0]


def test_boxes_beyond_the_limit_count_for_precision_but_not_for_ap():
    answer = [Detection(SQUARE, 0.1)] + [Detection((200.0, 200.0, 300.0, 300.0), 0.9)] * 3
    outcome = outcome_of(BoxTarget((SQUARE,)), answer, Rules(3, None, False))
    assert (outcome.cut, outcome.true, outcome.hits, outcome.extras) == (1, [0, 0, 0], 1, 3)


@pytest.mark.parametrize("seed", range(20))
def test_numpy_and_plain_python_judge_alike(seed, random_world, monkeypatch):
    world = random_world(seed, crowds=True, images=3, many=40)
    pairs = [(world.targets[key], world.answers[key]) for key in world.targets]
    monkeypatch.setattr(outcomes, "_SCALAR_PAIRS", 10**9)
    scalar = [outcome_of(target, answer, COCO_RULES) for target, answer in pairs]
    monkeypatch.setattr(outcomes, "_SCALAR_PAIRS", -1)
    assert [outcome_of(target, answer, COCO_RULES) for target, answer in pairs] == scalar


def test_an_answer_of_ten_thousand_boxes_is_judged_in_linear_memory_and_short_time():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 500, (10_000, 2)).round(3)
    answer = [Detection((x, y, x + 60.0, y + 60.0), 0.5) for x, y in corners.tolist()]
    target = BoxTarget(tuple((x, y, x + 61.0, y + 61.0) for x, y in corners[:40].tolist()))
    tracemalloc.start()
    begin = time.process_time()
    outcome = outcome_of(target, answer, COCO_RULES)
    seconds = time.process_time() - begin
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (outcome.hits, len(outcome.scores), outcome.cut) == (40, 100, 9_900)
    assert peak < 20_000_000
    assert seconds < 10.0
