"""The paper's LVIS figure and reversed boxes, against pycocotools and lvis-api."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from vrft_bench.tasks.base import Detection
from vrft_bench.tasks.metrics import category_figures
from vrft_bench.tasks.metrics.average_precision import PrecisionRecall
from vrft_bench.tasks.metrics.category_figures import resampled_ap
from vrft_bench.tasks.metrics.detection import DetectionMetric
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable, image_order
from vrft_bench.tasks.metrics.outcomes import LVIS_RULES, outcome_of
from vrft_bench.tasks.paper.metrics import PaperDetectionMetric
from vrft_bench.tasks.paper.parsing import parse_detections


def reversed_world(worlds, seed: int, **options):
    """A random world in which a third of the detections have one or both axes reversed."""
    world = worlds.random_world(seed, **options)
    rng = np.random.default_rng(seed)
    for key, found in world.answers.items():
        turned = []
        for (x1, y1, x2, y2), confidence in found:
            if rng.random() < 0.2:
                x1, x2 = x2, x1
            if rng.random() < 0.2:
                y1, y2 = y2, y1
            turned.append(Detection((x1, y1, x2, y2), confidence))
        world.answers[key] = tuple(turned)
    return world


def report(world, **options):
    metric = PaperDetectionMetric(world.dataset(), **options)
    for sample, prediction in world.pairs():
        metric.update(sample, prediction)
    return metric.compute()


@pytest.mark.parametrize("seed", range(6))
def test_the_papers_lvis_figure_is_the_mean_over_the_area_ranges_too(worlds, seed, tmp_path) -> None:
    world = reversed_world(worlds, seed, lvis=True, grid=None, images=30)
    precision = worlds.lvis_eval(world, tmp_path).eval["precision"]
    found = report(world, over_areas=True)
    assert found.headline == "ap_areas"
    by_category = []
    for number, name in enumerate(world.categories):
        values = precision[:, :, number, :]
        values = values[values > -1]
        shown = found.by_category[name]["ap_areas"].value
        if len(values):
            by_category.append(float(np.mean(values)))
            assert shown == pytest.approx(by_category[-1], abs=1e-6)
        else:
            assert shown is None
    assert len(by_category) == len(world.categories) - 1  # the last never has truth
    assert found.figures["ap_areas"].value == pytest.approx(float(np.mean(by_category)), abs=1e-6)
    assert abs(found.figures["ap_areas"].value - found.figures["ap"].value) > 1e-3  # another figure than AP


@pytest.mark.parametrize("seed", range(6))
def test_reversed_boxes_are_judged_as_pycocotools_judges_them(worlds, seed) -> None:
    world = reversed_world(worlds, seed, grid=None, crowds=True, images=30)
    evaluation = worlds.coco_eval(world)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    found = report(world)
    assert found.headline == "ap"
    for name, index in {"ap": 0, "ap50": 1, "ap75": 2, "ap_small": 3, "ap_medium": 4, "ap_large": 5}.items():
        assert found.figures[name].value == pytest.approx(evaluation.stats[index], abs=1e-6), name
    for number, name in enumerate(world.categories[:-1]):
        values = evaluation.eval["precision"][:, :, number, 0, -1]
        assert found.by_category[name]["ap"].value == pytest.approx(values[values > -1].mean(), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_a_replicate_of_the_papers_lvis_figure_is_the_figure_of_the_resampled_images(worlds, seed, tmp_path) -> None:
    """Copies get neighbouring ids. Scores are distinct: ties in an image would rank its copies otherwise."""
    world = worlds.random_world(seed, lvis=True, grid=None, confidences=10**6, images=20)
    images = world.images
    weights = np.bincount(np.random.default_rng(seed).integers(0, len(images), len(images)), minlength=len(images))
    table = OutcomeTable(ids := ImageIds())
    for (image, name), target in world.targets.items():
        outcome = outcome_of(target, world.answers[image, name], LVIS_RULES)
        table.add(str(image), world.categories.index(name), outcome)
    ranked = table.ranked(image_order(ids, [table]))
    curves = [PrecisionRecall(ranked, len(world.categories), len(images), area) for area in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(category_figures, "resampled_weights", lambda *_: iter([weights.astype(np.float64)]))
        (found,) = resampled_ap([curves], len(world.categories), len(images), 1, 0)["ap_areas"]
    copies = {
        image: [image * 100 + copy for copy in range(count)] for image, count in zip(images, weights, strict=True)
    }
    for name in ("targets", "answers"):
        drawn = {(new, key[1]): value for key, value in getattr(world, name).items() for new in copies[key[0]]}
        setattr(world, name, drawn)
    precision = worlds.lvis_eval(world, tmp_path).eval["precision"]
    for number in range(len(world.categories)):
        values = precision[:, :, number, :]
        values = values[values > -1]
        assert found[number] == pytest.approx(values.mean() if len(values) else np.nan, abs=1e-6, nan_ok=True)
    assert np.nanmin(found) < np.nanmax(found)


def test_the_papers_lvis_figure_has_an_interval_and_ap_keeps_its_own(worlds) -> None:
    world = worlds.random_world(2, lvis=True, images=40)
    paper, strict = report(world, over_areas=True), report(world)
    areas = paper.figures["ap_areas"]
    assert areas.low < areas.value < areas.high
    assert areas.high - areas.low > 0.02
    for name in world.categories[:-1]:
        own = paper.by_category[name]["ap_areas"]
        assert own.low <= own.value <= own.high
    assert paper.figures["ap"] == strict.figures["ap"]
    assert paper.figures["ap_r"] == strict.figures["ap_r"]


def test_reversed_boxes_would_be_judged_otherwise_by_the_strict_metric(worlds) -> None:
    """Otherwise the test above could not tell whether the paper's metric does anything."""
    world = reversed_world(worlds, 0, grid=None, images=30)
    strict = DetectionMetric(world.dataset())
    for sample, prediction in world.pairs():
        strict.update(sample, prediction)
    assert strict.compute().figures["ap"].value != pytest.approx(report(world).figures["ap"].value, abs=1e-6)


def test_the_figure_is_not_shown_where_it_is_not_asked_for(worlds) -> None:
    assert "ap_areas" not in report(worlds.random_world(0, lvis=True)).figures


def test_a_box_of_nans_matches_every_truth_in_pycocotools_and_is_dropped_here(say, worlds) -> None:
    world = worlds.random_world(1, images=8, categories=2)
    nan = float("nan")
    world.answers.update({key: (Detection((nan,) * 4, 1.0),) for key in world.answers})
    precision = worlds.coco_eval(world).eval["precision"][:, :, 0, 0, -1]
    assert precision[precision > -1].max() > 0.99
    text = say.boxes((("NaN",) * 4, 1.0)).replace("'NaN'", "NaN")
    assert parse_detections(text, say.frame).detections == ()
