"""The detection report: what is counted, what the figures mean, and that nothing depends on the order of updates."""

from __future__ import annotations

import random

import numpy as np
import pytest

from vrft_bench.tasks.base import NO_PREDICTION, BoxTarget, Dataset, Detection, ImageRef, Prediction, Sample, Status
from vrft_bench.tasks.metrics.average_precision import PrecisionRecall
from vrft_bench.tasks.metrics.detection import DetectionMetric

SQUARE = (0.0, 0.0, 100.0, 100.0)
AWAY = (200.0, 200.0, 300.0, 300.0)


def _dataset(*categories: str, **options) -> Dataset:
    return Dataset("val", categories, lambda: iter(()), **options)


def _sample(image: str, category: str, *boxes, **options) -> Sample:
    fields = {"image_id": image, "category": category}
    return Sample(f"{image}/{category}", ImageRef(640, 480), fields, BoxTarget(boxes, **options))


def _answer(*found) -> Prediction:
    return Prediction(Status.OK, detections=tuple(Detection(*item) for item in found))


def test_perfect_answers_score_1_and_missing_ones_0():
    metric = DetectionMetric(_dataset("cat", "dog"))
    metric.update(_sample("1", "cat", SQUARE), _answer((SQUARE, 0.9)))
    metric.update(_sample("1", "dog", SQUARE), NO_PREDICTION)
    report = metric.compute()
    assert report.headline == "ap"
    assert report.figures["ap"].value == pytest.approx(0.5)
    assert report.by_category["cat"]["ap"].value == pytest.approx(1.0)
    assert report.by_category["dog"]["ap"].value == 0.0
    assert report.by_category["dog"]["recall"].value == 0.0
    assert report.by_category["dog"]["precision"].value is None


def test_a_category_without_truth_has_no_ap_and_is_named():
    metric = DetectionMetric(_dataset("cat", "unicorn"))
    metric.update(_sample("1", "cat", SQUARE), _answer((SQUARE, None)))
    metric.update(_sample("1", "unicorn"), _answer((SQUARE, None)))
    report = metric.compute()
    assert report.figures["ap"].value == pytest.approx(1.0)
    assert report.by_category["unicorn"]["ap"].value is None
    assert "no truth for unicorn: left out of all means" in report.notes
    assert "100.0% of the boxes state no confidence and count as confidence 1" in report.notes
    assert report.figures["boxes_without_confidence"].value == 1.0


def test_nothing_counted_gives_a_report_without_values():
    report = DetectionMetric(_dataset("cat")).compute()
    assert report.figures["ap"].value is None
    assert report.by_category["cat"]["truths"] == 0


def test_precision_recall_and_f1_need_no_confidence():
    metric = DetectionMetric(_dataset("cat"))
    metric.update(
        _sample("1", "cat", SQUARE, AWAY), _answer((SQUARE, None), (SQUARE, 0.3), ((0.0, 0.0, 5.0, 5.0), 0.9))
    )
    metric.update(_sample("2", "cat", SQUARE), _answer((SQUARE, 0.1)))
    figures = metric.compute().figures
    assert figures["precision"].value == pytest.approx(2 / 4)
    assert figures["recall"].value == pytest.approx(2 / 3)
    assert figures["f1"].value == pytest.approx(4 / 7)


def test_equal_scores_are_ranked_by_image_id_as_a_number():
    """Image 9 comes before image 10, so its wrong box is ranked first."""
    metric = DetectionMetric(_dataset("cat"))
    metric.update(_sample("10", "cat", SQUARE), _answer((SQUARE, 0.5)))
    metric.update(_sample("9", "cat"), _answer((AWAY, 0.5)))
    figures = metric.compute().figures
    assert figures["ap"].value == pytest.approx(0.5)
    assert (figures["ap_tie_min"].value, figures["ap_tie_max"].value) == pytest.approx((0.5, 1.0))
    assert 0.6 < figures["ap_tie_mean"].value < 0.9


