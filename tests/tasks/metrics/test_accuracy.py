"""Accuracy counts what its rule says, per class and overall."""

from __future__ import annotations

import numpy as np
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
    assert {figure.value for figure in AccuracyMetric(DATASET, _exact).compute().figures.values()} == {None}


def test_balanced_accuracy_weighs_every_class_alike():
    """A model that always says cat: right in 9 of 10 cases, and in one class of two."""
    metric = AccuracyMetric(Dataset("val", ("cat", "dog"), lambda: iter(())), _exact)
    for number in range(10):
        metric.update(_sample(number, "cat" if number else "dog"), Prediction(Status.OK, label="cat"))
    figures = metric.compute().figures
    assert figures["accuracy"].value == pytest.approx(0.9)
    balanced = figures["balanced_accuracy"]
    assert balanced.value == pytest.approx((1.0 + 0.0) / 2)
    (cat_low, _), (_, dog_high) = wilson_interval(1.0, 9), wilson_interval(0.0, 1)
    assert balanced.low == pytest.approx(0.5 - (1.0 - cat_low) / 2)
    assert balanced.high == pytest.approx(0.5 + dog_high / 2)


def test_the_balanced_interval_holds_the_truth_about_as_often_as_it_says():
    """Three classes of 12, 20 and 40 questions with their own chances of a right answer."""
    rng = np.random.default_rng(0)
    chances = {"cat": (12, 0.9), "dog": (20, 0.5), "owl": (40, 0.7)}
    expected = np.mean([chance for _, chance in chances.values()])
    held = 0
    for _ in range(400):
        metric = AccuracyMetric(DATASET, _exact)
        for label, (count, chance) in chances.items():
            for number, right in enumerate(rng.random(count) < chance):
                metric.update(_sample(number, label), Prediction(Status.OK, label=label if right else "?"))
        figure = metric.compute().figures["balanced_accuracy"]
        held += figure.low <= expected <= figure.high
    assert 0.92 <= held / 400 <= 0.99


@pytest.mark.parametrize(("right", "centred"), [(3, 0.0), (9, 1.0), (0, -0.5), (6, 0.5)])
def test_chance_is_zero_and_perfection_one(right: int, centred: float):
    metric = AccuracyMetric(DATASET, _exact)
    for number in range(9):
        metric.update(_sample(number, "cat"), Prediction(Status.OK, label="cat" if number < right else "dog"))
    figures = metric.compute().figures
    figure = figures["chance_centred_accuracy"]
    assert figure.value == pytest.approx(centred)
    low, high = ((end - 1 / 3) / (1 - 1 / 3) for end in wilson_interval(right / 9, 9))
    assert (figure.low, figure.high) == (pytest.approx(low), pytest.approx(high))


def test_with_one_class_there_is_no_chance_to_centre_on():
    metric = AccuracyMetric(Dataset("val", ("cat",), lambda: iter(())), _exact)
    metric.update(_sample(0, "cat"), Prediction(Status.OK, label="cat"))
    assert metric.compute().figures["chance_centred_accuracy"].value is None
