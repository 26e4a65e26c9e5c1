"""Published counts agree with each other, with the paper's own lists, and with what the tasks ask."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from vrft_bench.tasks import get_task
from vrft_bench.tasks.data.published_counts import published_counts

LISTS = {
    "flower102_fewshot": ("oxford_flowers", "CoOp's split file"),
    "pets37_fewshot": ("pets", "the owners' lists"),
    "fgvc_aircraft_fewshot": ("fgvc_aircraft", "the owners' lists"),
    "cars196_fewshot": ("stanford_cars", "the owners' lists"),
}
ALL_IMAGES = {
    "flower102_fewshot": 8_189,
    "pets37_fewshot": 7_349,
    "fgvc_aircraft_fewshot": 10_000,
    "cars196_fewshot": 16_185,
}


@pytest.mark.parametrize("name", LISTS)
def test_the_papers_test_lists_have_the_published_counts(shared_data: Path, name: str) -> None:
    file, source = LISTS[name]
    path = shared_data / "visual_rft_labels" / f"{file}.csv"
    if not path.is_file():
        pytest.skip("needs ../shared/data/visual_rft_labels beside the repository, which is not there")
    with path.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    expected = {"images": len({row["image"] for row in rows}), "categories": len({row["label"] for row in rows})}
    assert published_counts(get_task(name), "val", 0)[source] == expected


@pytest.mark.parametrize("name", LISTS)
def test_the_splits_of_a_classification_set_add_up_to_the_whole(name: str) -> None:
    whole: dict[str, int] = {}
    for split in ("train", "validation", "test"):
        for source, counts in published_counts(get_task(name), split, 0).items():
            whole[source] = whole.get(source, 0) + counts["images"]
    assert set(whole.values()) == {ALL_IMAGES[name]}


@pytest.mark.parametrize(
    ("name", "split", "categories", "counts"),
    [
        ("coco_fewshot", "val", 8, {"images": 5_000, "annotations": 36_781, "categories": 80, "questions": 40_000}),
        ("coco_ovd", "val", 80, {"images": 5_000, "annotations": 36_781, "categories": 80, "questions": 400_000}),
        (
            "coco_ovd",
            "train",
            65,
            {"images": 118_287, "annotations": 860_001, "categories": 80, "questions": 7_688_655},
        ),
    ],
)
def test_every_category_is_asked_of_every_coco_image(
    name: str, split: str, categories: int, counts: dict[str, int]
) -> None:
    assert published_counts(get_task(name), split, categories) == {"COCO 2017": counts}


def test_what_nobody_counted_has_no_counts() -> None:
    assert published_counts(get_task("lvis_ovd"), "val", 13)["LVIS v1"]["annotations"] == 244_707
    assert published_counts(get_task("lisa_grounding"), "test", 0) == {"LISA's README": {"images": 779}}
    for name, split in (
        ("lvis_ovd", "minival"),
        ("lisa_grounding", "virft"),
        ("detection", "val"),
        ("grounding", "val"),
    ):
        assert published_counts(get_task(name), split, 1) == {}


def test_visual_rfts_training_sets_have_the_rows_of_their_cards() -> None:
    assert published_counts(get_task("coco_fewshot"), "virft", 0) == {
        "the card of Visual-RFT's data set": {"questions": 32}
    }
    for name, shots in (("flower102_fewshot", 102), ("pets37_fewshot", 37), ("cars196_fewshot", 196)):
        (counts,) = published_counts(get_task(name), "virft", 0).values()
        assert counts["questions"] == 4 * shots
