"""A results file scores what pycocotools and lvis-api say of it."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from results_files import points, random_files, write

from vrft_bench.harness.score_predictions import score_predictions
from vrft_bench.tasks.base import Figure, MetricReport
from vrft_bench.tasks.metrics import bulk_outcomes, results_report

CLOSE = 1e-9
AREAS = ("ap", "ap_small", "ap_medium", "ap_large")


def pycocotools_says(annotations: Path, predictions: Path) -> tuple[np.ndarray, np.ndarray]:
    """(precision of (threshold, recall, category, area), recall of (threshold, category, area, limit))."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1], evaluation.eval["recall"]


def lvis_says(annotations: Path, predictions: Path) -> tuple[np.ndarray, np.ndarray]:
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS(str(annotations))
    evaluation = LVISEval(truth, LVISResults(truth, str(predictions), max_dets=300), "bbox")
    evaluation.evaluate()
    # lvis 0.5.3 still says np.float, which numpy 1.24 removed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "float", float, raising=False)
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"][..., None]


def assert_equal(report: MetricReport, precision: np.ndarray, recall: np.ndarray, names: list[str]) -> None:
    def mean(values: np.ndarray) -> float | None:
        return float(values[values > -1].mean()) if (values > -1).any() else None

    def same(ours: float | None, theirs: float | None) -> None:
        assert ours == (None if theirs is None else pytest.approx(theirs, abs=CLOSE))

    figures = {name: figure.value for name, figure in report.figures.items()}
    for number, name in enumerate(AREAS):
        same(figures[name], mean(precision[..., number]))
    same(figures["ap50"], mean(precision[0, :, :, 0]))
    same(figures["ap75"], mean(precision[5, :, :, 0]))
    for number, name in enumerate(("ar", "ar_small", "ar_medium", "ar_large")):
        same(figures[name], mean(recall[:, :, number, -1]))
    for number, name in enumerate(("ar1", "ar10") if recall.shape[-1] == 3 else ()):
        same(figures[name], mean(recall[:, :, 0, number]))
    assert list(report.by_category) == names
    for number, name in enumerate(names):
        same(report.by_category[name]["ap"].value, mean(precision[:, :, number, 0]))
        if "ap_areas" in report.by_category[name]:
            same(report.by_category[name]["ap_areas"].value, mean(precision[:, :, number, :]))


NAMES = ["c1", "c2", "c3", "c4"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scores": 1},
        {"grid": None, "scores": 1000},
        {"crowds": True},
        {"crowds": True, "scores": 2, "grid": 16.0},
        {"many": 130, "crowds": True, "images": 5},
        {"text_ids": True, "scores": 2},
    ],
    ids=str,
)
def test_every_coco_figure_equals_pycocotools(seed: int, options: dict[str, Any], tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, seed, **options)
    report = score_predictions(predictions, annotations).report
    assert_equal(report, *pycocotools_says(annotations, predictions), NAMES)
    assert report.figures["ap"].value is not None
    assert any("no truth for c4" in note for note in report.notes)


