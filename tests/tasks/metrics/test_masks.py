"""Masks are rasterised as LISA does it, and gIoU and cIoU are what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest

from vrft_bench.tasks.base import NO_PREDICTION, Detection, ImageRef, MaskTarget, Prediction, Sample, Status
from vrft_bench.tasks.metrics.masks import MaskMetric, fill_box, fill_ellipse, fill_polygon, mask_overlap, rasterise

SIZE = (20, 10)


def _rectangle(x1, y1, x2, y2) -> tuple[float, ...]:
    """A polygon; as its outline belongs to it, it covers the pixels x1..x2 and y1..y2, both ends included."""
    return (x1, y1, x2, y1, x2, y2, x1, y2)


def _sample(name: str, target: MaskTarget) -> Sample:
    return Sample(name, ImageRef(*SIZE), {"instruction": "it"}, target)


def _box(*box: float) -> Prediction:
    return Prediction(Status.OK, detections=(Detection(box, None),))


def _box_metric(**options) -> MaskMetric:
    return MaskMetric(lambda image, box: fill_box(box, image.width, image.height), **options)


def test_a_polygon_holds_its_outline_and_cuts_off_fractions():
    mask = fill_polygon(_rectangle(2.9, 3.2, 5.9, 4.999), *SIZE)
    assert mask.shape == (10, 20)
    assert np.argwhere(mask).tolist() == [[y, x] for y in (3, 4) for x in (2, 3, 4, 5)]


def test_a_thin_slope_keeps_the_pixels_of_its_outline():
    """The corner (2, 2) and its two neighbours on the flat edge; Pillow's fill alone has only the corner."""
    assert np.flatnonzero(fill_polygon((2, 2, 12, 4, 8, 13), 16, 16)[2]).tolist() == [2, 3, 4]


def test_a_polygon_outside_of_the_image_is_cut_and_two_points_are_none():
    assert fill_polygon(_rectangle(15, 5, 90, 90), *SIZE).sum() == 5 * 5
    assert fill_polygon((1, 1, 5, 5), *SIZE).sum() == 0


def test_a_box_covers_the_pixels_whose_centre_it_holds():
    assert np.argwhere(fill_box((2.0, 3.0, 4.0, 5.0), *SIZE)).tolist() == [[3, 2], [3, 3], [4, 2], [4, 3]]
    assert fill_box((2.6, 3.0, 4.4, 5.0), *SIZE).sum() == 1 * 2
    assert fill_box((-50.0, -50.0, 500.0, 500.0), *SIZE).all()
    assert fill_box((4.0, 4.0, 2.0, 2.0), *SIZE).sum() == 0


def test_an_ellipse_fills_its_share_of_the_box():
    mask = fill_ellipse((0.0, 0.0, 400.0, 200.0), 400, 200)
    assert mask.mean() == pytest.approx(np.pi / 4, abs=1e-3)
    assert not mask[0, 0]
    assert mask[100, 1]
    assert fill_ellipse((4.0, 4.0, 4.0, 9.0), *SIZE).sum() == 0


def test_all_polygons_are_united_and_overlaps_count_once():
    target = MaskTarget((0, 0, 9, 4), (_rectangle(0, 0, 4, 4), _rectangle(3, 0, 9, 4)))
    truth = rasterise(target, *SIZE)
    assert truth.mask.sum() == 10 * 5
    assert truth.ignore.sum() == 0


def test_the_smaller_of_a_target_and_an_ignored_region_wins():
    hole = rasterise(MaskTarget((0, 0, 9, 9), (_rectangle(0, 0, 9, 9),), (_rectangle(2, 2, 4, 4),)), *SIZE)
    assert (hole.mask.sum(), hole.ignore.sum()) == (100 - 9, 9)
    island = rasterise(MaskTarget((2, 2, 4, 4), (_rectangle(2, 2, 4, 4),), (_rectangle(0, 0, 9, 9),)), *SIZE)
    assert (island.mask.sum(), island.ignore.sum()) == (9, 100 - 9)
    assert not (island.mask & island.ignore).any()


def test_ignored_pixels_count_neither_for_the_prediction_nor_for_the_truth():
    truth = rasterise(MaskTarget((0, 0, 9, 9), (_rectangle(0, 0, 9, 9),), (_rectangle(10, 0, 19, 9),)), *SIZE)
    assert mask_overlap(np.ones((10, 20), np.bool_), truth) == (100, 100)
    assert mask_overlap(fill_box((5.0, 0.0, 15.0, 10.0), *SIZE), truth) == (50, 100)