@pytest.mark.parametrize(("right", "wrong", "ap"), [("b10", "b9", 1.0), ("0010", "9", 0.5), ("7", "x", 1.0)])
def test_ids_that_are_not_all_numbers_are_ranked_as_text(right, wrong, ap):
    metric = DetectionMetric(_dataset("cat"))
    metric.update(_sample(wrong, "cat"), _answer((AWAY, 0.5)))
    metric.update(_sample(right, "cat", SQUARE), _answer((SQUARE, 0.5)))
    assert metric.compute().figures["ap"].value == pytest.approx(ap)


@pytest.mark.parametrize("lvis", [False, True])
def test_the_report_does_not_depend_on_the_order_of_updates(lvis, random_world):
    world = random_world(5, lvis=lvis, crowds=not lvis, confidences=2)
    pairs = list(world.pairs())
    random.Random(0).shuffle(pairs)
    shuffled = DetectionMetric(world.dataset())
    for sample, prediction in pairs:
        shuffled.update(sample, prediction)
    assert shuffled.compute() == world.metric().compute()


def test_groups_are_means_over_their_categories(random_world):
    world = random_world(2)
    report = world.metric(groups={"base": world.categories[:2], "novel": (*world.categories[2:], "absent")}).compute()
    ap = [report.by_category[name]["ap"].value for name in world.categories]
    assert report.figures["ap_base"].value == pytest.approx((ap[0] + ap[1]) / 2)
    assert report.figures["ap_novel"].value == pytest.approx(ap[2])
    assert report.figures["ap_novel"].low < report.figures["ap_novel"].value < report.figures["ap_novel"].high


def test_several_completions_are_runs_of_their_own(random_world):
    one, two = random_world(1), random_world(1)
    two.answers = {key: found[:1] for key, found in one.answers.items()}
    both = DetectionMetric(one.dataset())
    for n, world in enumerate((one, two)):
        for sample, prediction in world.pairs():
            both.update(sample, prediction, n)
    reports = [world.metric().compute() for world in (one, two)]
    assert reports[0].figures["ap"].value != reports[1].figures["ap"].value
    for name in ("ap", "ap50", "ar", "recall", "ap_medium"):
        expected = np.mean([report.figures[name].value for report in reports])
        assert both.compute().figures[name].value == pytest.approx(expected)


def test_weights_give_the_ap_of_the_resampled_data(random_world):
    """An image that is drawn k times is k images with the same answers."""
    world = random_world(4, grid=None, confidences=10**6, crowds=True)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(world.images), len(world.images))
    copies = DetectionMetric(world.dataset())
    for copy, index in enumerate(drawn.tolist()):
        for sample, prediction in world.pairs():
            if sample.fields["image_id"] == str(world.images[index]):
                fields = {**sample.fields, "image_id": str(copy)}
                copies.update(Sample(f"{copy}", sample.image, fields, sample.target), prediction)
    expected = [row["ap"].value for row in copies.compute().by_category.values()]

    metric = world.metric()
    outcomes = metric._tables[0].ranked(np.array(world.images))
    curves = PrecisionRecall(outcomes, len(world.categories), len(world.images))
    weights = np.bincount(drawn, minlength=len(world.images)).astype(float)
    ap = curves.average_precision(weights).mean(axis=0)
    assert ap[:-1] == pytest.approx(np.array(expected[:-1]), abs=1e-9)
    assert np.isnan(ap[-1])
    assert expected[-1] is None


def test_the_interval_of_ap_covers_the_ap_of_the_population(random_world):
    population = random_world(0, images=400, grid=None, confidences=1000)
    truth = population.metric().compute().figures["ap"].value
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(20):
        chosen = set(rng.choice(population.images, 60, replace=False).tolist())
        metric = DetectionMetric(population.dataset(), seed=seed)
        for sample, prediction in population.pairs():
            if int(sample.fields["image_id"]) in chosen:
                metric.update(sample, prediction)
        figure = metric.compute().figures["ap"]
        covered += figure.low <= truth <= figure.high
    assert covered >= 16
