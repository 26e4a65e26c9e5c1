from __future__ import annotations

import pytest

from vrft_bench.harness.answers import AnswerStats, AnswerTally
from vrft_bench.tasks.base import UNPARSABLE, Detection, Prediction, Score, Status


def test_counts_means_and_tokens() -> None:
    tally = AnswerTally()
    boxes = (Detection((0, 0, 1, 1), 0.5), Detection((0, 0, 2, 2), None))
    tally.add(Prediction(Status.OK, detections=boxes, boxes_read=3), Score({"iou": 1.0}, 2.0), 10, 4)
    tally.add(Prediction(Status.TRUNCATED), Score({"iou": 0.0}, 0.0), 10, 5)
    tally.fail(Score({"iou": 0.5}, 1.0))
    stats = tally.stats("a note of the data")
    assert stats == AnswerStats(
        completions=3,
        failures=1,
        status={"ok": 1, "truncated": 1},
        reward=1.0,
        components={"iou": 0.5},
        boxes=3,
        boxes_out_of_range=0,
        boxes_without_confidence=1,
        prompt_tokens=20,
        completion_tokens=9,
        notes=("a note of the data", "1 of 3 completions failed and count as no prediction"),
    )
    assert stats.share(*UNPARSABLE) == pytest.approx(1 / 3)


@pytest.mark.parametrize(("out", "loud"), [(1, False), (2, True)])
def test_more_than_one_percent_out_of_range_is_loud(out: int, loud: bool) -> None:
    tally = AnswerTally()
    tally.add(Prediction(Status.OK, boxes_read=100, boxes_out_of_range=out), Score({}, 0.0), 0, 0)
    assert any("left the declared coordinate range" in note for note in tally.stats().notes) is loud
    assert tally.stats().out_of_range_share == out / 100


def test_means_do_not_depend_on_the_order_of_completions() -> None:
    values = [1 / 3, 1e-9, 0.1, 0.7, 2.9999] * 200
    one, other = AnswerTally(), AnswerTally()
    for first, second in zip(values, reversed(values), strict=True):
        one.add(Prediction(Status.OK), Score({"iou": first}, first), 0, 0)
        other.add(Prediction(Status.OK), Score({"iou": second}, second), 0, 0)
    assert one.stats() == other.stats()


def test_nothing_counted_has_no_mean() -> None:
    assert AnswerTally().stats().reward is None
