"""What the tests of the paper protocol share: an image of 1000x1000 pixels, in which thousandths are pixels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from vrft_bench.registry import PROFILES
from vrft_bench.tasks.base import BoxTarget, ClassTarget, MaskTarget, Reward
from vrft_bench.tasks.coordinates import Box, Frame
from vrft_bench.tasks.paper.parsing import parse_detections, parse_label, parse_region

FRAME = Frame(PROFILES.get("qwen2-vl"), 1000, 1000)
TRUTH = BoxTarget(((1.0, 364.0, 98.0, 649.0),))
"""The example of the published training set: y1 is 364."""


class Say:
    """Completions, and what the reference pays for them before values are brought in range."""

    frame = FRAME

    @staticmethod
    def answer(content: str) -> str:
        return f"<think>I look.</think>\n<answer>{content}</answer>"

    @classmethod
    def boxes(cls, *items: tuple[tuple[float, ...], object]) -> str:
        """Boxes with confidences; both are written as Python writes them."""
        return cls.answer(
            "[" + ", ".join(f"{{'Position': {list(box)}, 'Confidence': {stated}}}" for box, stated in items) + "]"
        )

    @staticmethod
    def worth(reward: Reward, text: str, truths: tuple[Box, ...] = TRUTH.boxes) -> float:
        return reward.function(parse_detections(text, FRAME), BoxTarget(truths))

    @staticmethod
    def worth_as_label(reward: Reward, text: str, label: str) -> float:
        return reward.function(parse_label(text, FRAME), ClassTarget(label))

    @staticmethod
    def worth_as_region(reward: Reward, text: str, box: Box = (100.0, 100.0, 400.0, 400.0)) -> float:
        """The default truth covers .09 of the image."""
        x1, y1, x2, y2 = box
        target = MaskTarget(box, ((x1, y1, x2, y1, x2, y2, x1, y2),))
        return reward.function(parse_region(text, FRAME), target)


@pytest.fixture(scope="session")
def say() -> type[Say]:
    return Say


@pytest.fixture(scope="session")
def worlds() -> ModuleType:
    """Random detection worlds and the official evaluators, from the tests of the metrics."""
    path = Path(__file__).parents[1] / "metrics" / "conftest.py"
    spec = importlib.util.spec_from_file_location("detection_worlds", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["detection_worlds"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
