"""Differences between two runs: their figures against pycocotools, their intervals and tests by simulation."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import ClassTarget, Dataset, ImageRef, Prediction, Sample, Status
from vrft_bench.tasks.metrics.accuracy import AccuracyMetric
from vrft_bench.tasks.metrics.detection import DetectionMetric
from vrft_bench.tasks.metrics.outcomes import COCO_RULES
from vrft_bench.tasks.metrics.paired import (
    FigureKey,
    difference_of_ap,
    difference_of_means,
    jackknife_intervals,
    paired_differences,
)
from vrft_bench.tasks.metrics.paired_figures import PairedAccuracy, PairedDetection, PairedMeans
from vrft_bench.tasks.metrics.significance import clusters_needed, detectable_difference

CLOSE = 1e-9


def _pair(first, second, **options) -> PairedDetection:
    """Two worlds of the same truth, as completions 0 and 1 of one metric."""
    metric = DetectionMetric(first.dataset(), **options)
    for n, world in enumerate((first, second)):
        for sample, prediction in world.pairs():
            metric.update(sample, prediction, n)
    return PairedDetection(metric.counted(), 1)


def _answered_otherwise(world, seed: int):
    """The same truth with other answers: some boxes left out, confidences drawn anew."""
    rng = np.random.default_rng(seed)
    levels = sorted({item.confidence for found in world.answers.values() for item in found}, key=str)
    answers = {
        key: tuple(item._replace(confidence=levels[rng.integers(len(levels))]) for item in found if rng.random() < 0.8)
        for key, found in world.answers.items()
    }
    return replace(world, answers=answers)


def _without_ties_in_answers(world):
    """Confidences that differ within an answer, and still tie between images."""
    answers = {
        key: tuple(item._replace(confidence=1 - place / 8) for place, item in enumerate(found))
        for key, found in world.answers.items()
    }
    return replace(world, answers=answers)


def _resampled(world, weights):
    """Image k as many times as ``weights[k]`` says, with ids that keep the order of the images."""
    times = {image: int(weight) for image, weight in zip(world.images, weights, strict=True)}
    rank = {image: number for number, image in enumerate(world.images)}
    targets, answers = {}, {}
    for (image, category), target in world.targets.items():
        for copy in range(times[image]):
            key = (rank[image] * 1000 + copy + 1, category)
            targets[key], answers[key] = target, world.answers[image, category]
    return replace(world, targets=targets, answers=answers)


def _figures(found, values):
    return dict(zip(found.keys, values, strict=True))


def _assert_equals_pycocotools(figures, evaluation, categories):
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]

    def expect(key: FigureKey, values):
        defined = values[values > -1]
        if not defined.size:
            assert math.isnan(figures[key])
        else:
            assert figures[key] == pytest.approx(float(defined.mean()), abs=CLOSE)

    expect(FigureKey("ap"), precision[:, :, :, 0, -1])
    expect(FigureKey("ap50"), precision[0, :, :, 0, -1])
    expect(FigureKey("ap75"), precision[5, :, :, 0, -1])
    expect(FigureKey("ar"), recall[:, :, 0, -1])
    for number, size in enumerate(("small", "medium", "large"), 1):
        expect(FigureKey("ap", size=size), precision[:, :, :, number, -1])
    for number, name in enumerate(categories):
        expect(FigureKey("ap", name), precision[:, :, number, 0, -1])


WORLDS = {
    "ties between images": {},
    "real coordinates": {"grid": None},
    "crowds": {"crowds": True},
    "few images": {"images": 3},
}


@pytest.mark.parametrize("options", WORLDS.values(), ids=WORLDS.keys())
@pytest.mark.parametrize("seed", range(3))
def test_each_resample_equals_pycocotools_on_the_resampled_images(options, seed, random_world, coco_eval):
    world = _without_ties_in_answers(random_world(seed, **options))
    pair = _pair(world, world)
    rng = np.random.default_rng(seed)
    for _ in range(3):
        drawn = [0, 0, *rng.integers(0, pair.clusters, pair.clusters - 2)]  # the first image at least twice
        weights = np.bincount(drawn, minlength=pair.clusters).astype(float)
        evaluation = coco_eval(_resampled(world, weights))
        for before, after in ((weights, np.zeros_like(weights)), (np.zeros_like(weights), weights)):
            _assert_equals_pycocotools(_figures(pair, pair.at(before, after)), evaluation, world.categories)


@pytest.mark.parametrize("confidences", [0, 2])
def test_each_resample_with_ties_within_answers_equals_pycocotools_in_the_documented_order(
    confidences, random_world, coco_eval
):
    """The copies of a detection follow each other: pycocotools does so where scores say it."""
    world = random_world(1, confidences=confidences)
    nudge = {image: rank for rank, image in enumerate(world.images)}
    untied = {
        (image, category): tuple(
            item._replace(confidence=(item.confidence or 1.0) / 2 - (nudge[image] * 10 + place) * 1e-6)
            for place, item in enumerate(found)
        )
        for (image, category), found in world.answers.items()
    }
    pair = _pair(world, world)
    rng = np.random.default_rng(0)
    for _ in range(4):
        weights = np.bincount(rng.integers(0, pair.clusters, pair.clusters), minlength=pair.clusters).astype(float)
        evaluation = coco_eval(_resampled(replace(world, answers=untied), weights))
        _assert_equals_pycocotools(
            _figures(pair, pair.at(weights, np.zeros_like(weights))), evaluation, world.categories
        )


@pytest.mark.parametrize("options", [{}, {"crowds": True}, {"many": 130, "images": 6}], ids=str)
def test_an_exchange_of_answers_equals_pycocotools_on_the_exchanged_answers(options, random_world, coco_eval):
    first = random_world(5, **options)
    second = _answered_otherwise(first, 6)
    pair = _pair(first, second)
    rng = np.random.default_rng(7)
    for _ in range(4):
        stays = rng.integers(0, 2, pair.clusters).astype(float)
        kept = dict(zip(first.images, stays, strict=True))
        mixed = {key: (first if kept[key[0]] else second).answers[key] for key in first.targets}
        evaluation = coco_eval(replace(first, answers=mixed))
        _assert_equals_pycocotools(_figures(pair, pair.at(stays, 1 - stays)), evaluation, first.categories)


@pytest.mark.parametrize("lvis", [False, True])
@pytest.mark.parametrize("over_areas", [False, True])
def test_at_weights_of_1_the_figures_are_those_of_each_runs_own_report(lvis, over_areas, random_world):
    first = random_world(8, lvis=lvis, many=310)
    second = _answered_otherwise(first, 9)
    groups = {"novel": first.categories[:2]}
    pair = _pair(first, second, groups=groups, over_areas=over_areas)
    every, none = np.ones(pair.clusters), np.zeros(pair.clusters)
    headline = "ap_areas" if over_areas else "ap"
    for world, weights in ((first, (every, none)), (second, (none, every))):
        report = world.metric(groups=groups, over_areas=over_areas).compute()
        figures = _figures(pair, pair.at(*weights))
        overall = {f"{key.figure}_{key.size}" if key.size else key.figure: key for key in figures if not key.category}
        untested = {"ap_tie_min", "ap_tie_mean", "ap_tie_max", "boxes_without_confidence"}
        assert overall.keys() == report.figures.keys() - untested
        for name, key in overall.items():
            expected = report.figures[name].value
            assert figures[key] == pytest.approx(math.nan if expected is None else expected, abs=CLOSE, nan_ok=True)
        for name in world.categories:
            expected = report.by_category[name][headline].value
            own = figures[FigureKey(headline, name)]
            assert own == pytest.approx(math.nan if expected is None else expected, abs=CLOSE, nan_ok=True)


def test_several_completions_are_runs_of_their_own_whose_figures_are_averaged(random_world):
    worlds = [random_world(3)]
    worlds += [_answered_otherwise(worlds[0], seed) for seed in (1, 2)]
    metric = DetectionMetric(worlds[0].dataset())
    for n, world in enumerate(worlds):
        for sample, prediction in world.pairs():
            metric.update(sample, prediction, n)
    pair = PairedDetection(metric.counted(), 1)
    assert not pair.exchangeable
    found = paired_differences(pair, replicates=60)[FigureKey("ap")]
    own = [world.metric().compute().figures["ap"].value for world in worlds]
    assert found.before == pytest.approx(own[0])
    assert found.after == pytest.approx((own[1] + own[2]) / 2)
    assert found.low < found.value < found.high
    assert 0 < found.p_value <= 1


def test_a_run_differs_from_itself_by_nothing(random_world):
    world = random_world(2)
    for found in paired_differences(_pair(world, world), replicates=20).values():
        if not math.isnan(found.value):
            assert (found.low, found.value, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)
            assert not found.is_clear


def test_the_difference_of_ap_is_that_of_all_figures(random_world):
    first = random_world(4, images=30)
    second = _answered_otherwise(first, 5)
    answers = [[(sample, 0, prediction) for sample, prediction in world.pairs()] for world in (first, second)]
    together = paired_differences(_pair(first, second), replicates=50, seed=3)
    for threshold, key in ((None, FigureKey("ap")), (0.5, FigureKey("ap50")), (0.75, FigureKey("ap75"))):
        alone = difference_of_ap(*answers, first.categories, COCO_RULES, threshold=threshold, replicates=50, seed=3)
        ours = together[key]
        assert (alone.before, alone.after) == pytest.approx((ours.before, ours.after), abs=CLOSE)
        assert (alone.low, alone.high) == pytest.approx((ours.low, ours.high), abs=CLOSE)


def test_the_difference_of_means_is_that_of_paired_means():
    rng = np.random.default_rng(0)
    images = [f"{number:03}" for number in range(40)]
    before, after = ({image: rng.normal(0, 1, 2).tolist() for image in images} for _ in range(2))
    figures = PairedMeans()
    for run, values in enumerate((before, after)):
        for image, items in values.items():
            for item in items:
                figures.add(run, image, FigureKey("x"), item)
    alone = difference_of_means(before, after, replicates=300, seed=1)
    together = paired_differences(figures, replicates=300, seed=1)[FigureKey("x")]
    assert (alone.before, alone.after, alone.low, alone.high) == pytest.approx(
        (together.before, together.after, together.low, together.high)
    )


def test_differences_need_the_same_images():
    with pytest.raises(UserError, match="share 1 images, and have 1 and 0 of their own"):
        difference_of_means({"a": [1.0], "b": [0.0]}, {"a": [1.0]})


def test_a_single_image_gives_figures_and_no_interval():
    figures = PairedMeans()
    for run, value in ((0, 0.25), (1, 0.5)):
        figures.add(run, "only", FigureKey("x"), value)
    found = paired_differences(figures)[FigureKey("x")]
    assert (found.before, found.after, found.p_value) == (0.25, 0.5, None)
    assert math.isnan(found.low)
    assert not found.is_clear


def _class_samples():
    labels = ["a", "a", "a", "b", "b", "c"]
    return [Sample(str(i), ImageRef(8, 8), {"options": "a, b, c, d"}, ClassTarget(x)) for i, x in enumerate(labels)]


def test_accuracy_at_weights_of_1_is_that_of_each_runs_own_report():
    right = lambda prediction, target: float(prediction.label == target.label)  # noqa: E731
    dataset = Dataset("val", ("a", "b", "c", "d"), lambda: iter(()))
    samples = _class_samples()
    said = ("abaabc", "aabbbd")
    figures, reports = PairedAccuracy(4), []
    for run, labels in enumerate(said):
        metric = AccuracyMetric(dataset, right)
        for sample, label in zip(samples, labels, strict=True):
            prediction = Prediction(Status.OK, label=label)
            metric.update(sample, prediction)
            figures.add_answer(run, sample.id, sample.target.label, metric.value(sample, prediction))
        reports.append(metric.compute())
    found = paired_differences(figures, replicates=30)
    for name in ("accuracy", "balanced_accuracy", "chance_centred_accuracy"):
        own = found[FigureKey(name)]
        assert (own.before, own.after) == pytest.approx([report.figures[name].value for report in reports])
    for label in "abc":
        own = found[FigureKey("accuracy", label)]
        assert (own.before, own.after) == pytest.approx([r.by_category[label]["accuracy"].value for r in reports])


def test_right_and_wrong_answers_are_tested_by_mcnemar_and_values_by_exchanges():
    figures = PairedMeans()
    rng = np.random.default_rng(0)
    for number in range(60):
        figures.add(0, str(number), FigureKey("right"), float(number >= 3))
        figures.add(1, str(number), FigureKey("right"), float(number < 46))
        for run in (0, 1):
            figures.add(run, str(number), FigureKey("value"), rng.normal(0.4 * run, 0.5))
    found = paired_differences(figures, replicates=999)
    assert found[FigureKey("right")].p_value == pytest.approx(
        2 * sum(math.comb(17, k) for k in range(4)) / 2**17, rel=1e-9
    )
    assert found[FigureKey("value")].p_value <= 0.01
    assert FigureKey("value") not in figures.exact


def test_answers_to_one_image_are_exchanged_together():
    """Two clusters of 50 equal answers say no more than two: no test can be sure of them."""
    figures = PairedMeans()
    for cluster in ("a", "b"):
        for _ in range(50):
            figures.add(0, cluster, FigureKey("right"), 0.0)
            figures.add(1, cluster, FigureKey("right"), 1.0)
    assert paired_differences(figures, replicates=400)[FigureKey("right")].p_value == pytest.approx(0.5, abs=0.1)


def _simulated(rng, images: int, gain: float) -> PairedMeans:
    """Two answers about each image, that share its difficulty; the second run is better by ``gain``."""
    figures = PairedMeans()
    difficulty = rng.normal(0, 1, images)
    for run in (0, 1):
        own = difficulty + rng.normal(run * gain, 0.3, images)
        for image in range(images):
            for value in own[image] + rng.normal(0, 0.2, 2):
                figures.add(run, str(image), FigureKey("x"), value)
    return figures


TRUE_ERROR = math.sqrt(2 * (0.3**2 + 0.2**2 / 2) / 40)
"""Of the difference of means over 40 simulated images."""


def test_coverage_size_and_power_of_a_paired_difference():
    """400 simulated pairs of runs without a difference and 250 with the detectable one, 40 images each."""
    rng = np.random.default_rng(11)
    covered = found = errors = 0
    for number in range(400):
        null = paired_differences(_simulated(rng, 40, 0.0), replicates=199, seed=number)[FigureKey("x")]
        covered += null.low <= 0 <= null.high
        found += null.p_value <= 0.05
        errors += null.standard_error
    assert 0.93 <= covered / 400 <= 0.97
    assert 0.03 <= found / 400 <= 0.07
    assert errors / 400 == pytest.approx(TRUE_ERROR, rel=0.05)
    gain = detectable_difference(TRUE_ERROR)
    seen = [paired_differences(_simulated(rng, 40, gain), replicates=199)[FigureKey("x")] for _ in range(250)]
    assert sum(item.p_value <= 0.05 for item in seen) / 250 == pytest.approx(0.8, abs=0.06)
    assert clusters_needed(40, TRUE_ERROR, gain / 2) == 160


def test_a_jackknife_interval_of_a_mean_is_the_textbook_interval_over_groups():
    values = dict(zip(map(str, range(100)), np.random.default_rng(0).normal(0.3, 1, 100), strict=True))

    def without(left_out):
        kept = [value for name, value in values.items() if name not in left_out]
        return {"mean": float(np.mean(kept)), "odd": None}

    found = jackknife_intervals(list(values), without)
    groups = np.array(list(values.values())).reshape(5, 20).mean(axis=0)
    half = 2.0930241 * groups.std(ddof=1) / math.sqrt(20)
    assert found["mean"].value == pytest.approx(np.mean(list(values.values())))
    assert (found["mean"].low, found["mean"].high) == pytest.approx(
        (found["mean"].value - half, found["mean"].value + half), abs=1e-5
    )
    assert found["odd"].value is None
    assert jackknife_intervals(list(values)[:19], without)["mean"].low is None
