"""``validate`` passes what keeps its promises and names what does not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import pytest

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


def test_a_gold_completion_that_is_not_gold_is_named() -> None:
    assert failed(Shifted("t", "1", "")) == ["gold scores the maximum (qwen2-vl)"]


def test_a_chat_without_its_one_image_is_named() -> None:
    assert failed(Wordless("t", "1", "")) == ["prompts render (qwen2-vl)"]


def test_a_reward_for_silence_is_named() -> None:
    assert failed(Generous("t", "1", "")) == ["the empty completion earns nothing"]


def test_an_empty_selection_is_named() -> None:
    (check, *_) = validate(cast(DetectionTask, get_task("coco_fewshot")), DataSpec(), [], limit=0)
    assert (check.passed, check.detail) == (False, "no sample")
