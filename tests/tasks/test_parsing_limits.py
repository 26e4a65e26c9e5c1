"""The parser's work is bounded: time and memory grow with the text and no faster, whatever the text is."""

from __future__ import annotations

import sys
import time
import tracemalloc
from collections.abc import Callable

import pytest

from vrft_bench.tasks.base import Prediction, Status
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.parsing import parse_detections, parse_label, parse_region
from vrft_bench.tasks.profiles import QWEN2_VL

FRAME = Frame(QWEN2_VL, 640, 480)
ELEMENT = "{'Position': [100, 100, 500, 500], 'Confidence': 0.9}"
PARSERS = (parse_detections, parse_label, parse_region)


def reply(answer: str) -> str:
    return f"<think>a thought</think>\n<answer>{answer}</answer>"


_ADVERSARIAL = {
    "open brackets": lambda n: "[" * n,
    "open braces": lambda n: "<answer>" + "{" * n,
    "opening tags": lambda n: "<answer>" * (n // 8),
    "alternating tags": lambda n: "<think></think>" * (n // 15),
    "fences": lambda n: "```" * (n // 3),
    "white space after a key": lambda n: "<answer>[{'Position'" + " " * n,
    "keys without values": lambda n: "<answer>[{" + "'Position' " * (n // 11) + "}]</answer>",
    "white space between corners": lambda n: "<answer>(1,2)" + " " * n + "</answer>",
    "half corners": lambda n: "<answer>" + "(1,2)," * (n // 6) + "</answer>",
    "a long number": lambda n: "<answer>[{'Position': [" + "9" * n + ", 1, 2, 3]}]</answer>",
    "many boxes": lambda n: "<answer>[" + f"{ELEMENT}, " * (n // len(ELEMENT)) + "]</answer>",
    "broken boxes": lambda n: "<answer>[" + "{'Position': [1, 2, 3, }, " * (n // 26) + "]</answer>",
}


@pytest.mark.parametrize("name", _ADVERSARIAL)
def test_work_and_memory_grow_linearly(name: str) -> None:
    """Counted in function calls and in allocated bytes: 8 times the input may take 8 times as much, and no more."""

    def calls(text: str) -> int:
        count = 0

        def note(frame: object, event: str, argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        before = sys.getprofile()
        sys.setprofile(note)
        try:
            for parse in PARSERS:
                parse(text, FRAME)
        finally:
            sys.setprofile(before)
        return count

    def peak(text: str) -> int:
        tracemalloc.start()
        for parse in PARSERS:
            parse(text, FRAME)
        allocated = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return allocated

    small, large = _ADVERSARIAL[name](20_000), _ADVERSARIAL[name](160_000)
    assert calls(large) < 9 * calls(small) + 1000
    assert peak(large) < 9 * peak(small) + 500_000
    assert peak(large) < 30 * len(large) + 500_000


@pytest.mark.parametrize("parse", [parse_detections, parse_region])
@pytest.mark.parametrize("text", [reply("[" + ", ".join([ELEMENT] * 1001) + "]"), reply("{'Position' " * 1001)])
def test_more_boxes_than_any_image_has_are_no_answer(parse: Callable[..., Prediction], text: str) -> None:
    prediction = parse(text, FRAME)
    assert (prediction.status, prediction.detections) == (Status.MALFORMED, ())
    assert prediction.notes == ("more than 1,000 boxes",)
    assert len(parse_detections(reply("[" + ", ".join([ELEMENT] * 1000) + "]"), FRAME).detections) == 1000


def test_a_loop_of_tags_is_no_answer() -> None:
    loop = "<answer></answer>" * 499
    assert parse_label(f"{loop}<answer>cat</answer>", FRAME).label == "cat"
    assert parse_label(f"{loop}<answer></answer><answer>cat</answer>", FRAME).status is Status.NO_ANSWER


@pytest.mark.parametrize("name", _ADVERSARIAL)
def test_time_grows_linearly(name: str) -> None:
    """Counted in ratios rather than seconds: 8 times the input may take at most 20 times as long, not 64."""

    def cost(size: int) -> float:
        text = _ADVERSARIAL[name](size)
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            for parse in PARSERS:
                parse(text, FRAME)
            best = min(best, time.process_time() - start)
        return best

    small, large = cost(125_000), cost(1_000_000)
    assert large < 20 * small + 0.02
