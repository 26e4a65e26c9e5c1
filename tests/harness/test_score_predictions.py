"""A results file scores what pycocotools and lvis-api say of it; a broken one is refused by its first bad entry."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.cli.app import main
from vrft_bench.harness.score_predictions import score_predictions
from vrft_bench.tasks.base import Figure, MetricReport
from vrft_bench.tasks.metrics import bulk_outcomes, results_report

CLOSE = 1e-9
AREAS = ("ap", "ap_small", "ap_medium", "ap_large")


def random_files(
    folder: Path,
    seed: int,
    *,
    images: int = 10,
    grid: float | None = 8.0,
    scores: int = 5,
    crowds: bool = False,
    many: int = 0,
    lvis: bool = False,
    text_ids: bool = False,
) -> tuple[Path, Path]:
    """Annotations and results with ties; the last of 4 categories has no truth, the last two images no objects."""
    rng = np.random.default_rng(seed)

    def box(largest: float = 200.0) -> list[float]:
        values = np.concatenate([rng.uniform(0, 300, 2), rng.uniform(0, largest, 2) * rng.choice([0.2, 1.0])])
        return (np.round(values / grid) * grid if grid else values).tolist()

    def near(source: list[float]) -> list[float]:
        noise = rng.normal(0, 10, 4) * rng.choice([0.0, 0.5, 1.0])
        values = np.array(source) + (np.round(noise / grid) * grid if grid else noise)
        return [*values[:2].tolist(), *np.maximum(values[2:], 0).tolist()]

    numbers = rng.permutation(1000)[:images].tolist()
    ids = [f"image {number}" for number in numbers] if text_ids else numbers
    rows, annotations, results = [], [], []
    for place, image in enumerate(ids):
        row: dict[str, Any] = {"id": image, "width": 640, "height": 480, "file_name": f"{place}.jpg"}
        negative, incomplete = [], []
        for category in (1, 2, 3, 4):
            own = [box() for _ in range(rng.integers(0, 6))] if category < 4 and place < images - 2 else []
            for number, bbox in enumerate(own):
                crowd = int(crowds and number % 3 == 1)
                area = bbox[2] * bbox[3] * float(rng.choice([1.0, 0.6, 0.25]))
                annotations.append({"image_id": image, "category_id": category, "bbox": bbox, "area": area})
                annotations[-1]["iscrowd"] = crowd
            if not own and rng.random() < 0.5:
                negative.append(category)
            if own and rng.random() < 0.3:
                incomplete.append(category)
            for _ in range(many if many and rng.random() < 0.3 else rng.integers(0, 8)):
                bbox = near(own[rng.integers(len(own))]) if own and rng.random() < 0.7 else box()
                score = float(rng.integers(1, scores + 1)) / scores
                results.append({"image_id": image, "category_id": category, "bbox": bbox, "score": score})
        if lvis:
            row |= {"neg_category_ids": negative, "not_exhaustive_category_ids": incomplete}
        rows.append(row)
    for number, item in enumerate(annotations, 1):
        item["id"] = number
    rng.shuffle(results)
    categories = [{"id": number, "name": f"c{number}", "frequency": "rcfr"[number - 1]} for number in (1, 2, 3, 4)]
    document = {"info": {}, "images": rows, "annotations": annotations, "categories": categories}
    return write(folder / "truth.json", document), write(folder / "results.json", results)


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def pycocotools_says(annotations: Path, predictions: Path) -> tuple[np.ndarray, np.ndarray]:
    """(precision of (threshold, recall, category, area), recall of (threshold, category, area))."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(annotations))
        evaluation = COCOeval(truth, truth.loadRes(str(predictions)), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"][..., -1], evaluation.eval["recall"][..., -1]


def lvis_says(annotations: Path, predictions: Path) -> tuple[np.ndarray, np.ndarray]:
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS(str(annotations))
    evaluation = LVISEval(truth, LVISResults(truth, str(predictions), max_dets=300), "bbox")
    evaluation.evaluate()
    # lvis 0.5.3 still says np.float, which numpy 1.24 removed.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(np, "float", float, raising=False)
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


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
    same(figures["ar"], mean(recall[:, :, 0]))
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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options", [{}, {"scores": 1}, {"grid": None, "scores": 1000}, {"many": 200, "images": 5}], ids=str
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


PRF = ("precision", "recall", "f1")


def points(report: MetricReport, prefix: str = "") -> dict[str, list[float | None]]:
    """Precision, recall and F1 of every category, and their means."""
    rows = {"mean": report.figures, **report.by_category}
    return {name: [row[prefix + key].value for key in PRF] for name, row in rows.items()}


def test_precision_recall_and_f1_are_what_counting_by_hand_gives(tmp_path: Path) -> None:
    """Two objects of c1; by score: right, wrong, right, wrong. c2: one object, found last. c3: nothing to find."""
    boxes = {"a": [0, 0, 50, 50], "b": [100, 0, 50, 50], "nowhere": [300, 300, 50, 50]}
    truths = [(1, "a"), (1, "b"), (2, "a")]
    found = [(1, "a", 0.9), (1, "nowhere", 0.8), (1, "b", 0.7), (1, "a", 0.2), (2, "a", 0.1), (3, "a", 0.95)]
    document = {
        "images": [{"id": 1, "width": 400, "height": 400, "file_name": "1.jpg"}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": category, "bbox": boxes[box], "area": 2500, "iscrowd": 0}
            for number, (category, box) in enumerate(truths, 1)
        ],
        "categories": [{"id": number, "name": f"c{number}"} for number in (1, 2, 3)],
    }
    annotations = write(tmp_path / "truth.json", document)
    results = [{"image_id": 1, "category_id": k, "bbox": boxes[box], "score": score} for k, box, score in found]
    predictions = write(tmp_path / "results.json", results)
    scored = score_predictions(predictions, annotations)
    third = pytest.approx(2 / 3)
    assert points(scored.report) == {
        "mean": [0.75, 1.0, pytest.approx(5 / 6)],
        "c1": [0.5, 1.0, third],
        "c2": [1.0, 1.0, 1.0],
        "c3": [None, None, None],
    }
    # Mean F1 by the least score: .9 -> (2/3 + 0) / 2, .7 -> (4/5 + 0) / 2, .2 -> (4/6 + 0) / 2, .1 -> (4/6 + 1) / 2.
    assert scored.best_score == 0.1
    assert points(scored.report, "best_") == points(scored.report)
    chosen = score_predictions(predictions, annotations, score_threshold=0.7)
    assert (chosen.score_threshold, chosen.best_score) == (0.7, None)
    assert points(chosen.report) == {
        "mean": [third, 0.5, pytest.approx(0.4)],
        "c1": [third, 1.0, pytest.approx(0.8)],
        "c2": [None, 0.0, 0.0],
        "c3": [None, None, None],
    }
    assert "best_f1" not in chosen.report.figures
    assert chosen.report.figures["ap"] == scored.report.figures["ap"]  # no threshold changes it
    assert any("of score 0.7 and more; AP ranks all" in note for note in chosen.report.notes)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [{}, {"crowds": True, "scores": 8}, {"lvis": True}, {"lvis": True, "grid": None, "scores": 1000}],
    ids=str,
)
def test_a_threshold_counts_as_if_the_file_ended_there_and_the_best_one_is_the_best(
    seed: int, options: dict[str, Any], tmp_path: Path
) -> None:
    annotations, predictions = random_files(tmp_path, seed, **options)
    scored = score_predictions(predictions, annotations)
    results = json.loads(predictions.read_text())
    means = {}
    scores = sorted({item["score"] for item in results})
    for threshold in scores if len(scores) < 20 else scores[:: len(scores) // 10]:
        kept = write(tmp_path / "kept.json", [item for item in results if item["score"] >= threshold])
        counted = points(score_predictions(kept, annotations).report)
        assert points(score_predictions(predictions, annotations, score_threshold=threshold).report) == counted
        means[threshold] = counted["mean"][2]
    best = scored.report.figures["best_f1"].value
    assert best is not None
    assert best >= max(means.values()) - CLOSE
    assert 0.1 < best < 0.9
    at_best = score_predictions(predictions, annotations, score_threshold=scored.best_score).report
    assert points(at_best) == points(scored.report, "best_")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_score_threshold_is_a_finite_number(number: float, tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0)
    with pytest.raises(UserError, match="is no finite number"):
        score_predictions(predictions, annotations, score_threshold=number)


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


GOOD = {"image_id": 7, "category_id": 1, "bbox": [0, 0, 9, 9], "score": 0.5}


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (GOOD | {"image_id": 8}, "has the image_id 8, which the annotations do not list"),
        (GOOD | {"image_id": "7"}, "they list it as a int: 7"),
        (GOOD | {"image_id": [7]}, r"has the image_id \[7\]"),
        (GOOD | {"category_id": 5}, "has the category_id 5"),
        (GOOD | {"category_id": True}, "has the category_id True"),
        (GOOD | {"bbox": [0, 0, 9]}, r"has the bbox \[0, 0, 9\]"),
        (GOOD | {"bbox": "0099"}, "has the bbox '0099'"),
        (GOOD | {"bbox": [0, 0, 9, "9"]}, r"has the bbox \[0, 0, 9, '9'\]"),
        (GOOD | {"bbox": [0, 0, True, 9]}, "has the bbox"),
        (GOOD | {"bbox": [0, 0, float("nan"), 9]}, r"has the bbox \[0.0, 0.0, nan, 9.0\]"),
        (GOOD | {"bbox": [0, 0, 1e300, 9]}, "has the bbox"),
        (GOOD | {"bbox": [0, 0, 10**400, 9]}, "has the bbox"),
        (GOOD | {"score": float("nan")}, "the score nan"),
        (GOOD | {"score": float("inf")}, "the score inf"),
        (GOOD | {"score": "0.5"}, "has the score '0.5'"),
        (GOOD | {"score": None}, "has the score None"),
        ({"image_id": 7, "category_id": 1, "score": 1}, "lacks 'bbox'"),
        ({}, "lacks 'image_id', 'category_id', 'bbox', 'score'"),
        (None, "is None, not an object"),
        (0, "is 0, not an object"),
        ([GOOD], "is .*, not an object"),
    ],
    ids=str,
)
def test_the_first_bad_entry_is_named(bad: Any, says: str, tmp_path: Path) -> None:
    annotations = write(
        tmp_path / "truth.json",
        {
            "images": [{"id": 7, "width": 99, "height": 99, "file_name": "7.jpg"}],
            "annotations": [],
            "categories": [{"id": 1, "name": "c1"}],
        },
    )
    predictions = write(tmp_path / "results.json", [GOOD, bad, GOOD, GOOD | {"score": "later"}])
    with pytest.raises(DataError, match=f"entry 2 .*{says}"):
        score_predictions(predictions, annotations)


