"""The parser's work is bounded: loops are no answers. How it grows with the text is in ``test_slow_inputs.py``."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from vrft_bench.tasks.base import Prediction, Status
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.parsing import parse_detections, parse_label, parse_region
from vrft_bench.tasks.profiles import QWEN2_VL

FRAME = Frame(QWEN2_VL, 640, 480)
ELEMENT = "{'Position': [100, 100, 500, 500], 'Confidence': 0.9}"


def reply(answer: str) -> str:
    return f"<think>a thought</think>\n<answer>{answer}</answer>"


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
