"""A survey counts what is there, and its hash changes with every part of the data and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.tasks.base import ClassTarget, Dataset, ImageRef, Sample
from vrft_bench.tasks.data.reasonseg import load_reasonseg
from vrft_bench.tasks.data.survey import survey


def test_files_and_questions_are_counted(load: Callable[..., Dataset], coco_document: Any) -> None:
    dataset = load(coco_document(), categories=["cat", "hot dog"])
    sizes = [
        next(sample.image.path for sample in dataset.samples() if sample.id == name) for name in ("2:cat", "10:cat")
    ]
    facts = survey(dataset)
    assert facts.counts == {
        "images": 2,
        "annotations": 4,
        "categories": 3,
        "questions": 4,
        "missing image files": 0,
        "bytes of image files": sum(path.stat().st_size for path in sizes if path),
    }
    assert facts.first_missing is None


def test_missing_image_files_are_counted_once_each_and_the_first_is_named(
    load: Callable[..., Dataset], coco_document: Any, tmp_path: Path
) -> None:
    dataset = load(coco_document())
    (tmp_path / "images" / "ten.png").unlink()
    facts = survey(dataset)
    assert (facts.counts["images"], facts.counts["missing image files"], facts.first_missing) == (2, 1, "ten.png")


def test_a_reasonseg_image_is_one_image_however_many_instructions_it_has(tmp_path: Path) -> None:
    for name, label in (("a", "target"), ("b", "target"), ("c", "ignore")):
        shapes = [{"label": label, "points": [[1, 1], [9, 1], [9, 9]]}]
        (tmp_path / f"{name}.json").write_text(json.dumps({"text": ["one", "two", "three"], "shapes": shapes}))
        Image.new("RGB", (10, 10)).save(tmp_path / f"{name}.jpg")
    facts = survey(load_reasonseg(tmp_path, "train"))
    assert (facts.counts["images"], facts.counts["questions"]) == (3, 6), "the one without a target is counted too"


def test_the_hash_says_what_is_there_and_not_where(load: Callable[..., Dataset], coco_document: Any) -> None:
    dataset = load(coco_document())
    moved = [
        replace(sample, image=replace(sample.image, path=Path("elsewhere") / Path(str(sample.image.path)).name))
        for sample in dataset.samples()
    ]
    assert survey(replace(dataset, samples=lambda: iter(moved))).sha256 == survey(dataset).sha256


@pytest.mark.parametrize(
    "changed",
    [
        {"id": "other"},
        {"fields": {"options": "a"}},
        {"target": ClassTarget("b")},
        {"target": ClassTarget("a", ("alias",))},
        {"image": ImageRef(8, 6, Path("other.png"))},
        {"image": ImageRef(9, 6, Path("one.png"))},
        {"image": ImageRef(8, 7, Path("one.png"))},
    ],
    ids=["id", "fields", "label", "alias", "image name", "width", "height"],
)
def test_every_part_of_a_sample_enters_the_hash(changed: dict[str, Any]) -> None:
    sample = Sample("1", ImageRef(8, 6, Path("one.png")), {"options": "a, b"}, ClassTarget("a"))

    def digest(*samples: Sample) -> str:
        return survey(Dataset("val", ("a", "b"), lambda: iter(samples))).sha256

    other = replace(sample, **changed)
    assert digest(other) != digest(sample)
    assert digest(sample, other) != digest(other, sample), "and so does their order"


def test_images_that_come_as_bytes_are_counted_each() -> None:
    samples = [Sample(str(n), ImageRef(8, 8, data=b"x" * n), {}, ClassTarget("a")) for n in (3, 4)]
    counts = survey(Dataset("train", ("a",), lambda: iter(samples))).counts
    assert (counts["images"], counts["bytes of image files"], counts["missing image files"]) == (2, 7, 0)