def test_a_report_by_coco_s_rules_has_all_that_pycocotools_prints(tmp_path: Path) -> None:
    """Its summary is of twelve figures: six of AP, and AR at 1, 10 and 100 detections and by size."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    annotations, predictions = random_files(tmp_path, 0, many=30, grid=None, scores=1000)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    names = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
    names += ["ar1", "ar10", "ar", "ar_small", "ar_medium", "ar_large"]
    figures = score_predictions(predictions, annotations).report.figures
    ours = [figures[name].value for name in names]
    assert ours == pytest.approx(evaluation.stats.tolist(), abs=CLOSE)
    assert 0.0 < figures["ar1"].value < figures["ar10"].value < figures["ar"].value
    lvis = random_files(tmp_path, 1, lvis=True)
    assert {"ar1", "ar10"}.isdisjoint(score_predictions(lvis[1], lvis[0]).report.figures)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [{}, {"scores": 1}, {"grid": None, "scores": 1000}, {"many": 200, "images": 5}, {"crowds": True}],
    ids=str,
)
def test_every_lvis_figure_equals_lvis_api(seed: int, options: dict[str, Any], tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, seed, lvis=True, **options)
    report = score_predictions(predictions, annotations, protocol="paper").report
    precision, recall = lvis_says(annotations, predictions)
    assert_equal(report, precision, recall, NAMES)
    by_category = [precision[:, :, number, :] for number in range(4)]
    means = [values[values > -1].mean() for values in by_category if (values > -1).any()]
    assert report.headline == "ap_areas"
    assert report.figures["ap_areas"].value == pytest.approx(np.mean(means), abs=CLOSE)
    strict = score_predictions(predictions, annotations).report
    assert (strict.headline, "ap_areas" in strict.figures) == ("ap", False)


def test_an_image_of_more_than_300_detections_is_cut_over_all_categories(tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 1, lvis=True, many=200, images=5)
    report = score_predictions(predictions, annotations, categories=["c2"]).report
    precision, _ = lvis_says(annotations, predictions)
    chosen = precision[:, :, 1, 0]
    assert report.figures["ap"].value == pytest.approx(chosen[chosen > -1].mean(), abs=CLOSE)
    assert any("beyond the 300 most confident" in note for note in report.notes)


@pytest.mark.parametrize("lvis", [False, True])
def test_working_in_small_parts_changes_nothing(lvis: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations, predictions = random_files(tmp_path, 4, crowds=True, many=60, lvis=lvis)
    whole = score_predictions(predictions, annotations, intervals=True).report
    monkeypatch.setattr(bulk_outcomes, "_PAIRS", 7)
    monkeypatch.setattr(results_report, "_BATCH", 1)
    parts = score_predictions(predictions, annotations, intervals=True).report

    def numbers(report: MetricReport) -> list[float]:
        rows = [report.figures, *report.by_category.values()]
        figures = [item.to_json() if isinstance(item, Figure) else {"": item} for row in rows for item in row.values()]
        return [np.nan if value is None else value for figure in figures for value in figure.values()]

    assert numbers(parts) == pytest.approx(numbers(whole), abs=CLOSE, nan_ok=True)
    assert (parts.figures.keys(), parts.notes) == (whole.figures.keys(), whole.notes)


def test_real_annotations_equal_pycocotools(tinycoco: Path, tmp_path: Path) -> None:
    annotations = tinycoco / "annotations" / "instances_train2017.json"
    rng = np.random.default_rng(0)
    document = json.loads(annotations.read_text())
    results = []
    for item in document["annotations"]:
        for _ in range(rng.integers(0, 3)):
            bbox = (np.array(item["bbox"]) + rng.normal(0, 8, 4)).tolist()
            row = {"image_id": item["image_id"], "category_id": item["category_id"], "bbox": bbox}
            results.append(row | {"score": round(rng.random(), 1)})
    assert any(item["iscrowd"] for item in document["annotations"])
    predictions = write(tmp_path / "results.json", results)
    report = score_predictions(predictions, annotations).report
    names = [item["name"] for item in sorted(document["categories"], key=lambda item: item["id"])]
    assert 0.1 < (report.figures["ap"].value or 0) < 0.9
    assert_equal(report, *pycocotools_says(annotations, predictions), names)


def test_boxes_of_negative_size_count_as_pycocotools_counts_them(tmp_path: Path) -> None:
    """The paper's evaluation writes such boxes where a model gives its corners in the wrong order."""
    annotations, predictions = random_files(tmp_path, 0)
    results = json.loads(predictions.read_text())
    for number, item in enumerate(results):
        x, y, w, h = item["bbox"]
        item["bbox"] = [x, y, -w if number % 3 == 0 else w, -h if number % 4 == 0 else h]
    predictions = write(predictions, results)
    report = score_predictions(predictions, annotations).report
    assert_equal(report, *pycocotools_says(annotations, predictions), NAMES)
    assert any("negative width or height" in note for note in report.notes)


