"""The linear reading and scoring of the paper's protocol gives what the plain one gives: same boxes, same rewards.

``Plain`` is the description of the reference written down without regard to time or memory: each reward reads the
answer anew, whole, and compares every box with every truth.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vrft_bench.registry import PROFILES
from vrft_bench.tasks.base import BoxTarget, Detection
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.paper import box_list, parsing, rewards
from vrft_bench.tasks.paper.box_list import BoxList, number_table
from vrft_bench.tasks.paper.parsing import FAILURES, LARGEST
from vrft_bench.tasks.paper.rewards import CONFIDENCE, IOU, IOU_V1

FRAME = Frame(PROFILES.get("qwen2-vl"), 640, 480)
TARGET = BoxTarget(((64.0, 48.0, 320.0, 240.0), (70.4, 48.0, 320.0, 240.0), (384.0, 288.0, 448.0, 336.0)))
TRUTHS = [[100, 100, 500, 500], [110, 100, 500, 500], [600, 600, 700, 700]]


class Plain:
    """What the reference's evaluation and rewards make of a text."""

    @staticmethod
    def answer(text: str) -> str:
        found = re.search(r"<answer>(.*?)</answer>", text)
        return found.group(1).strip() if found else text.strip()

    @staticmethod
    def elements(content: str) -> list[Any] | None:
        content = content.partition("</answer>")[0]
        if not content.endswith("]"):
            content = content.rsplit("},", 1)[0] + "}]"
        try:
            value: list[Any] = json.loads(content.replace("'", '"'))
        except json.JSONDecodeError:
            return None
        return value

    @staticmethod
    def different(elements: list[Any]) -> list[Any]:
        seen: dict[tuple[Any, ...], Any] = {}
        for element in elements:
            seen.setdefault(tuple(element["Position"]), element)
        return list(seen.values())

    @classmethod
    def evaluated(cls, text: str) -> tuple[list[Detection], int, int, bool]:
        """The boxes, how many were read, how many of those lie outside the image, whether an error ended the list."""
        for old, new in (("[[", "["), ("]]", "]"), ("\n", ""), (", ...", "")):
            text = text.replace(old, new)
        boxes: list[Detection] = []
        read = outside = 0
        try:
            elements = cls.elements(cls.answer(text))
            if elements is None or isinstance(elements[0], str):
                return boxes, 0, 0, False
            for element in cls.different(elements):
                x1, y1, x2, y2 = element["Position"]
                box = (x1 / 1000.0 * 640, y1 / 1000.0 * 480, x2 / 1000.0 * 640, y2 / 1000.0 * 480)
                stated = element["Confidence"]
                read += 1
                outside += not all(0 <= value <= 1000 for value in (x1, y1, x2, y2))
                if type(stated) in (int, float) and all(math.isfinite(value) for value in box):
                    ranked = -2.0 * LARGEST if stated != stated else float(min(max(stated, -LARGEST), LARGEST))
                    boxes.append(Detection(box, ranked))
        except FAILURES:
            return boxes, read, outside, True
        return boxes, read, outside, False

    @classmethod
    def rewarded(cls, text: str, truths: list[list[float]]) -> tuple[float, float, float]:
        """IoU, IoU of version 1, confidence."""
        content = cls.answer(text)
        for old, new in (("[[", "["), ("]]", "]"), ("\n", "")):
            content = content.replace(old, new)
        try:
            elements = cls.elements(content)
            if not truths or elements is None or not isinstance(elements[0], dict):
                return 0.0, 0.0, 0.0
            matches = cls.matches(cls.different(elements), truths)
            total, overlaps = 0.0, 0.0
            for overlap, stated in matches:
                total += stated if overlap else 1 - stated
                overlaps += overlap
            mean = total / len(matches)
            return (
                float(min(overlaps / max(len(truths), len(matches)), 1.0)),
                float(min(overlaps / len(matches), 1.0)),
                mean if math.isnan(mean) else float(min(max(mean, 0.0), 1.0)),
            )
        except FAILURES:
            return 0.0, 0.0, 0.0

    @staticmethod
    def matches(elements: list[Any], truths: list[list[float]]) -> list[tuple[float, Any]]:
        free = dict(enumerate(truths))
        found: list[tuple[float, Any]] = []
        for element in sorted(elements, key=lambda item: item["Confidence"], reverse=True):
            overlaps = {number: rewards._iou(truth, element["Position"]) for number, truth in free.items()}
            best = max(overlaps, key=lambda number: (overlaps[number] > 0, overlaps[number]), default=-1)
            overlap = overlaps.get(best, 0.0)
            if overlap > 0.5:
                del free[best]
            found.append((overlap if overlap > 0.5 else 0.0, element["Confidence"]))
        return found


