"""The repair of answers, its order, and where it gives up: PAPER section 2, each behaviour by name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrft_bench.tasks.base import Status
from vrft_bench.tasks.paper.box_list import boxes_in
from vrft_bench.tasks.paper.parsing import (
    FAILURES,
    LARGEST,
    evaluated_content,
    first_answer,
    keeps_format,
    parse_detections,
    parse_label,
    parse_region,
    rewarded_content,
)

ONE = "{'Position': [1, 2, 3, 4], 'Confidence': 0.5}"
TWO = "{'Position': [5, 6, 7, 8], 'Confidence': 0.9}"


def positions(content):
    """Of the boxes in what the evaluation or the rewards read as the list; ``None`` where they find none."""
    try:
        listed = boxes_in(content)
    except FAILURES:
        return None
    return listed and [list(position) for position in listed.positions]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (f"[[{ONE}]]", [[1, 2, 3, 4]]),
        (f"[{ONE},\n{TWO}]", [[1, 2, 3, 4], [5, 6, 7, 8]]),
        (f"[{ONE}, {TWO[:20]}", [[1, 2, 3, 4]]),  # cut at the last "},"
        (f"[{ONE}, {TWO}].", [[1, 2, 3, 4]]),  # a trailing full stop costs the last box
        (ONE, None),
        ("No Objects", None),
        ("nothing", None),
    ],
)
def test_repairs_of_the_evaluation(say, content, found) -> None:
    assert positions(evaluated_content(say.answer(content))) == found


def test_a_literal_ellipsis_is_dropped_by_the_evaluation_only(say) -> None:
    text = say.answer(f"[{ONE}, ...]")
    assert positions(evaluated_content(text)) == [[1, 2, 3, 4]]
    assert positions(rewarded_content(text, first_answer(text))) is None


def test_an_answer_over_several_lines_is_read_by_the_evaluation_only(say) -> None:
    text = say.answer(f"[{ONE},\n{TWO}]")
    assert len(positions(evaluated_content(text))) == 2
    assert positions(rewarded_content(text, first_answer(text))) is None
    assert keeps_format(text)


def test_a_truncated_list_in_tags_never_parses_and_a_bare_one_is_repaired(say) -> None:
    cut = f"[{ONE}, {TWO[:20]}"
    assert positions(evaluated_content(f"<think>a</think><answer>{cut}")) is None
    assert positions(evaluated_content(cut)) == [[1, 2, 3, 4]]
    assert parse_detections(f"<think>a</think><answer>{cut}", say.frame, truncated=True).status is Status.TRUNCATED


def test_the_first_of_two_answers_counts(say) -> None:
    assert positions(evaluated_content(f"<answer>[{ONE}]</answer><answer>[{TWO}]</answer>")) == [[1, 2, 3, 4]]


def test_an_empty_list_and_an_error_give_no_box(say) -> None:
    for content in ("[]", "['No Objects']", "[1]", "[{'Box': 1}]", "[" * 5000, "[" + "9" * 5000 + "]"):
        prediction = parse_detections(say.answer(content), say.frame)
        assert prediction.detections == ()
        assert prediction.status is Status.MALFORMED


def test_boxes_before_a_bad_element_are_kept(say) -> None:
    for bad in ("{'Position': [1, 2, 3], 'Confidence': 1}", "{'Position': ['a', 2, 3, 4], 'Confidence': 1}"):
        prediction = parse_detections(say.answer(f"[{ONE}, {bad}, {TWO}]"), say.frame)
        assert [item.box for item in prediction.detections] == [(1.0, 2.0, 3.0, 4.0)]
    without_confidence = parse_detections(say.answer(f"[{ONE}, {{'Position': [1, 2, 3, 5]}}, {TWO}]"), say.frame)
    assert len(without_confidence.detections) == 1


def test_an_element_without_a_position_loses_all_boxes(say) -> None:
    for bad in ("{'Confidence': 1}", "'text'", "{'Position': [[1], 2, 3, 4], 'Confidence': 1}"):
        assert parse_detections(say.answer(f"[{ONE}, {bad}]"), say.frame).detections == ()


def test_equal_positions_are_dropped_and_the_first_is_kept_not_the_most_confident(say) -> None:
    low, high = "{'Position': [1, 2, 3, 4], 'Confidence': 0.1}", "{'Position': [1, 2, 3, 4.0], 'Confidence': 0.9}"
    near = "{'Position': [1, 2, 3, 4.001], 'Confidence': 0.9}"
    prediction = parse_detections(say.answer(f"[{low}, {high}, {near}]"), say.frame)
    assert [item.confidence for item in prediction.detections] == [0.1, 0.9]
    assert prediction.detections[1].box[3] == pytest.approx(4.001)


def test_boxes_are_neither_clipped_nor_reordered_and_confidences_raw(say) -> None:
    text = say.boxes(((2000, 30, -10, 20), 50), ((0, 0, 5, 5), -9), ((0, 0, 6, 6), True))
    prediction = parse_detections(text.replace("True", "true"), say.frame)
    assert prediction.detections[0] == ((2000.0, 30.0, -10.0, 20.0), 50.0)
    assert prediction.detections[1].confidence == -9.0
    assert prediction.boxes_out_of_range == 1
    assert len(prediction.detections) == 2  # pycocotools stops with an error where a score is no number


def test_what_cannot_be_ranked_or_drawn_is_dropped_or_ranked_within_bounds(say) -> None:
    text = say.boxes(((0, 0, 5, 5), "Infinity"), ((0, 0, 6, 6), "NaN"), ((0, 0, 7, 7), 10**400), ((0, 0, 8, 8), "'1'"))
    assert [item.confidence for item in parse_detections(text, say.frame).detections] == [
        LARGEST,
        -2 * LARGEST,
        LARGEST,
    ]
    not_finite = say.boxes((("NaN",) * 4, 0.5)).replace("'NaN'", "NaN")
    assert parse_detections(not_finite, say.frame).detections == ()


def test_a_predictions_record_holds_finite_numbers(say) -> None:
    import json

    text = say.boxes(((0, 0, 5, 5), "Infinity"), ((0, 0, 6, 6), "NaN"), ((0, 0, "Infinity", 6), 1))
    json.dumps(parse_detections(text.replace("'Inf", "Inf").replace("ty'", "ty"), say.frame).to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("<think>a</think><answer>b</answer>", True),
        ("<think></think><answer></answer>", True),
        ("<think>a\nb</think>\n\t <answer>b\nc</answer>", True),
        ("<think>a</think><answer>b</answer>\n", False),
        (" <think>a</think><answer>b</answer>", False),
        ("<think>a</think> so <answer>b</answer>", False),
        ("<think>a</think><answer>b</answer> and more <answer>c</answer>", True),
        ("<think>a</think> x <think>b</think><answer>c</answer>", True),
        ("<answer>b</answer>", False),
        ("<think></answer>", False),
    ],
)
def test_format_reward_by_example(text, kept) -> None:
    assert keeps_format(text) is kept


tags = st.lists(
    st.sampled_from(["<think>", "</think>", "<answer>", "</answer>", " ", "\n", "a", "<", "\r"]), max_size=14
)


@given(tags.map("".join))
@settings(max_examples=1000)
def test_the_linear_forms_accept_what_the_references_expressions_accept(text) -> None:
    whole = re.fullmatch(r"<think>.*?</think>\s*<answer>.*?</answer>", text, re.DOTALL)
    assert keeps_format(text) is bool(whole)
    for over_lines, flags in ((False, 0), (True, re.DOTALL)):
        match = re.search(r"<answer>(.*?)</answer>", text, flags)
        assert first_answer(text, over_lines=over_lines) == (match.group(1).strip() if match else None)


@pytest.mark.parametrize(
    "unit", ["<answer>", "</think><answer>", "<think>", "[", "(", "(1", "{'Position': [", "(1,1),"]
)
def test_a_megabyte_is_read_by_every_parser(say, unit) -> None:
    text = "<think>" + unit * (1_000_000 // len(unit))
    for parse in (parse_detections, parse_label, parse_region):
        parse(text, say.frame)


def test_a_label_needs_tags_on_one_line_and_may_be_empty(say) -> None:
    assert parse_label("<answer> Boeing 737 </answer>", say.frame).label == "Boeing 737"
    assert parse_label("<answer></answer>", say.frame).label == ""
    assert parse_label("Boeing 737", say.frame).label is None
    assert parse_label("<answer>Boeing\n737</answer>", say.frame).label is None


def test_grounding_takes_the_first_integer_box_of_the_thought_too(say) -> None:
    def box(text):
        found = parse_region(text, say.frame).detections
        return found[0].box if found else None

    assert box("<think>(1,2),(3,4)</think><answer>(5,6),(7,8)</answer>") == (1, 2, 3, 4)
    assert box("<answer>( 5 , 6 ) ,\n( 7 , 8 )</answer>") == (5, 6, 7, 8)
    assert box("<answer>(5.0,6),(7,8)</answer>") is None
    assert box("<answer>[5,6,7,8]</answer>") is None
    assert box(f"<answer>({'9' * 400},6),(7,8)</answer>") is None
    assert box(f"<answer>({'9' * 5000},6),(7,8)</answer>") is None
