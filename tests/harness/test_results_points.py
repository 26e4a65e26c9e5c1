"""Precision, recall and F1 of a results file, of all detections and of those above a score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from results_files import points, random_files, write

from vrft_bench.errors import UserError
from vrft_bench.harness.score_predictions import score_predictions

CLOSE = 1e-9


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