coordinates = st.sampled_from(
    ["0", "-0.0", "100", "110", "105.5", "500", "490", "600", "700", "1000", "-5", "1.0e2", "300"]
)
odd = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "1e999", "9" * 320, "9" * 4400, "'7'", "true", "null", "[]", "2305843009213693951"]
)
numbers = st.integers(0, 9).flatmap(lambda draw: odd if draw == 9 else coordinates)
positions = st.lists(numbers, min_size=4, max_size=4) | st.sampled_from(
    [["100", "100", "500", "500"], ["110", "100", "500", "500"], ["1", "2", "3"], ["600", "600", "700", "690"]]
)
confidences = st.sampled_from(["0.9", "0.5", "1", "0", "0.25"]) | odd
boxes = st.builds(
    lambda position, confidence: f"{{'Position': [{', '.join(position)}], 'Confidence': {confidence}}}",
    positions,
    confidences,
)
oddities = st.sampled_from(
    ["{}", "'a'", "1", "[1, 2]", "{'Position': [1, 2, 3, 4]}", "{'Position': 'abcd', 'Confidence': 1}", "...", "]"]
)
disguises = st.sampled_from(
    [
        *("{'Position': [1, 2, 3, 4], 'Confidence': 1, 'note': 'so, ...'}", "[[", "</answer>", "\n"),
        *("{'Position': [[]]}", "{'Position': ', ...abcd', 'Confidence': 1}", "{'Position': [1, 2, 3, 'a']}"),
        *("{'Position': [1, 2, 3, 4], 'Confidence': 1, 'note': 'a}, {b'}", "{'Position': [1], 'of': [{}, {}, {}]}"),
    ]
)
elements = st.lists(st.integers(0, 7).flatmap(lambda draw: oddities | disguises if draw == 7 else boxes), max_size=8)
texts = st.builds(
    lambda items, comma, opening, closing: f"{opening}{comma.join(items)}{closing}",
    elements,
    st.sampled_from([", ", ",", " ,\t", ",\n", "},"]),
    st.sampled_from(["<think>a</think><answer>[", "[", "[[", "<answer> [ ", "", "<answer>\n[", "<answer><answer>["]),
    st.sampled_from(["]</answer>", "]", "]]</answer>", "", ", ...]</answer>", "].</answer>", " ] </answer>", "}]x]"]),
)


