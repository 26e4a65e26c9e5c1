"""Each box is found where it is written, and is as likely as the tokens of its numbers."""

from __future__ import annotations

import math
import re
import time
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import Detection
from vrft_bench.tasks.box_likelihood import box_likelihoods, box_spans
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.paper.prediction import thousandths
from vrft_bench.tasks.profiles import QWEN2_VL

TASK = get_task("coco_fewshot")
FRAME = Frame(QWEN2_VL, 640, 480)
BOXES = st.tuples(st.integers(0, 500), st.integers(0, 400), st.integers(501, 1200), st.integers(401, 1100))


def spelled(text: str, *, size: int = 2) -> list[tuple[int, float]]:
    """Tokens of ``size`` characters, the one that ends at ``end`` with the log-probability -1/end."""
    ends = [*range(size, len(text), size), len(text)]
    return [(end, -1 / end) for end in ends]


def answer(boxes: list[tuple[int, ...]]) -> str:
    elements = ", ".join(f"{{'Position': {list(box)}, 'Confidence': 0.5}}" for box in boxes)
    return f"<think>it may be at [1, 2, 501, 402]</think>\n<answer>[{elements}]</answer>"


@settings(max_examples=200)
@given(
    st.lists(BOXES, min_size=1, max_size=6),
    st.sampled_from(["xyxy", "yxyx"]),
    st.sampled_from(["norm_1000", "abs_original"]),
)
def test_every_box_of_an_answer_is_found_in_the_answer(
    boxes: list[tuple[int, ...]], axes: str, convention: str
) -> None:
    frame = Frame(ModelProfile("any", convention, axes=axes), 640, 480)  # type: ignore[arg-type]
    text = answer(boxes)
    detections = TASK.parse(text, frame).detections
    spans = box_spans(text, detections, frame)
    places = [span for span in spans if span is not None]
    assert len(places) == len(detections)
    assert places == sorted(places)
    assert all(start > text.index("<answer>") for start, _ in places)
    for (start, end), item in zip(places, detections, strict=True):
        values = [float(number) for number in re.findall(r"\d+", text[start:end])]
        clipped = TASK.parse(answer([tuple(map(int, values))]), frame).detections
        assert clipped[0].box == pytest.approx(item.box)


def test_boxes_of_the_paper_protocol_are_found_in_thousandths() -> None:
    pytest.importorskip("math_verify")
    task = get_task("coco_fewshot", "paper")
    text = answer([(100, 200, 300, 400), (7, 9, 1300, 999)])
    prediction = task.parse(text, FRAME)
    assert [text[slice(*span)] for span in box_spans(text, prediction.detections, thousandths(FRAME)) if span] == [
        "100, 200, 300, 400",
        "7, 9, 1300, 999",
    ]


def test_a_box_is_as_likely_as_the_tokens_of_its_numbers_on_average() -> None:
    text = answer([(100, 200, 300, 400)])
    numbers = "100, 200, 300, 400"
    start = text.index(numbers)
    detections = TASK.parse(text, FRAME).detections
    for size in (1, 2, 7):
        own = [
            end for end, _ in spelled(text, size=size) if end > start and end - size < start + len("100, 200, 300, 400")
        ]
        (likely,) = box_likelihoods(text, spelled(text, size=size), detections, FRAME)
        assert likely == pytest.approx(math.exp(sum(-1 / end for end in own) / len(own)))


@pytest.mark.parametrize("protocol", ["strict", "paper"])
@pytest.mark.parametrize(
    "written",
    [
        "[ 100,  200,\n 300 ,400 ]",
        "[0.40906422769227774, 12.5, 300.125, 400.0625]",
        "[1e2, 2E+2, 300.0, 4000e-1]",
        "[0.05, 0.15, 999.95, 333.35]",
    ],
)
def test_boxes_are_found_however_their_numbers_are_written(written: str, protocol: Literal["strict", "paper"]) -> None:
    if protocol == "paper":
        pytest.importorskip("math_verify")
    text = f"<think>a</think><answer>[{{'Position': {written}, 'Confidence': 0.5}}]</answer>".replace(
        "\n", " " if protocol == "paper" else "\n"
    )
    for width, height in ((640, 480), (333, 777), (1000, 1000)):
        frame = Frame(QWEN2_VL, width, height)
        detections = get_task("coco_fewshot", protocol).parse(text, frame).detections
        read_in = thousandths(frame) if protocol == "paper" else frame
        assert len(detections) == 1
        assert None not in box_spans(text, detections, read_in)


def test_tokens_that_leave_no_text_count_for_nothing() -> None:
    text = answer([(100, 200, 300, 400)])
    detections = TASK.parse(text, FRAME).detections
    doubled = [item for end, logprob in spelled(text) for item in ((end, logprob), (end, -50.0))]
    assert box_likelihoods(text, doubled, detections, FRAME) == box_likelihoods(text, spelled(text), detections, FRAME)


def test_a_box_that_the_text_lacks_or_no_token_spells_has_no_likelihood() -> None:
    text = answer([(100, 200, 300, 400)])
    detections = TASK.parse(text, FRAME).detections
    assert box_likelihoods(text, [], detections, FRAME) == (None,)
    assert box_likelihoods(text, spelled(text), [Detection((1.0, 1.0, 2.0, 2.0), 1.0)], FRAME) == (None,)
    assert box_likelihoods("", [], [], FRAME) == ()


def test_a_megabyte_of_boxes_takes_no_more_than_its_share() -> None:
    """By a ratio of two runs: boxes that are not in the text must not be looked for all through it."""

    def seconds(count: int) -> float:
        text = "[1, 2, 3, 4] " * count
        absent = [Detection((float(i), 0.0, i + 0.5, 9.0), 1.0) for i in range(1000)]
        begin = time.process_time()
        assert set(box_spans(text, absent, FRAME)) == {None}
        return time.process_time() - begin

    seconds(1000)
    assert min(seconds(40_000) for _ in range(3)) < 12 * min(seconds(10_000) for _ in range(3))
