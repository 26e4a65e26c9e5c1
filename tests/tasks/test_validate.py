"""``validate`` passes what keeps its promises and names what does not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from vrft_bench.registry import PROFILES
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec, Message, Sample
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.profiles import QWEN2_VL
from vrft_bench.tasks.validate import validate

pytestmark = pytest.mark.usefixtures("sample_cache")


@pytest.mark.parametrize("name", ["lvis_fewshot", "classification", "lisa_grounding", "coco_ovd"])
def test_the_catalog_keeps_its_promises_under_every_profile(name: str) -> None:
    checks = validate(get_task(name), DataSpec(), [PROFILES.get(item) for item in PROFILES.names()], limit=30)
    assert [check.name for check in checks if not check.passed] == []
    assert all(check.looked_at for check in checks)


def failed(task: DetectionTask) -> list[str]:
    return [check.name for check in validate(task, DataSpec(), [QWEN2_VL], limit=20) if not check.passed]


@dataclass(frozen=True)
class Shifted(DetectionTask):
    def gold(self, sample: Sample, frame: Frame) -> str:
        return super().gold(sample, frame).replace("'Position': [", "'Position': [9")


@dataclass(frozen=True)
class Wordless(DetectionTask):
    def messages(self, sample: Sample, profile: ModelProfile) -> list[Message]:
        return [{"role": "user", "content": [{"type": "image"}, {"type": "image"}]}]


@dataclass(frozen=True)
class Generous(DetectionTask):
    def score(self, completion: str, ground_truth: str) -> dict[str, float]:
        return {**super().score(completion, ground_truth), "total": 0.5}


@dataclass(frozen=True)
class OnceWrong(DetectionTask):
    """One gold answer gives another box, which costs the mean of many less than rounding may."""

    def gold(self, sample: Sample, frame: Frame) -> str:
        if sample.id != "1:red cross":
            return super().gold(sample, frame)
        return self.answer([(0.0, 0.0, 28.0, 28.0)], [1.0], sample, frame)


def test_a_gold_completion_that_is_not_gold_is_named() -> None:
    names = ["gold scores the maximum on every sample", "gold scores the maximum (qwen2-vl)"]
    assert failed(Shifted("t", "1", "")) == names


def test_a_single_wrong_gold_completion_among_many_is_named() -> None:
    checks = validate(OnceWrong("t", "1", ""), DataSpec(), [QWEN2_VL], limit=100)
    assert [(check.name, check.detail) for check in checks if not check.passed] == [
        ("gold scores the maximum on every sample", "1 samples, first '1:red cross': its total is 0.000 of 3.000")
    ]


def test_an_object_that_leaves_the_image_is_no_flaw_of_the_gold_completion(tmp_path: Path) -> None:
    """COCO and LVIS hold some; what lies outside can be neither seen nor written."""
    Image.new("RGB", (10, 10)).save(tmp_path / "a.png")
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 6, 6], "area": 36, "iscrowd": 0}
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 10, "height": 10}],
        "annotations": [annotation],
        "categories": [{"id": 1, "name": "dog"}],
    }
    (tmp_path / "mine.json").write_text(json.dumps(document))
    spec = DataSpec(annotations=tmp_path / "mine.json", images=tmp_path)
    found = {check.name: check.passed for check in validate(get_task("detection"), spec, [QWEN2_VL])}
    assert found["gold scores the maximum on every sample"]
    assert not found["gold scores the maximum (qwen2-vl)"], "the mean over all samples tells where there are many"


def test_a_chat_without_its_one_image_is_named() -> None:
    assert failed(Wordless("t", "1", "")) == ["prompts render (qwen2-vl)"]


def test_a_reward_for_silence_is_named() -> None:
    assert failed(Generous("t", "1", "")) == ["the empty completion earns nothing"]


def test_an_empty_selection_is_named() -> None:
    (check, *_) = validate(cast(DetectionTask, get_task("coco_fewshot")), DataSpec(), [], limit=0)
    assert (check.passed, check.detail) == (False, "no sample")


def test_image_files_that_a_run_could_not_use_are_named(tmp_path: Path) -> None:
    """Their header is looked at: what an interrupted copy leaves, and annotations of another size."""
    for number, size in ((1, (60, 40)), (2, (40, 60))):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
    (tmp_path / "3.png").write_bytes(b"")
    rows = [{"id": number, "file_name": f"{number}.png", "width": 60, "height": 40} for number in (1, 2, 3, 4)]
    boxes = [{"id": row["id"], "image_id": row["id"], "category_id": 1, "bbox": [1, 2, 30, 20]} for row in rows]
    document = {"images": rows, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    (tmp_path / "a.json").write_text(json.dumps(document))
    spec = DataSpec(annotations=tmp_path / "a.json", images=tmp_path)

    def wrong(limit: int) -> str:
        found = {check.name: check for check in validate(get_task("detection"), spec, [QWEN2_VL], limit=limit)}
        check = found["image files open with the size that the data state"]
        assert check.looked_at == limit
        assert check.passed is (check.detail == "")
        return check.detail

    assert wrong(1) == ""
    assert wrong(2) == f"1 samples, first '2:cat': {tmp_path}/2.png has (40, 60) pixels, and the data state (60, 40)"
    (tmp_path / "2.png").unlink()
    assert wrong(4) == f"1 samples, first '3:cat': {tmp_path}/3.png is no image in a format that is read"