def test_boxes_that_leave_their_image_are_noted_and_corners_are_suspected(tmp_path: Path) -> None:
    """An image of 100 x 80 pixels, and 20 detections of which the first ``outside`` leave it by 2 pixels."""
    document = {
        "images": [{"id": 1, "width": 100, "height": 80, "file_name": "1.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}],
        "categories": [{"id": 1, "name": "c1"}],
    }
    annotations = write(tmp_path / "truth.json", document)
    within, beyond = [0, 50, 101.5, 31.5], ([-2, 0, 50, 50], [60, 0, 42, 50], [0, -2, 9, 9], [0, 60, 9, 22])

    def notes(outside: int) -> list[str]:
        boxes = [beyond[number % 4] if number < outside else within for number in range(20)]
        results = [{"image_id": 1, "category_id": 1, "bbox": box, "score": 0.5} for box in boxes]
        found = score_predictions(write(tmp_path / "results.json", results), annotations).report.notes
        return [note for note in found if "leave their image" in note]

    assert notes(0) == []
    assert notes(4) == ["4 of 20 detections leave their image"]
    (note,) = notes(11)
    assert note.startswith("11 of 20 detections leave their image: are the boxes corners?")


def test_files_that_gzip_packed_are_read(tmp_path: Path) -> None:
    files = random_files(tmp_path, 0)
    packed = []
    for file in files:
        packed.append(file.with_suffix(".json.gz"))
        packed[-1].write_bytes(gzip.compress(file.read_bytes()))
    assert score_predictions(packed[1], packed[0]).report == score_predictions(files[1], files[0]).report


def test_object_id_0_is_an_object_like_any_other(tmp_path: Path) -> None:
    """pycocotools takes the id 0 for "not matched"; ids are not read here."""
    row = {"image_id": 1, "category_id": 1, "bbox": [0, 0, 50, 50]}
    document = {
        "images": [{"id": 1, "width": 99, "height": 99, "file_name": "1.jpg"}],
        "annotations": [row | {"id": 0, "area": 2500, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "c1"}],
    }
    annotations = write(tmp_path / "truth.json", document)
    predictions = write(tmp_path / "results.json", [row | {"score": 0.5}])
    for engine in ("own", "pycocotools"):
        assert score_predictions(predictions, annotations, engine=engine).report.figures["ap"].value == pytest.approx(1)


def test_the_pycocotools_engine_gives_the_same_report(tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 2, crowds=True)
    ours, theirs = (
        score_predictions(predictions, annotations, engine=engine, categories=["c3", "c1"]).report
        for engine in ("own", "pycocotools")
    )
    assert ours.figures.keys() == theirs.figures.keys()
    for name, figure in ours.figures.items():
        assert figure.value == pytest.approx(theirs.figures[name].value, abs=CLOSE)
    assert list(theirs.by_category) == ["c3", "c1"]
    for name, row in ours.by_category.items():
        other = theirs.by_category[name]
        assert row.keys() == other.keys()
        assert (row["truths"], row["detections"]) == (other["truths"], other["detections"])
        for key in row.keys() - {"truths", "detections"}:
            assert row[key].value == pytest.approx(other[key].value, abs=CLOSE), key


def test_the_figure_over_area_ranges_has_an_interval_like_ap(tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 2, lvis=True, images=40)
    paper = score_predictions(predictions, annotations, protocol="paper", intervals=True).report
    strict = score_predictions(predictions, annotations, intervals=True).report
    areas = paper.figures["ap_areas"]
    assert areas.low < areas.value < areas.high
    assert areas.high - areas.low > 0.02
    assert all(row["ap_areas"].low is not None for row in list(paper.by_category.values())[:3])
    assert paper.figures["ap"] == strict.figures["ap"]
    without = score_predictions(predictions, annotations, protocol="paper").report.figures["ap_areas"]
    assert (without.value, without.low) == (areas.value, None)


def test_intervals_hold_the_figure_and_the_orders_of_ties(tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 3, scores=1, images=40)
    figures = score_predictions(predictions, annotations, intervals=True).report.figures
    ap = figures["ap"]
    assert ap.low < ap.value < ap.high
    assert figures["ap_tie_min"].value < ap.value < figures["ap_tie_max"].value
    assert score_predictions(predictions, annotations).report.figures["ap"].value == ap.value


def test_an_empty_results_file_scores_0(tmp_path: Path) -> None:
    annotations, _ = random_files(tmp_path, 0)
    report = score_predictions(write(tmp_path / "empty.json", []), annotations).report
    assert report.figures["ap"].value == 0.0
    assert any("10 of 10 images have no detection" in note for note in report.notes)
    assert points(report)["mean"] == points(report, "best_")["mean"] == [None, 0.0, 0.0]


def test_extra_keys_and_nested_objects_do_not_matter(tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0)
    plain = score_predictions(predictions, annotations).report
    results = json.loads(predictions.read_text())
    rich = [{"segmentation": {"size": [1, 1]}, **item, "id": {**item, "score": 10**400}} for item in results]
    assert score_predictions(write(predictions, rich), annotations).report == plain