@given(texts)
@settings(max_examples=1500, deadline=None)
@example("[]")
@example("[ ]")
@example("<answer>[{'Position': [100, 100, 500, 500], 'Confidence': 1}, ...]</answer>")
@example("[{'Position': [1, 2, 3, 4], 'Confidence': 1}, {'Position': [1, 2, 3, 4], 'Confidence': 1, 'of': [{}, {}]}, ]")
@example("[{'Position': [1, 2, 3, 4], 'Confidence': 1}, {'Position': [5, 6, 7, 8], 'Confidence': 1, 'of': [{}, {}]}]")
@pytest.mark.parametrize(
    ("few", "may_collide", "portion"),
    [(200, False, 8000), (0, False, 8000), (0, True, 8000), (0, False, 1), (0, False, 60)],
    ids=["few boxes", "many boxes", "many odd boxes", "portions of a box", "portions"],
)
def test_boxes_and_rewards_are_those_of_the_plain_reading(few: int, may_collide: bool, portion: int, text: str) -> None:
    with (
        mock.patch.object(box_list, "FEW_BOXES", few),
        mock.patch.object(box_list, "_PORTION", portion),
        mock.patch.object(box_list, "_hashes_may_collide", return_value=may_collide),
        mock.patch.object(rewards, "verified", return_value=False),
    ):
        prediction = parsing.parse_detections(text, FRAME)
        found = tuple(reward.function(prediction, TARGET) for reward in (IOU, IOU_V1, CONFIDENCE))
    plain, read, outside, ended = Plain.evaluated(text)
    assert list(prediction.detections) == plain
    assert (prediction.boxes_read, prediction.boxes_out_of_range) == (read, outside)
    if plain:
        assert ended == any("what cannot be read" in note for note in prediction.notes)
    assert rewards._positions(TARGET, FRAME) == TRUTHS
    assert str(found) == str(Plain.rewarded(text, TRUTHS))  # as text, since NaN equals nothing


@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(180, 220), st.floats(0, 1)), min_size=1, max_size=30))
@settings(deadline=None)
@example([(0.0, 200.001, 0.5), (0.0, 200.0, 0.5)])
def test_a_long_answer_is_compared_in_portions_to_the_same_result(halves: list[tuple[float, ...]]) -> None:
    """Boxes that cover about half of a truth, some a little more than half."""
    positions = [(100 + x, 100, 100 + x + width, 500) for x, width, _ in halves]
    confidences = [stated for _, _, stated in halves]
    by_pairs = rewards._compare(BoxList(positions, confidences), TRUTHS)
    with mock.patch.object(rewards, "BOXES_AT_ONCE", 7), mock.patch.object(box_list, "FEW_BOXES", 0):
        for table in (None, number_table(positions)):
            assert rewards._compare(BoxList(positions, confidences, 0, table), TRUTHS) == by_pairs


BIG = 2**61 - 1
"""Python's hash of each multiple of it is 0."""


@pytest.mark.parametrize("numbers", [[BIG, 2 * BIG, 0], [1, 2.0**61, 2.0**-61, 2.0**122], [3, 3 * 2**61]])
def test_numbers_with_equal_hashes_do_not_have_equal_keys_hashes(numbers: list[float]) -> None:
    """Else a list of them, of which 1 MB holds thousands, takes quadratic time."""
    assert len({hash(number) for number in numbers}) == 1
    positions = [(a, b, c, d) for a in numbers for b in numbers for c in numbers for d in numbers]
    with mock.patch.object(box_list, "FEW_BOXES", 0):
        table = number_table(positions)
    assert table is not None
    for keys in ([box_list._salted(position) for position in positions], box_list._keys(positions, table)):
        assert len({hash(key) for key in keys}) == len(keys) == len(numbers) ** 4


near_2_to_53 = st.integers(2**53 - 2, 2**53 + 2)
alike = (
    st.integers(-2, 2) | st.booleans() | near_2_to_53 | st.sampled_from([0.5, math.inf, 10**309])
    | st.builds(float, st.integers(-2, 2) | near_2_to_53)
)  # fmt: skip


@given(
    st.lists(st.tuples(alike, alike, alike, alike), min_size=2)
    | st.lists(st.tuples(alike, st.sampled_from(["1", None, 1])), min_size=2)
)
@settings(max_examples=500, deadline=None)
@example([(2**53 + 1, 2.0**53, 0, 0), (2.0**53, 2**53 + 1, 0, 0)])
@example([(0, 0.0, -0.0, False), (-0.0, 0, 0, 0)])
def test_keys_are_equal_where_positions_are(positions: list[tuple[Any, ...]]) -> None:
    with mock.patch.object(box_list, "FEW_BOXES", 0):
        table = number_table(positions)
    kinds = [[box_list._salted(position) for position in positions]]
    if table is not None:
        kinds.append(box_list._keys(positions, table))
    for keys in kinds:
        for number, position in enumerate(positions):
            assert [key == keys[number] for key in keys] == [other == position for other in positions]
    assert kinds[0] == kinds[-1]