def test_entries_that_are_not_finite_are_named_with_what_to_do(tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0)
    results = json.loads(predictions.read_text())
    for number, (key, value) in enumerate(
        [("score", float("nan")), ("bbox", [0, 0, 1e300, 9]), ("score", -float("inf")), ("score", float("nan"))]
    ):
        results[3 * number + 1][key] = value
    with pytest.raises(DataError) as stop:
        score_predictions(write(predictions, results), annotations)
    assert stop.value.message == (
        f"{predictions}: entry 2 has the score nan; entry 5 has the bbox [0.0, 0.0, 1e+300, 9.0]; "
        "entry 8 has the score -inf, and so on (4 entries)"
    )
    assert stop.value.fix is not None
    assert stop.value.fix.startswith(
        "without a finite score a detection has no rank: give it one, or leave the entry out"
    )
    assert "below 1e15" in stop.value.fix


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "is not JSON"),
        ('{"annotations": []}', "is not a results file"),
        (json.dumps(GOOD), "is not a results file"),
        (json.dumps([GOOD | {"nested": GOOD}]), "detections inside of detections"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_results_file_is_refused(text: str, says: str, tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0)
    document = json.loads(annotations.read_text())
    document["images"].append({"id": 7, "width": 9, "height": 9, "file_name": "7.jpg"})
    (predictions).write_text(text)
    if 7 in [image["id"] for image in document["images"][:-1]]:
        document["images"].pop()
    with pytest.raises(DataError, match=says):
        score_predictions(predictions, write(annotations, document))


def test_extra_keys_and_nested_objects_do_not_matter(tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0)
    plain = score_predictions(predictions, annotations).report
    results = json.loads(predictions.read_text())
    rich = [{"segmentation": {"size": [1, 1]}, **item, "id": {**item, "score": 10**400}} for item in results]
    assert score_predictions(write(predictions, rich), annotations).report == plain


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rules": "voc"}, "unknown rules 'voc'"),
        ({"protocol": "loose"}, "unknown protocol 'loose'"),
        ({"engine": "hot"}, "unknown ap-engine 'hot'"),
        ({"rules": "lvis"}, "cannot be judged by LVIS's rules"),
        ({"engine": "pycocotools", "intervals": True}, "neither LVIS's rules nor intervals"),
        ({"categories": ["c9"]}, "has no category 'c9'"),
    ],
    ids=str,
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0)
    with pytest.raises(UserError, match=says):
        score_predictions(predictions, annotations, **options)


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["vrft-bench", "score", *argv])
    with pytest.raises(SystemExit) as stop:
        main()
    return int(stop.value.code or 0), *capsys.readouterr()


