"""LISA's reward without bounds, and the mean IoU of the grounding script."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from PIL import Image

from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import NO_PREDICTION, Dataset, DataSpec, ImageRef, MaskTarget, Sample
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.paper.metrics import PaperGroundingMetric, normalised_iou
from vrft_bench.tasks.paper.parsing import parse_region
from vrft_bench.tasks.paper.rewards import FORMAT, GIOU, region_solution

TRUTH = (100.0, 100.0, 400.0, 400.0)
BOX = MaskTarget(TRUTH, ((100.0, 100.0, 400.0, 100.0, 400.0, 400.0),))


def test_the_solution_is_built_as_in_training(say) -> None:
    assert region_solution(BOX, say.frame) == "<answer> (100,100),(400,400) </answer>"


def test_the_truth_is_the_first_shape_only(say, tmp_path: Path) -> None:
    """The reference takes the first of the shapes and looks at no label."""
    Image.new("RGB", (1000, 1000)).save(tmp_path / "a.png")
    shapes = [
        {"label": "ignore", "points": [[0, 0], [10, 0], [10, 20]]},
        {"label": "target", "points": [[800, 800], [900, 800], [900, 900]]},
    ]
    (tmp_path / "a.json").write_text(json.dumps({"text": "the spot", "shapes": shapes}))
    (paper,) = get_task("grounding", "paper").load(DataSpec(images=tmp_path)).samples()
    assert region_solution(paper.target, say.frame) == "<answer> (0,0),(10,20) </answer>"
    (strict,) = get_task("grounding").load(DataSpec(images=tmp_path)).samples()
    assert strict.target.box == (800.0, 800.0, 900.0, 900.0)


def test_equal_texts_earn_2_and_an_equal_box_in_other_words_too(say) -> None:
    assert say.worth_as_region(GIOU, say.answer("(100,100),(400,400)")) == 2.0
    assert say.worth_as_region(GIOU, say.answer("the box is (100, 100), (400, 400)")) == 2.0
    assert say.worth_as_region(GIOU, "<answer>\n(100,100),(400,400)\n</answer>") == 2.0  # DOTALL on the completion
    assert say.worth_as_region(GIOU, "(100,100),(400,400)") == 2.0  # no tags: the whole text


def test_what_cannot_be_read_earns_0_and_a_disjoint_box_more(say) -> None:
    for content in ("", "I do not know", "[100,100,400,400]", "(100.0,100),(400,400)", "(1,2)"):
        assert say.worth_as_region(GIOU, say.answer(content)) == 0.0
    assert say.worth_as_region(GIOU, say.answer("(500,500),(600,600)")) == pytest.approx(1 - (0.25 - 0.1) / 0.25)


def test_a_double_reversed_box_earns_1_plus_the_reciprocal_of_the_truths_area(say) -> None:
    assert say.worth_as_region(GIOU, say.answer("(1000,1000),(0,0)")) == pytest.approx(1 + 1 / 0.09)
    assert round(say.worth_as_region(GIOU, say.answer("(1000,1000),(0,0)")), 1) == 12.1


def test_far_away_corners_earn_a_hundred_thousand(say) -> None:
    assert round(say.worth_as_region(GIOU, say.answer("(99999,99999),(0,0)")), 1) == 111_109.9


def test_a_box_reversed_on_one_axis_goes_negative(say) -> None:
    found = [say.worth_as_region(GIOU, say.answer(f"({x},100),(100,400)")) for x in (400, 700, 1000, 1300)]
    assert found == pytest.approx([0.0, -1.0, -2.0, -3.0])


def test_of_two_boxes_the_two_top_left_corners_count_as_one(say) -> None:
    """The box from (100,100) to (300,300) has IoU 4/9 with the truth."""
    text = say.answer("(100,100),(400,400),(300,300),(900,900)")
    assert round(say.worth_as_region(GIOU, text), 2) == 1.44


def test_a_reward_that_is_not_finite_is_0_in_training(say) -> None:
    huge = "9" * 200
    for content in (f"({huge},{huge}),(0,0)", f"(0,0),({huge},{huge})"):
        raw = say.worth_as_region(GIOU, say.answer(content))
        trained = GIOU(parse_region(say.answer(content), say.frame), BOX)
        assert trained == (raw if math.isfinite(raw) else 0.0)
    assert not math.isfinite(say.worth_as_region(GIOU, say.answer(f"({huge},{huge}),(0,0)")))
    assert (-GIOU.low, GIOU.high) == (sys.float_info.max, sys.float_info.max)
    assert GIOU(NO_PREDICTION, BOX) == FORMAT(NO_PREDICTION, BOX) == 0.0


def test_the_mean_iou_adds_1e_6_to_the_union_and_counts_what_is_missing(say) -> None:
    sample = Sample("1", ImageRef(1000, 1000), {"instruction": "x"}, BOX)
    perfect = parse_region("(100,100),(400,400)", say.frame)
    assert normalised_iou(sample, perfect.detections[0]) == pytest.approx(0.09 / (0.09 + 1e-6))
    off = parse_region("(100,100),(400,250)", say.frame)
    assert normalised_iou(sample, off.detections[0]) == pytest.approx(0.5, abs=1e-5)
    assert normalised_iou(sample, off.detections[0]) == pytest.approx(iou(off.detections[0].box, TRUTH), abs=1e-5)
    for reversed_box in ("(400,100),(100,400)", "(400,400),(100,100)", "(999999,999999),(0,0)"):
        assert normalised_iou(sample, parse_region(reversed_box, say.frame).detections[0]) == 0.0

    metric = PaperGroundingMetric(Dataset("val", (), lambda: iter(())))
    metric.update(sample, perfect)
    metric.update(Sample("2", ImageRef(1000, 1000), {"instruction": "x"}, BOX), NO_PREDICTION)
    report = metric.compute()
    assert report.headline == "miou"
    assert report.figures["miou"].value == pytest.approx(0.09 / (0.09 + 1e-6) / 2)
