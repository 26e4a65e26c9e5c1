"""Symbolic verification is the library's own, in every thread, and ends."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import BoxTarget
from vrft_bench.tasks.paper import symbolic
from vrft_bench.tasks.paper.parsing import parse_detections
from vrft_bench.tasks.paper.rewards import IOU
from vrft_bench.tasks.paper.symbolic import may_take_long, verified

SOLUTION = "<answer>[{'Position': [1, 364, 98, 649], 'Confidence': 1}]</answer>"
TEXTS = {
    SOLUTION: True,
    "<think>I see 2 cats</think><answer>[{'Position': [9, 364, 8, 7], 'Confidence': 0.1}]</answer>": True,
    "The final answer is 364": True,
    "The final answer is 363": False,
    "It is $364$": True,
    "It is \\boxed{364}": True,
    "It is $300+64$": True,
    "": False,
    "No Objects": False,
    "**364**": True,
}


@pytest.mark.parametrize("text", TEXTS)
def test_the_verdict_is_that_of_the_library_with_its_defaults(text) -> None:
    from math_verify import parse, verify

    assert verified(text, SOLUTION) is TEXTS[text]
    assert verified(text, SOLUTION) is bool(verify(parse(text), parse(SOLUTION)))


def test_threads_agree_with_the_main_thread() -> None:
    texts = [*TEXTS, "$18^2+40$"] * 2
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda text: verified.__wrapped__(text, SOLUTION), texts))
    assert found == [*TEXTS.values(), True] * 2


def test_powers_are_verified_apart_and_cost_no_more_than_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "TIME_LIMIT", 3.0)
    assert may_take_long("$10^{10^{10}}$")
    before = time.monotonic()
    assert verified("$10^{10^{10}}$", SOLUTION) is False
    assert time.monotonic() - before < 60.0  # without a process of its own it does not come back at all


@pytest.mark.parametrize("text", [*TEXTS, "Great! A dog and **bold** words: 2 * 3", "x" * 1000])
def test_plain_answers_need_no_process(text) -> None:
    assert not may_take_long(text)


@pytest.mark.parametrize(
    "text", ["2^3", "2 ** 3", "$5!$", "$\\binom{9}{4}$", "1 " * 3_000, "$1$ " * 200, "\\(" * 300, "\\boxed{1}" * 100]
)
def test_what_can_explode_gets_one(text) -> None:
    assert may_take_long(text)


def test_without_the_library_a_user_is_told_what_to_install(say, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "math_verify", None)
    symbolic.verified.cache_clear()
    symbolic._parsed_solution.cache_clear()
    prediction = parse_detections("x", say.frame)
    with pytest.raises(UserError, match=r"(?s)math-verify.*pip install 'vrft-bench\[paper\]'"):
        IOU(prediction, BoxTarget(((1.0, 2.0, 30.0, 40.0),)))
    from vrft_bench.tasks import get_task
    from vrft_bench.tasks.base import DataSpec

    with pytest.raises(UserError, match="math-verify"):
        get_task("coco_fewshot", "paper").load(DataSpec())


def test_the_strict_protocol_imports_nothing_of_the_paper() -> None:
    code = (
        "import sys\nfrom vrft_bench.tasks import get_task\nfrom vrft_bench.registry import TASKS\n"
        "for entry in TASKS: get_task(entry.name)\n"
        "assert not [name for name in sys.modules if 'paper' in name or 'math_verify' in name or 'sympy' in name]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
