"""What is right and wrong about an answer, and what a report's charts count."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.harness.diagnose import diagnose_run
from vrft_bench.leaderboards.report.charts import Charts, charts_of, precision_at_levels, score_range
from vrft_bench.leaderboards.report.joined import JoinedRun, join_run
from vrft_bench.leaderboards.report.verdicts import judge_run
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.tasks.base import BoxTarget
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.metrics.error_breakdown import ERRORS

MakeRun = Callable[..., RunRow]


def charts(row: RunRow) -> tuple[JoinedRun, Charts]:
    run = join_run(row)
    return run, charts_of(run, judge_run(run), score_range([run]))


def test_gold_answers_are_all_right_and_have_no_mistakes(make_run: MakeRun) -> None:
    for task in ("lvis_fewshot", "flower102_fewshot", "lisa_grounding"):
        run, drawn = charts(make_run(task, "mock/gold", "-L", "60"))
        assert all(verdict.right for verdict in judge_run(run).values())
        assert drawn.errors == {}


def test_the_mistakes_are_those_that_diagnose_counts(detection: tuple[RunRow, RunRow]) -> None:
    for row in detection:
        _, drawn = charts(row)
        report = diagnose_run(row.folder)
        assert sum(drawn.errors.values()) > 20
        for kind in ERRORS:
            by_category = (figures[f"{kind}_boxes"] for figures in report.by_category.values())
            assert drawn.errors.get(kind, 0) == sum(int(str(count)) for count in by_category)


def test_the_precision_recall_curves_have_the_ap50_of_the_run(detection: tuple[RunRow, RunRow]) -> None:
    for row in detection:
        assert row.report is not None
        _, drawn = charts(row)
        for name, curve in drawn.precision_recall.items():
            stored = row.report.by_category[name]["ap50"]
            assert np.mean(curve) == pytest.approx(stored.value, abs=1e-4)  # type: ignore[union-attr]
        assert np.mean(drawn.mean_precision) == pytest.approx(row.report.figures["ap50"].value, abs=1e-4)


def test_boxes_are_right_exactly_where_the_reward_pairs_them(detection: tuple[RunRow, RunRow]) -> None:
    run, _ = charts(detection[0])
    judged = 0
    for (sample_id, _), verdict in judge_run(run).items():
        target = run.samples[sample_id].target
        assert isinstance(target, BoxTarget)
        for found, box in zip(verdict.prediction.detections, verdict.boxes, strict=True):
            best = max((iou(found.box, truth) for truth in target.boxes), default=0.0)
            assert box.iou == pytest.approx(best)
            assert best >= 0.5 or box.kind != "right"
            judged += 1
    assert judged > 30


def test_grounding_and_classification_agree_with_their_metrics(make_run: MakeRun) -> None:
    for task, figure in (("lisa_grounding", "acc50"), ("flower102_fewshot", "accuracy")):
        row = make_run(task, "mock/noisy", "-L", "100")
        run, drawn = charts(row)
        right = [verdict.right for verdict in judge_run(run).values()]
        assert row.report is not None
        assert np.mean(right) == pytest.approx(row.report.figures[figure].value)
        assert sum(drawn.errors.values()) == right.count(False) > 0
        wrong = Counter(verdict.prediction.label for verdict in judge_run(run).values() if verdict.right is False)
        assert bool(drawn.confusions) == (task == "flower102_fewshot")
        assert all(0 < count <= wrong[said] for _, said, count in drawn.confusions)
        assert sum(count for *_, count in drawn.confusions) <= right.count(False)


def test_calibration_bins_hold_every_box_once(detection: tuple[RunRow, RunRow]) -> None:
    run, drawn = charts(detection[1])
    boxes = [box for verdict in judge_run(run).values() for box in verdict.boxes]
    assert sum(item.count for item in drawn.calibration) == len(boxes) == sum(drawn.ious)
    assert all(item.low <= item.right <= item.high for item in drawn.calibration)
    right = sum(item.count * item.right for item in drawn.calibration)
    assert right == pytest.approx(sum(box.kind == "right" for box in boxes))


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(1, 60))
def test_precision_at_levels_is_the_best_at_that_recall_or_beyond(hits: list[bool], extra: int) -> None:
    truths = sum(hits) + extra
    found = precision_at_levels(hits, truths)
    true = np.cumsum(hits)
    for level, value in zip(np.linspace(0, 1, 101), found, strict=True):
        beyond = [true[rank] / (rank + 1) for rank in range(len(hits)) if true[rank] / truths >= level]
        assert value == pytest.approx(max(beyond, default=0.0))


def test_an_unreadable_answer_is_never_right(make_run: MakeRun) -> None:
    row = make_run("lvis_fewshot", "mock/constant:no idea", "-L", "30")
    run, drawn = charts(row)
    verdicts = judge_run(run).values()
    assert {verdict.prediction.status.value for verdict in verdicts} == {"no_answer"}
    assert not any(verdict.right for verdict in verdicts)
    assert drawn.errors["unparsable"] == 30
    assert json.loads(json.dumps(drawn.to_json()))["statuses"] == {"no_answer": 30}