def test_the_command_prints_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, predictions = random_files(tmp_path, 0, lvis=True)
    files = ("--predictions", str(predictions), "--annotations", str(annotations))
    wanted = score_predictions(predictions, annotations, protocol="paper", categories=["c2", "c1"])
    options = (*files, "--protocol", "paper", "--categories", "c2, c1")
    code, out, _ = command(monkeypatch, capsys, *options, "--json")
    assert (code, json.loads(out)) == (0, json.loads(json.dumps(wanted.to_json())))
    assert json.loads(out)["rules"] == "lvis"
    code, out, _ = command(monkeypatch, capsys, *options, "--plain")
    lines = [line.split() for line in out.splitlines()]
    assert ["ap", "areas", "(headline)", f"{wanted.report.figures['ap_areas'].value:.3f}"] in lines
    assert ["best", "f1", f"{wanted.report.figures['best_f1'].value:.3f}"] in lines
    assert f"the best ones those of score {wanted.best_score!r} and more" in out
    row = wanted.report.by_category["c2"]
    assert ["c2", str(row["truths"]), str(row["detections"]), f"{row['ap'].value:.3f}"] in [line[:4] for line in lines]


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        ((), 2, "neither is given"),
        (("run", "--predictions", "p.json"), 2, "both are given"),
        (("--predictions", "p.json"), 2, "needs the truth"),
        (("run", "--rules", "coco"), 2, "--rules goes with --predictions"),
        (("run", "--score-threshold", "0"), 2, "--score-threshold goes with --predictions"),
        (("--predictions", "p.json", "--annotations", "none.json"), 3, "there is no file none.json"),
    ],
)
def test_a_command_that_is_not_whole_is_one_message(
    argv: tuple[str, ...],
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found, _, err = command(monkeypatch, capsys, *argv)
    assert found == code
    assert says in err
