"""Grounding IoU of the first box."""

from __future__ import annotations

import pytest

from vrft_bench.tasks.base import (
    NO_PREDICTION,
    BoxTarget,
    Dataset,
    Detection,
    ImageRef,
    MaskTarget,
    Prediction,
    Sample,
    Status,
)
from vrft_bench.tasks.metrics.grounding import GroundingMetric

DATASET = Dataset("val", (), lambda: iter(()))
SQUARE = (0.0, 0.0, 10.0, 10.0)


def _sample(name: str, target=None) -> Sample:
    return Sample(name, ImageRef(20, 20), {"instruction": "the square"}, target or MaskTarget(SQUARE, ()))


def _boxes(*boxes) -> Prediction:
    return Prediction(Status.OK, detections=tuple(Detection(box, None) for box in boxes))


def test_only_the_first_box_counts_and_no_box_is_0():
    metric = GroundingMetric(DATASET)
    metric.update(_sample("a"), _boxes((0.0, 0.0, 10.0, 5.0), SQUARE))
    metric.update(_sample("b"), _boxes((0.0, 0.0, 10.0, 4.0)))
    metric.update(_sample("c", BoxTarget((SQUARE,))), _boxes(SQUARE))
    metric.update(_sample("d"), NO_PREDICTION)
    report = metric.compute()
    assert report.headline == "miou"
    assert report.figures["miou"].value == pytest.approx((0.5 + 0.4 + 1.0 + 0.0) / 4)
    assert report.figures["acc50"].value == pytest.approx(2 / 4)
    assert 0.0 <= report.figures["miou"].low < report.figures["miou"].value < report.figures["miou"].high <= 1.0


def test_the_report_does_not_depend_on_the_order_of_updates():
    answers = [(f"{number}", _boxes((0.0, 0.0, 10.0, 10.0 - number / 3))) for number in range(20)]
    reports = []
    for order in (answers, answers[::-1]):
        metric = GroundingMetric(DATASET)
        for name, prediction in order:
            metric.update(_sample(name), prediction)
        reports.append(metric.compute())
    assert reports[0] == reports[1]


def test_several_answers_to_one_sample_are_one_cluster_and_give_no_interval():
    metric = GroundingMetric(DATASET)
    for n in range(5):
        metric.update(_sample("a"), _boxes(SQUARE), n)
    figure = metric.compute().figures["miou"]
    assert (figure.value, figure.low, figure.high) == (1.0, None, None)


def test_nothing_counted_has_no_value():
    assert GroundingMetric(DATASET).compute().figures["miou"].value is None