@pytest.mark.parametrize("number", ["2305843009213693951", "1e9", "1E9", "0.0000000000000000004336808689942018"])
def test_lists_with_such_numbers_are_known_by_their_digits(number: str) -> None:
    assert box_list._hashes_may_collide(f'[{{"Position": [1, {number}, 3, 4]}}]')
    assert not box_list._hashes_may_collide('[{"Position": [1, 2, 3, 123456789012345], "Confidence": 0.95}]')


coordinate = st.sampled_from(["1", "20", " 300 ", "9" * 320, "9" * 4400, "0" * 400 + "5"])
points = st.builds("({},{})".format, coordinate, coordinate)
regions = st.builds("{}{}{}".format, points, st.sampled_from([",", " ,\n", ", "]), points)


@given(st.lists(regions | points | st.sampled_from([",", "x", "(", "(1.5,2)"]), max_size=6).map("".join))
@settings(max_examples=500, deadline=None)
def test_corners_of_a_region_are_those_of_all_boxes_in_a_row(text: str) -> None:
    def plain() -> list[tuple[float, float]]:
        point = r"\(\s*(\d+)\s*,\s*(\d+)\s*\)"
        found = [[int(digits) / 1000 for digits in match] for match in re.findall(rf"{point}\s*,\s*{point}", text)]
        return ([(x1, y1) for x1, y1, _, _ in found] + [(x2, y2) for _, _, x2, y2 in found])[:2]

    def outcome(read: Callable[[], list[tuple[float, float]]]) -> list[tuple[float, float]] | None:
        try:
            return read() or None
        except FAILURES:
            return None

    assert outcome(lambda: rewards._corners(text)) == outcome(plain)


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ("{'Position': ['1', 2, 3, 4], 'Confidence': 0.9}", "TypeError"),
        ("{'Position': [1, 2, 3], 'Confidence': 0.9}", "ValueError"),
        (f"{{'Position': [{'9' * 400}, 2, 3, 4], 'Confidence': 0.9}}", "OverflowError"),
        ("{'Position': [1, 2, 3, 4]}", "KeyError"),
        ("{'Position': [1, 2, 3, 4], 'Confidence': '0.9'}", ""),
        (f"{{'Position': [1, 2, 3, 4], 'Confidence': {'9' * 400}}}", ""),
    ],
)
def test_one_odd_box_among_many_costs_what_it_costs_among_few(last: str, error: str) -> None:
    """The others are read at once all the same."""
    many = ", ".join(f"{{'Position': [{n}, 90, 500, 500], 'Confidence': 0.9}}" for n in range(300))
    text = f"<answer>[{many}, {last}, {{'Position': [5, 6, 7, 8], 'Confidence': 1}}]</answer>"
    with mock.patch.object(parsing, "_evaluated_at_once", wraps=parsing._evaluated_at_once) as at_once:
        prediction = parsing.parse_detections(text, FRAME)
    assert at_once.call_count == 1
    assert list(prediction.detections) == Plain.evaluated(text)[0]
    assert (f"the list ends at what cannot be read ({error})" in prediction.notes) is bool(error)


def test_a_list_that_both_readings_take_alike_is_compared_as_it_was_read() -> None:
    def twice(note: str) -> bool:
        text = f"<answer>[{{'Position': [1, 2, 3, 4], 'Confidence': 1, {note}}}]</answer>"
        with mock.patch.object(box_list, "_without_duplicates", wraps=box_list._without_duplicates) as compared:
            parsing.parse_detections(text, FRAME)
        return compared.call_count == 2

    assert not twice("'note': 'so, ...'")
    assert twice("'Confi, ...dence': 0.5")
