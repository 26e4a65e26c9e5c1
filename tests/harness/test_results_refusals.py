"""A results file that is none is refused by its first bad entry, and options that do not go together are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from results_files import random_files, write

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.score_predictions import score_predictions

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
        ([GOOD], "is a list, not an object"),
        (GOOD | {"bbox": [GOOD, 0, 0, 9]}, r"has the bbox \[\{\.\.\.\}, 0, 0, 9\]"),
        (GOOD | {"score": GOOD}, r"has the score \{\.\.\.\}"),
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
        ('{"annotations": []}', "it holds an object, not a list"),
        (json.dumps(GOOD), "it holds an object, not a list"),
        ("null", "it holds null, not a list"),
        ("3", "it holds a number, not a list"),
        ("2.5", "it holds a number, not a list"),
        ("true", "it holds a boolean, not a list"),
        ('"x"', "it holds a string, not a list"),
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


@pytest.mark.parametrize(
    "damage",
    [lambda packed: packed[:-9], lambda packed: packed[:5], lambda packed: packed[:20] + b"\xff" * 9 + packed[29:]],
    ids=["cut off", "header cut off", "overwritten"],
)
def test_a_gzip_file_that_is_not_whole_is_told(damage: Callable[[bytes], bytes], tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0)
    predictions.write_bytes(damage(gzip.compress(predictions.read_bytes())))
    with pytest.raises(DataError, match=r"results\.json cannot be unpacked: "):
        score_predictions(predictions, annotations)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rules": "voc"}, "unknown rules 'voc'"),
        ({"protocol": "loose"}, "unknown protocol 'loose'"),
        ({"engine": "hot"}, "unknown ap-engine 'hot'"),
        ({"rules": "lvis"}, "cannot be judged by LVIS's rules"),
        ({"engine": "pycocotools", "intervals": True}, "neither LVIS's rules nor intervals"),
        ({"engine": "pycocotools", "lvis": True}, "neither LVIS's rules nor intervals"),
        ({"categories": ["c9"]}, "has no category 'c9'"),
    ],
    ids=str,
)
def test_options_that_cannot_be_met_are_refused(options: dict[str, Any], says: str, tmp_path: Path) -> None:
    lvis = options.pop("lvis", False)
    annotations, predictions = random_files(tmp_path, 0, lvis=lvis)
    with pytest.raises(UserError, match=says):
        score_predictions(predictions, annotations, **options)
