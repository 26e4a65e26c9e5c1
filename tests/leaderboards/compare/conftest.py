"""Runs to compare, with answers that the tests choose question by question."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.mock import Noise, TextMock, gold
from vrft_bench.harness.plan import choose_task, make_plan
from vrft_bench.harness.run import carry_out
from vrft_bench.tasks.base import ClassTarget
from vrft_bench.tasks.profiles import ABS_ORIGINAL

AnswerText = Callable[[Request], str]


def gold_without_thought(request: Request) -> str:
    """Right, in a layout that was not asked for."""
    return gold(request).split("</think>")[-1].strip()


def wrong(request: Request) -> str:
    """Another class than the true one, or nothing at all."""
    target = request.sample.target
    if isinstance(target, ClassTarget):
        names = [name.strip() for name in request.sample.fields["options"].split(",")]
        return f"<think>?</think>\n<answer>{next(name for name in names if name != target.label)}</answer>"
    return "<think>?</think>\n<answer>No Objects</answer>"


def unreadable(request: Request) -> str:
    return f"<think>What a fine picture {request.sample.id} is"


class Runs:
    """Calls give the folder of a run in which a model of that name answers so."""

    gold, wrong, unreadable, gold_without_thought = map(staticmethod, (gold, wrong, unreadable, gold_without_thought))

    def __init__(self, root: Path) -> None:
        self._root = root

    def __call__(self, task: str, name: str, answer: AnswerText, **config: Any) -> Path:
        chosen = make_config(
            {"task": [task], "model": f"mock/{name}", "output_dir": self._root, "fresh": True, **config}
        )
        plan = make_plan(choose_task(task, chosen), ABS_ORIGINAL, chosen)
        return carry_out(plan, TextMock({"name": name}, answer)).folder

    @staticmethod
    def noisy(**args: float) -> AnswerText:
        return Noise(args)

    @staticmethod
    def sometimes(
        chance: float, right: AnswerText = gold, otherwise: AnswerText = wrong, seed: str = "", *, always: bool = False
    ) -> AnswerText:
        """``right`` with a chance of its own for every answer; with ``always``, for all answers to a sample at once."""

        def answer(request: Request) -> str:
            number = 0 if always else request.n
            drawn = random.Random(f"{seed}/{request.sample.id}/{number}").random()
            return (right if drawn < chance else otherwise)(replace(request, n=number))

        return answer


@pytest.fixture
def ran(tmp_path: Path, sample_cache: Path) -> Runs:
    return Runs(tmp_path / "results")
