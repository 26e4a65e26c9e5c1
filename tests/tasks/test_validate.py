"""``validate`` passes what keeps its promises and names what does not."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import pytest
from PIL import Image

from vrft_bench.registry import PROFILES
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import (
    BoxTarget,
    Dataset,
    DataSpec,
    ImageRef,
    Message,
    Prediction,
    ProtocolName,
    Sample,
    Status,
)
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.profiles import QWEN2_VL, QWEN3_VL
from vrft_bench.tasks.validate import Check, validate

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


def checked(folder: Path, boxes: list[list[float]], protocol: ProtocolName = "strict") -> dict[str, Check]:
    """The checks of dogs in one image of 100 x 100 pixels, by name; ``boxes`` are (x, y, width, height)."""
    Image.new("RGB", (100, 100)).save(folder / "a.png")
    rows = [{"id": number, "image_id": 1, "category_id": 1, "bbox": box} for number, box in enumerate(boxes)]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 100}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "dog"}],
    }
    (folder / "mine.json").write_text(json.dumps(document))
    spec = DataSpec(annotations=folder / "mine.json", images=folder)
    return {check.name: check for check in validate(get_task("detection", protocol), spec, [QWEN2_VL, QWEN3_VL])}


def test_an_object_that_leaves_the_image_is_no_flaw_of_the_gold_completion(tmp_path: Path) -> None:
    """COCO and LVIS hold some; what lies outside can be neither seen nor written."""
    found = checked(tmp_path, [[50, 50, 60, 60]])
    assert found["gold scores the maximum on every sample"].passed
    assert not found["gold scores the maximum (qwen2-vl)"].passed, (
        "the mean over all samples tells where there are many"
    )


def test_boxes_that_leave_their_image_are_counted_and_most_of_them_are_a_failure(tmp_path: Path) -> None:
    def inside(*boxes: list[float]) -> tuple[bool, str, str]:
        check = checked(tmp_path, list(boxes))["boxes lie inside their image"]
        return check.passed, check.detail, check.fix

    assert inside([0, 0, 100, 100], [60, 60, 41, 41.4], [-1, -1, 50, 50]) == (True, "", ""), "rounding"
    assert inside([1, 2, 30, 30], [90, 90, 30, 10]) == (True, "1 of 2 leave it, first '1:dog' by 20 pixels", "")
    passed, detail, fix = inside([60, 10, 90, 40], [1, 2, 30, 30], [20, 30, 90, 70])
    assert (passed, detail) == (False, "2 of 3 leave it, first '1:dog' by 50 pixels")
    assert "are the boxes corners?" in fix


@pytest.mark.parametrize("protocol", ["strict", "paper"])
@pytest.mark.parametrize(
    ("boxes", "remark"),
    [
        ([[10, 10, 30, 30]] * 2, "1 of 2 boxes equal an earlier one of their sample, first '1:dog'"),
        (
            [[10, 10, 30, 30], [50, 50, 20, 20], [10, 10, 30, 30], [10, 10, 30, 30]],
            "2 of 4 boxes equal an earlier one of their sample, first '1:dog'",
        ),
        ([[10, 10, 30, 30], [10, 10, 30, 30.001]], ""),
    ],
    ids=["twice", "three times beside another", "equal once written"],
)
def test_an_object_that_is_listed_twice_is_a_remark(
    tmp_path: Path, boxes: list[list[float]], remark: str, protocol: ProtocolName
) -> None:
    """The paper's reader takes equal boxes for one, so that no answer to it holds them all."""
    found = checked(tmp_path, boxes, protocol)
    assert [name for name, check in found.items() if not check.passed] == []
    assert found["no object is listed twice"].detail == remark


def test_a_reader_that_loses_one_of_two_different_boxes_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    sample = Sample(
        "1", ImageRef(100, 100, tmp_path / "a.png"), {"category": "dog"}, BoxTarget(((0.0, 0.0, 9.0, 9.0),))
    )
    pair = replace(sample, target=BoxTarget(((0.0, 0.0, 9.0, 9.0), (50.0, 50.0, 60.0, 60.0))))

    @dataclass(frozen=True)
    class Forgetful(DetectionTask):
        def load(self, spec: DataSpec) -> Dataset:
            return Dataset("val", ("dog",), lambda: iter([pair]))

        def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
            read = super().parse(text, frame, truncated=truncated)
            return replace(read, status=Status.REPAIRED, detections=read.detections[:1])

    found = {check.name: check for check in validate(Forgetful("t", "1", ""), DataSpec(), [QWEN2_VL])}
    assert not found["gold scores the maximum on every sample"].passed
    assert found["gold scores the maximum (qwen2-vl)"].detail == "1 gold completions are not read as ok, first '1'"


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
    nothing = f"1 samples, first '3:cat': {tmp_path}/3.png is no image in a format that is read"
    assert wrong(4) == nothing
    (tmp_path / "3.png").write_text("no image at all")
    assert wrong(4) == nothing
