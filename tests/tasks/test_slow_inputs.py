"""Scoring takes time and memory in proportion to the text, for all inputs that were made or found to be slow.

They are those of ``benchmarks/adversarial.py``: made by hand, or found by fuzzing and kept as recipes.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.tasks import get_task

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def adversarial() -> Any:
    spec = importlib.util.spec_from_file_location("adversarial", BENCHMARKS / "adversarial.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["adversarial"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


INPUTS = adversarial()
HAND_MADE = {name: shape for name, shape in INPUTS.HAND_MADE.items() if len(shape.begin) < 10_000}
"""Those that have their size from the unit, not from a long beginning."""


@pytest.fixture(autouse=True)
def _without_symbolic_verification() -> Iterator[None]:
    with INPUTS.without_symbolic_verification():
        yield


def score(protocol: Any, text: str) -> None:
    for name, target in INPUTS.TARGETS.items():
        task = get_task(name, protocol)
        task.judge(task.parse(text, INPUTS.FRAME), target)


def steps(protocol: str, text: str) -> int:
    """Calls of functions, written in Python or not."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        score(protocol, text)
    finally:
        sys.setprofile(before)
    return count


def peak(protocol: str, text: str) -> int:
    """The most bytes that Python had allocated."""
    tracemalloc.start()
    score(protocol, text)
    allocated = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return allocated


def seconds(protocol: str, text: str) -> float:
    best = float("inf")
    for _ in range(3):
        begin = time.process_time()
        score(protocol, text)
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_steps_and_memory_grow_in_proportion(protocol: str) -> None:
    """8 times the text may take 8 times the steps, and 12 times the memory, since hash tables grow by jumps."""
    for name, shape in (HAND_MADE | INPUTS.found_by_fuzzing(protocol)).items():
        small, large = shape.text(80_000), shape.text(640_000)
        score(protocol, large)  # so that imports do not count
        assert steps(protocol, large) < 9 * steps(protocol, small) + 1000, name
        most = peak(protocol, large)
        assert most < 12 * peak(protocol, small) + 500_000, name
        assert most < 30 * len(large.encode()) + 500_000, name


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_time_grows_in_proportion(protocol: str) -> None:
    """In ratios: 8 times the text may take at most 20 times as long, not 64."""
    for name, shape in (HAND_MADE | INPUTS.found_by_fuzzing(protocol)).items():
        small, large = shape.text(125_000), shape.text(1_000_000)
        assert seconds(protocol, large) < 20 * seconds(protocol, small) + 0.02, name


def test_the_fuzzers_recipes_are_of_both_protocols_and_all_families() -> None:
    kept = json.loads(INPUTS.SLOW_INPUTS.read_text(encoding="utf-8"))
    assert {(item["task"], item["protocol"]) for item in kept} == {
        (task, protocol) for task in INPUTS.TARGETS for protocol in ("strict", "paper")
    }
