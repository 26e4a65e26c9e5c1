"""Accuracy counts what its rule says, per class and overall."""

from __future__ import annotations

import pytest

from vrft_bench.tasks.base import NO_PREDICTION, ClassTarget, Dataset, ImageRef, Prediction, Sample, Status
from vrft_bench.tasks.metrics.accuracy import AccuracyMetric
from vrft_bench.tasks.metrics.statistics import wilson_interval

DATASET = Dataset("val", ("cat", "dog", "owl"), lambda: iter(()))


def _exact(prediction: Prediction, target: ClassTarget) -> float:
    return float(prediction.label == target.label)


def _sample(number: int, label: str) -> Sample:
    return Sample(str(number), ImageRef(8, 8), {}, ClassTarget(label))


def test_accuracy_overall_and_per_class_with_wilson_intervals():
    metric = AccuracyMetric(DATASET, _exact)
    for number, (label, said) in enumerate([("cat", "cat"), ("cat", "dog"), ("dog", "dog"), ("dog", "dog")]):
        metric.update(_sample(number, label), Prediction(Status.OK, label=said))
    metric.update(_sample(4, "cat"), NO_PREDICTION)
    report = metric.compute()
    assert report.headline == "accuracy"
    figure = report.figures["accuracy"]
    assert figure.value == pytest.approx(3 / 5)
    assert (figure.low, figure.high) == wilson_interval(3 / 5, 5)
    assert list(report.by_category) == ["cat", "dog"]
    assert report.by_category["cat"]["n"] == 3
    assert report.by_category["cat"]["accuracy"].value == pytest.approx(1 / 3)
    assert report.by_category["dog"]["accuracy"].value == 1.0


def test_asking_again_does_not_narrow_the_interval():
    metric = AccuracyMetric(DATASET, _exact)
    for n in range(10):
        for number in range(4):
            metric.update(_sample(number, "cat"), Prediction(Status.OK, label="cat" if number % 2 else "dog"), n)
    figure = metric.compute().figures["accuracy"]
    assert (figure.value, figure.low, figure.high) == (0.5, *wilson_interval(0.5, 4))


def test_partial_credit_sums_to_the_same_in_any_order():
    values = [0.1] * 7 + [0.3] * 5 + [0.7]
    reports = []
    for order in (values, values[::-1]):
        metric = AccuracyMetric(DATASET, lambda prediction, _: float(prediction.label))
        for number, value in enumerate(order):
            metric.update(_sample(number, "cat"), Prediction(Status.OK, label=str(value)))
        reports.append(metric.compute())
    assert reports[0] == reports[1]
    assert reports[0].figures["accuracy"].value == pytest.approx(2.9 / 13)


def test_nothing_counted_has_no_accuracy():
    assert AccuracyMetric(DATASET, _exact).compute().figures["accuracy"].value is None
