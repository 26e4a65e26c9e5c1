"""The companions of AP, by hand and against the AP metric itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from vrft_bench.tasks.base import (
    NO_PREDICTION,
    BoxTarget,
    Dataset,
    Detection,
    ImageRef,
    Prediction,
    Sample,
    Status,
)
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.diagnosis import DiagnosisMetric
from vrft_bench.tasks.metrics.error_breakdown import ERRORS

A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0)
CLOSE_A = (0.0, 0.0, 10.0, 6.0)
"""IoU .6 with A: right at .50, .55 and .60 only."""
DATASET = Dataset("val", ("cat", "dog"), lambda: iter(()), rules="coco")
MALFORMED = Prediction(Status.MALFORMED)


def _sample(image: int, category: str, *truths: Box, **target: Any) -> Sample:
    fields = {"image_id": str(image), "category": category}
    return Sample(f"{image}/{category}", ImageRef(640, 480), fields, BoxTarget(truths, **target))


def _said(*items: tuple[Box, float | None]) -> Prediction:
    return Prediction(Status.OK, detections=tuple(Detection(*item) for item in items))


def _figures(*answers: tuple[Sample, Prediction], dataset: Dataset = DATASET) -> dict[str, float | None]:
    metric = DiagnosisMetric(dataset)
    for sample, prediction in answers:
        metric.update(sample, prediction)
    return {name: figure.value for name, figure in metric.compute().figures.items()}


def test_perfect_answers_lose_nothing():
    figures = _figures((_sample(1, "cat", A, B), _said((A, 1.0), (B, 1.0))), (_sample(1, "dog", C), _said((C, 0.5))))
    assert {name: figures[name] for name in ("olrp", "olrp_loc", "olrp_fp", "olrp_fn", "lrp", "count_error")} == {
        "olrp": 0.0, "olrp_loc": 0.0, "olrp_fp": 0.0, "olrp_fn": 0.0, "lrp": 0.0, "count_error": 0.0,
    }  # fmt: skip
    assert all(figures[f"lost_{kind}"] == 0.0 for kind in ERRORS)
    ones = ("ap50", "ap_boxes_right", "ap_labels_right", "ap_self_reported", "ap_constant", "ap_order")
    assert [figures[name] for name in ones] == [pytest.approx(1.0)] * 6
    assert figures["count_error_absent"] is None
    assert "ap_agreement" not in figures


@pytest.mark.parametrize(
    "options", [{}, {"crowds": True, "confidences": 0}, {"lvis": True}, {"many": 400, "lvis": True}]
)
def test_ap_as_stated_is_that_of_the_ap_metric(random_world: Callable[..., Any], options: dict[str, Any]):
    """Also with ties across images, incomplete truth, more than 300 boxes on an image and no stated confidence."""
    for seed in range(4):
        world = random_world(seed, **options)
        metric = DiagnosisMetric(world.dataset())
        for sample, prediction in world.pairs():
            metric.update(sample, prediction)
        figures, expected = metric.compute().figures, world.metric().compute().figures
        assert figures["ap_self_reported"].value == pytest.approx(expected["ap"].value, abs=1e-12)
        assert figures["ap50"].value == pytest.approx(expected["ap50"].value, abs=1e-12)


def test_counting_errors_by_hand():
    figures = _figures(
        (_sample(1, "cat", A, B), _said((A, 1.0))),  # 1 too few
        (_sample(2, "cat", A), _said((A, 1.0), (B, 1.0), (C, 1.0), (C, 0.1))),  # 3 too many
        (_sample(3, "cat", A), MALFORMED),  # 1 too few
        (_sample(1, "dog"), _said((A, 1.0))),  # 1 too many where there is none
        (_sample(2, "dog"), _said()),  # right
        (_sample(3, "dog", A, crowd=(B,)), _said()),  # incomplete truth: left out
        (_sample(4, "dog", A, exhaustive=False), _said()),  # left out
    )
    assert figures["count_error"] == pytest.approx((1 + 3 + 1) / 3)
    assert figures["count_error_absent"] == pytest.approx((1 + 0) / 2)


def test_what_unparsable_and_unanswered_questions_cost():
    """Two of four truths have an answer, one of these is right; a malformed answer and one that never came."""
    answers = [
        (_sample(1, "cat", A), _said((A, 0.9))),
        (_sample(2, "cat", A), _said((C, 0.5))),
        (_sample(3, "cat", A), MALFORMED),
        (_sample(4, "cat", A), NO_PREDICTION),
    ]
    figures = _figures(*answers)
    # Precision is 1 up to recall 1/4: 26 of 101 levels. Without one question 1/3: 34 levels.
    assert figures["ap_self_reported"] == pytest.approx(26 / 101)
    assert figures["ap_lost_unparsable"] == pytest.approx((34 - 26) / 101)
    assert figures["ap_lost_unanswered"] == pytest.approx((34 - 26) / 101)
    assert _figures(*answers[:2])["ap_lost_unparsable"] == 0.0
    # One of the two kinds alone: 26 of 101 levels against 51 without both, or 34 without one.
    malformed = _figures(*answers[:3], (_sample(4, "cat", A), MALFORMED))
    assert malformed["ap_lost_unparsable"] == pytest.approx((51 - 26) / 101)
    assert malformed["ap_lost_unanswered"] == 0.0
    never = _figures(*answers[:2], (_sample(3, "cat", A), NO_PREDICTION), answers[3])
    assert never["ap_lost_unparsable"] == 0.0
    assert never["ap_lost_unanswered"] == pytest.approx((51 - 26) / 101)


def test_with_boxes_right_only_count_and_confidence_are_left_to_lose():
    figures = _figures((_sample(1, "cat", A, B), _said((C, 0.2), (CLOSE_A, 0.9), ((1.0, 1.0, 2.0, 2.0), 0.1))))
    # Two truths and three boxes: the two most confident are put on truth.
    assert figures["ap_boxes_right"] == pytest.approx(1.0)
    assert figures["ap_self_reported"] == pytest.approx(3 / 10 * 51 / 101)
    too_few = _figures((_sample(1, "cat", A, B), _said((C, 0.2))))
    assert too_few["ap_boxes_right"] == pytest.approx(51 / 101)


def test_with_labels_right_a_box_under_a_wrong_name_finds_its_object():
    """A dog is called a cat, at IoU .6, and with more confidence than the true cat."""
    figures = _figures((_sample(1, "cat", B), _said((CLOSE_A, 0.9), (B, 0.5))), (_sample(1, "dog", A), _said()))
    # As it is, precision of the cat is 1/2 everywhere and no dog is found.
    assert figures["ap_self_reported"] == pytest.approx((0.5 + 0.0) / 2)
    assert figures["ap_labels_right"] == pytest.approx((1.0 + 3 / 10) / 2)
    assert figures["lost_classification"] == pytest.approx((1.0 + 1.0) / 2 - (0.5 + 0.0) / 2)
    assert figures["lost_missed"] == 0.0


def test_a_box_given_under_both_names_is_a_duplicate_once_labels_are_right():
    figures = _figures((_sample(1, "cat"), _said((A, 0.9))), (_sample(1, "dog", A), _said((A, 0.5))))
    assert figures["ap_self_reported"] == pytest.approx(1.0)
    # Both are dogs now, and the more confident one claims the object: the order costs nothing here.
    assert figures["ap_labels_right"] == pytest.approx(1.0)
    assert figures["lost_classification"] == 0.0


def test_a_category_of_which_everything_is_missed_leaves_the_mean_once_that_is_mended():
    figures = _figures((_sample(1, "cat", A), _said((A, 1.0))), (_sample(1, "dog", B), _said()))
    assert figures["ap50"] == pytest.approx(0.5)
    assert figures["lost_missed"] == pytest.approx(1.0 - 0.5)


def test_policies_by_hand():
    """The wrong box comes first and is stated surer in one image, later and less sure in the other."""
    answers = [
        (_sample(1, "cat", A), _said((A, 0.6), (C, 0.1))),
        (_sample(2, "cat", A), _said((C, 0.9), (A, 0.7))),
    ]
    figures = _figures(*answers)
    # Rankings, right boxes as 1. Self-reported: .9 0, .7 1, .6 1, .1 0. Order: 1 (image 1), 0, 0, 1 (image 2).
    # Constant, by image: 1 0 0 1.
    assert figures["ap_self_reported"] == pytest.approx(2 / 3)
    assert figures["ap_order"] == pytest.approx((51 * 1 + 50 * 2 / 4) / 101)
    assert figures["ap_constant"] == pytest.approx((51 * 1 + 50 * 2 / 4) / 101)


def test_agreement_over_three_answers():
    """All three find the object in image 1; one gives a false box in image 2 with full confidence."""
    metric = DiagnosisMetric(DATASET)
    for n in range(3):
        metric.update(_sample(1, "cat", A), _said((A, 0.5)), n)
        metric.update(_sample(2, "cat"), _said((C, 1.0)) if n == 1 else _said(), n)
    figures = metric.compute().figures
    assert figures["ap_agreement"].value == pytest.approx(1.0)
    assert figures["ap_self_reported"].value == pytest.approx((1.0 + 0.5 + 1.0) / 3)


def test_figures_are_means_over_completion_indices():
    metric = DiagnosisMetric(DATASET)
    metric.update(_sample(1, "cat", A, B), _said((A, 1.0), (B, 1.0)), 0)
    metric.update(_sample(1, "cat", A, B), _said((A, 1.0)), 1)
    report = metric.compute()
    assert report.figures["olrp"].value == pytest.approx((0.0 + 0.5) / 2)
    assert report.figures["count_error"].value == pytest.approx((0 + 1) / 2)
    assert report.by_category["cat"]["missed_boxes"] == 1


def test_olrp_and_lrp_of_a_run_by_hand():
    figures = _figures(
        (_sample(1, "cat", A), _said((CLOSE_A, 0.9), (C, 0.2))),
        (_sample(2, "cat", A), _said()),
    )
    # Keeping .9 alone: (.4 / .5 + 0 + 1) / 2; all: (.4 / .5 + 1 + 1) / 3.
    assert figures["olrp"] == pytest.approx(1.8 / 2)
    assert figures["lrp"] == pytest.approx(2.8 / 3)
    assert figures["olrp_loc"] == pytest.approx(0.4)
    assert figures["olrp_fp"] == 0.0
    assert figures["olrp_fn"] == 0.5


def test_the_report_does_not_depend_on_the_order_of_updates_and_is_json(random_world: Callable[..., Any]):
    world = random_world(3, lvis=True, crowds=True)
    pairs = [(sample, prediction, n) for sample, prediction in world.pairs() for n in range(2)]
    reports = []
    for seed in range(3):
        metric = DiagnosisMetric(world.dataset())
        for place in np.random.default_rng(seed).permutation(len(pairs)):
            metric.update(*pairs[place])
        reports.append(metric.compute())
    assert reports[0] == reports[1] == reports[2]
    json.dumps(reports[0].to_json(), allow_nan=False)
    assert reports[0].headline in reports[0].figures


def test_images_named_by_text_are_kept_apart():
    samples = [_sample(number, "cat", A) for number in range(2)]
    named = [Sample(s.id, s.image, {**s.fields, "image_id": f"img-{i}"}, s.target) for i, s in enumerate(samples)]
    figures = _figures((named[0], _said((A, 1.0))), (named[1], _said((C, 0.5))))
    assert figures["ap50"] == pytest.approx(51 / 101)


def test_nothing_counted_has_no_value():
    metric = DiagnosisMetric(DATASET)
    assert {figure.value for figure in metric.compute().figures.values()} == {None}
    metric.update(_sample(1, "cat"), _said())
    assert metric.compute().figures["count_error_absent"].value == 0.0


def test_agreement_counts_the_answers_that_give_no_box():
    """Of three answers about an image without a cat, one gives a box: it scores 1/3, below what two of three agree on.

    It would score 1, and cost half of the precision, if only answers with a box were counted.
    """
    metric = DiagnosisMetric(DATASET)
    for n in range(3):
        metric.update(_sample(1, "cat"), _said(*[(B, 1.0)][: n == 0]), n)
        metric.update(_sample(2, "cat", A), _said(*[(A, 0.5)][: n < 2]), n)
    # Each of the first two runs finds all, above the false box; the third finds nothing.
    assert metric.compute().figures["ap_agreement"].value == pytest.approx(2 / 3)
    assert metric.compute().figures["ap_self_reported"].value == pytest.approx((1 / 2 + 1) / 3)