def test_masks_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"\(20, 10\)"):
        mask_overlap(np.ones((20, 10), np.bool_), rasterise(MaskTarget((0, 0, 5, 5), ()), *SIZE))


def test_giou_is_a_mean_and_ciou_a_ratio_of_sums():
    metric = _box_metric()
    # 100 true pixels, 50 of them found and nothing else: 50 / 100.
    metric.update(_sample("a", MaskTarget((0, 0, 10, 10), (_rectangle(0, 0, 9, 9),))), _box(0, 0, 5, 10))
    # 4 true pixels among 12: 4 / 12.
    metric.update(_sample("b", MaskTarget((0, 0, 2, 2), (_rectangle(0, 0, 1, 1),))), _box(0, 0, 6, 2))
    # No box: 0 / 6.
    metric.update(_sample("c", MaskTarget((0, 0, 3, 2), (_rectangle(0, 0, 2, 1),))), NO_PREDICTION)
    report = metric.compute()
    assert report.headline == "giou"
    assert report.figures["giou"].value == pytest.approx((50 / 100 + 4 / 12 + 0) / 3)
    assert report.figures["ciou"].value == pytest.approx((50 + 4 + 0) / (100 + 12 + 6))
    assert report.figures["giou_ceiling"].value == report.figures["ciou_ceiling"].value == 1.0
    for name in ("giou", "ciou"):
        figure = report.figures[name]
        assert 0.0 <= figure.low <= figure.value <= figure.high <= 1.0
    assert any("1 of 3 answers give no box" in note for note in report.notes)


def test_the_ceiling_is_the_segmenters_own_error_and_counts_a_sample_once():
    """A box around half a square of truth reaches 1/2 at best, whatever the model says and however often."""
    triangle = MaskTarget((0, 0, 10, 10), (_rectangle(0, 0, 4, 9),))
    metric = _box_metric()
    for n in range(3):
        metric.update(_sample("a", triangle), _box(0, 0, 10, 5), n)
    metric.update(_sample("b", MaskTarget((0, 0, 10, 10), (_rectangle(0, 0, 9, 9),))), _box(0, 0, 10, 10))
    figures = metric.compute().figures
    assert figures["giou_ceiling"].value == pytest.approx((0.5 + 1.0) / 2)
    assert figures["ciou_ceiling"].value == pytest.approx((50 + 100) / (100 + 100))
    assert figures["giou"].value == pytest.approx((3 * 25 / 75 + 1.0) / 4)


def test_an_empty_truth_that_nothing_claims_is_right():
    """LISA gives 1 to an image whose union is empty; here all of the target is covered by an ignored region."""
    hidden = MaskTarget((0, 0, 5, 5), (_rectangle(0, 0, 9, 9),), (_rectangle(0, 0, 8, 9), _rectangle(9, 0, 9, 9)))
    metric = _box_metric()
    metric.update(_sample("a", hidden), _box(0, 0, 5, 5))
    figures = metric.compute().figures
    assert (figures["giou"].value, figures["ciou"].value) == (1.0, 1.0)


def test_whole_pixels_are_given_to_the_segmenter_without_their_fractions():
    target = MaskTarget((0.4, 0.0, 19.9, 10.0), (_rectangle(0, 0, 19, 9),))
    asked = []

    def segment(image: ImageRef, box) -> np.ndarray:
        asked.append(box)
        return fill_box(box, image.width, image.height)

    metric = MaskMetric(segment, whole_pixels=True)
    metric.update(_sample("a", target), _box(0.0, 0.0, 5.9, 10.0))
    assert asked == [(0.0, 0.0, 19.0, 10.0), (0.0, 0.0, 5.0, 10.0)]
    figures = metric.compute().figures
    assert figures["giou_ceiling"].value == pytest.approx(190 / 200)
    assert figures["giou"].value == pytest.approx(50 / 200)


def test_the_report_does_not_depend_on_the_order_of_updates():
    rng = np.random.default_rng(0)
    answers = []
    for number in range(30):
        x, y, w, h = rng.integers(1, 8, 4).tolist()
        answers.append((_sample(f"{number}", MaskTarget((0, 0, x, y), (_rectangle(0, 0, x, y),))), _box(1, 1, w, h)))
    reports = []
    for order in (answers, answers[::-1]):
        metric = _box_metric()
        for sample, prediction in order:
            metric.update(sample, prediction)
        reports.append(metric.compute())
    assert reports[0] == reports[1]


def test_nothing_counted_has_no_value():
    figures = _box_metric().compute().figures
    assert {figure.value for figure in figures.values()} == {None}
