"""The strict parser: what a person would accept is read, what is no answer is not; nothing makes it raise."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrft_bench.tasks import parsing
from vrft_bench.tasks import reply as replies
from vrft_bench.tasks.base import Status
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.parsing import parse_detections, parse_label, parse_region
from vrft_bench.tasks.profiles import ABS_ORIGINAL, QWEN2_5_VL, QWEN2_VL

FRAME = Frame(QWEN2_VL, 640, 480)
BOX = (64.0, 48.0, 320.0, 240.0)
ELEMENT = "{'Position': [100, 100, 500, 500], 'Confidence': 0.9}"
PARSERS = (parse_detections, parse_label, parse_region)


def reply(answer: str) -> str:
    return f"<think>a thought</think>\n<answer>{answer}</answer>"


def boxes(text: str) -> list[tuple[float, ...]]:
    return [item.box for item in parse_detections(text, FRAME).detections]


def test_the_asked_form_is_ok_and_well_formed() -> None:
    prediction = parse_detections(reply(f"[{ELEMENT}]"), FRAME)
    assert prediction.status is Status.OK
    assert prediction.well_formed
    assert prediction.detections[0].box == BOX
    assert prediction.detections[0].confidence == 0.9
    assert (prediction.boxes_read, prediction.boxes_out_of_range, prediction.notes) == (1, 0, ())


@pytest.mark.parametrize(
    "text",
    [
        "<think>hm</think><answer>Boeing 73",
        "<answer>Boeing 737-200",
        "Boeing 73",
        reply("Boeing 737"),
        f"<answer>[{ELEMENT}, {{'Position': [1, 2, 3",
        f"<answer>[{ELEMENT}",
        "<answer>(1,2),(300,400",
        "<answer>(1,2),(300,400)",
    ],
)
def test_what_is_read_is_decided_by_the_text_alone(text: str) -> None:
    """A trainer scores text without knowing why generation stopped; an evaluation must read the same from it."""
    for parse in PARSERS:
        whole, cut = parse(text, FRAME), parse(text, FRAME, truncated=True)
        assert (cut.label, cut.detections, cut.well_formed) == (whole.label, whole.detections, whole.well_formed)


@pytest.mark.parametrize("answer", ["No Objects", "no objects", "No Objects.", " 'No Objects' ", "[]", "[ ]", "[\n]"])
def test_a_refusal_is_read_as_one(answer: str) -> None:
    prediction = parse_detections(reply(answer), FRAME)
    assert prediction.status is Status.REFUSED
    assert prediction.well_formed
    assert prediction.detections == ()


@pytest.mark.parametrize(
    "answer",
    [
        "There are no objects.",
        "No Objects found",
        "No objects in the image.",
        "no such object is visible",
        "['No Objects']",
        '["no objects."]',
        "[No Objects]",
        "[There are no objects]",
    ],
)
def test_a_refusal_in_other_words_is_read_but_is_not_the_asked_form(answer: str) -> None:
    prediction = parse_detections(reply(answer), FRAME)
    assert (prediction.status, prediction.well_formed) == (Status.REFUSED, False)


@pytest.mark.parametrize(
    "answer",
    [
        *("No", "There are no red objects but two dogs", "no objections", "none of them"),
        *("[No Objects", "No Objects]", "['No Objects', 'No Objects']", "[['No Objects']]", "['']", "[[]]"),
    ],
)
def test_what_only_looks_like_a_refusal_is_malformed(answer: str) -> None:
    assert parse_detections(reply(answer), FRAME).status is Status.MALFORMED


@pytest.mark.parametrize(
    "text",
    [
        f"[note] I see maybe {ELEMENT}? No, nothing at all.",
        f"[{ELEMENT}] is what a careless model says; there are No Objects",
        f"<answer>I first thought {ELEMENT} but no: No Objects</answer>",
        f"<answer>[{ELEMENT} or perhaps {ELEMENT}]</answer>",
    ],
)
def test_boxes_that_a_sentence_mentions_are_no_answer(text: str) -> None:
    prediction = parse_detections(text, FRAME)
    assert (prediction.status, prediction.detections) == (Status.MALFORMED, ())


@pytest.mark.parametrize(
    "answer",
    [
        "[{'Position': [1, 1, 2, 2], 'Position': [100, 100, 500, 500], 'Confidence': 0.9}]",
        "[{'Position': [100, 100, 500, 500], 'Confidence': 0.9, 'why': 'a long story'}]",
        "[{'Position': ['100', '100', '500', '500'], 'Confidence': '0.9'}]",
        "[{'Position': (100, 100, 500, 500), 'Confidence': 0.9}]",
        "[{'Position': (100, 100, 500, 500), 'Confidence': '0.9'}, {'Position': [1, 2",
    ],
)
def test_readable_boxes_in_another_layout_are_repaired_and_not_well_formed(answer: str) -> None:
    prediction = parse_detections(reply(answer), FRAME)
    assert [(item.box, item.confidence) for item in prediction.detections] == [(BOX, 0.9)]
    assert (prediction.status, prediction.well_formed) == (Status.REPAIRED, False)


def test_a_confidence_in_per_cent_is_noted() -> None:
    prediction = parse_detections(reply("[{'Position': [100, 100, 500, 500], 'Confidence': 90}]"), FRAME)
    assert prediction.notes == ("1 confidence(s) out of [0, 1] clipped",)
    assert not prediction.well_formed


def test_an_image_that_no_processor_takes_is_parsed_all_the_same() -> None:
    answer = "[{'Position': [100, 1, 500, 5], 'Confidence': 0.9}]"
    prediction = parse_detections(reply(answer), Frame(QWEN2_5_VL, 3000, 10))
    assert [item.box for item in prediction.detections] == [(100.0, 1.0, 500.0, 5.0)]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (f"[\n  {ELEMENT}\n]", Status.OK),
        ('[{"Position": [100, 100, 500, 500], "Confidence": 0.9}]', Status.OK),
        (f"[{ELEMENT},]", Status.REPAIRED),
        (f"[{ELEMENT[:-1]},}}]", Status.REPAIRED),
        ('[{"bbox_2d": [100, 100, 500, 500], "label": "dog\'s bowl", "score": 0.9}]', Status.REPAIRED),
        (f"```json\n[{ELEMENT}]\n```", Status.REPAIRED),
        (f"```\n[{ELEMENT}]\n```", Status.REPAIRED),
        (f"[{ELEMENT}, {{'Position': [1, 2, 3", Status.REPAIRED),
        (f"[{ELEMENT}, ...]", Status.REPAIRED),
        (ELEMENT, Status.REPAIRED),
    ],
)
def test_what_a_person_would_accept_is_read(answer: str, status: Status) -> None:
    prediction = parse_detections(reply(answer), FRAME)
    assert prediction.status is status
    assert [item.box for item in prediction.detections] == [BOX]
    assert prediction.detections[0].confidence == 0.9
    assert prediction.well_formed is (status is Status.OK)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>a thought</think>[{ELEMENT}]",
        f"[{ELEMENT}]",
        f"  [{ELEMENT}]\n",
        f"Here it is:\n```json\n[{ELEMENT}]\n```",
        f"<think>a thought</think><answer>[{ELEMENT}, {{'Position': [1, 2, 3, 4], 'Conf",
    ],
)
def test_an_untagged_or_cut_answer_is_repaired(text: str) -> None:
    prediction = parse_detections(text, FRAME, truncated=True)
    assert prediction.status is Status.REPAIRED
    assert [item.box for item in prediction.detections] == [BOX]
    assert not prediction.well_formed


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("", Status.NO_ANSWER),
        ("   \n", Status.NO_ANSWER),
        (reply(""), Status.NO_ANSWER),
        ("<answer>", Status.NO_ANSWER),
        ("</answer>", Status.NO_ANSWER),
        ("The final answer is 364", Status.NO_ANSWER),
        (f"Look: {ELEMENT}", Status.NO_ANSWER),
        (reply("364"), Status.MALFORMED),
        (reply("[[100, 100, 500, 500]]"), Status.MALFORMED),
        (reply("[{'Confidence': 1.0}]"), Status.MALFORMED),
        (reply("[{'Position': 7, 'Confidence': 1.0}]"), Status.MALFORMED),
        (reply("..."), Status.MALFORMED),
    ],
)
def test_what_is_no_answer_is_not_read(text: str, status: Status) -> None:
    prediction = parse_detections(text, FRAME)
    assert prediction.status is status
    assert prediction.detections == ()
    assert not prediction.well_formed


def test_nothing_readable_in_a_cut_completion_is_truncated() -> None:
    assert parse_detections("<think>still thinking", FRAME, truncated=True).status is Status.TRUNCATED
    assert parse_detections("<answer>[{'Posit", FRAME, truncated=True).status is Status.TRUNCATED
    assert parse_label("<think>hm</think><answer>Boeing 73", FRAME, truncated=True).status is Status.TRUNCATED
    assert parse_region("<answer>(1,2),(3", FRAME, truncated=True).status is Status.TRUNCATED


@pytest.mark.parametrize(
    "text",
    [
        f"<think>[{ELEMENT}]</think>",
        f"<think><answer>[{ELEMENT}]</answer></think><answer>364</answer>",
        f"<think><answer>[{ELEMENT}]</answer>",
        f"<answer>[{ELEMENT}]</answer></think>",
        f"[{ELEMENT}]<answer>nothing</answer>",
        f"<answer>[{ELEMENT}]</answer><answer>nothing</answer>",
        f"<ans<think></think>wer>[{ELEMENT}]</answer>",
    ],
)
def test_thoughts_and_what_stands_outside_the_last_answer_never_count(text: str) -> None:
    assert boxes(text) == []


def test_the_last_complete_answer_counts() -> None:
    text = (
        f"<answer>[{{'Position': [1, 1, 2, 2], 'Confidence': 1}}]</answer> no: <answer>[{ELEMENT}]</answer> <answer>["
    )
    assert boxes(text) == [BOX]
    assert not parse_detections(text, FRAME).well_formed


def test_a_thought_that_the_template_opened_is_skipped() -> None:
    assert boxes(f"[{ELEMENT}, {ELEMENT}] hm</think>\n<answer>[{ELEMENT}]</answer>") == [BOX]


@pytest.mark.parametrize(
    "text",
    [
        f"{reply(f'[{ELEMENT}]')} and more",
        f"Sure. {reply(f'[{ELEMENT}]')}",
        f"<answer>[{ELEMENT}]</answer>",
        f"<think>a</think> so <answer>[{ELEMENT}]</answer>",
        f"<think>a</think><think>b</think><answer>[{ELEMENT}]</answer>",
    ],
)
def test_layout_must_be_kept_to_the_letter(text: str) -> None:
    assert boxes(text) == [BOX]
    assert not parse_detections(text, FRAME).well_formed


def test_bad_boxes_are_dropped_with_a_note_and_good_ones_kept() -> None:
    answer = (
        f"[{ELEMENT}, {{'Position': [500, 100, 100, 500], 'Confidence': 1}}, {{'Position': [NaN, 0, 1, 1]}}, "
        "{'Position': [1, 2, 3]}, {'Position': [5, 5, 5, 9], 'Confidence': 1}, "
        "{'Position': [0, 0, Infinity, 1], 'Confidence': 1}]"
    )
    prediction = parse_detections(reply(answer), FRAME)
    assert [item.box for item in prediction.detections] == [BOX]
    assert prediction.status is Status.REPAIRED
    assert set(prediction.notes) == {
        "1 box(es) dropped: reversed",
        "3 box(es) dropped: not four finite numbers",
        "1 box(es) dropped: without area",
    }


def test_out_of_range_boxes_are_clipped_and_counted() -> None:
    answer = (
        "[{'Position': [-50, 100, 2000, 500], 'Confidence': 0.9}, {'Position': [1200, 0, 1300, 9], 'Confidence': 1}]"
    )
    prediction = parse_detections(reply(answer), FRAME)
    assert [item.box for item in prediction.detections] == [(0.0, 48.0, 640.0, 240.0)]
    assert (prediction.boxes_read, prediction.boxes_out_of_range) == (2, 2)
    assert not prediction.well_formed


@pytest.mark.parametrize(
    ("written", "confidence"),
    [
        *(("0.25", 0.25), ("1", 1.0), ("50", 1.0), ("-9", 0.0), ("'0.9'", 0.9)),
        *((written, None) for written in ("Infinity", "NaN", "'high'", "true", "null", "0,9", "1,000")),
        *((f"{written}, 'why': 0,5", 0.9) for written in ("0.9", " 0.9 ", "'0.9'")),
    ],
)
def test_confidence_is_clipped_and_what_is_no_number_is_missing(written: str, confidence: float | None) -> None:
    prediction = parse_detections(reply(f"[{{'Position': [100, 100, 500, 500], 'Confidence': {written}}}]"), FRAME)
    assert [item.confidence for item in prediction.detections] == [confidence]
    assert (prediction.status is Status.OK) is (written in ("0.25", "1"))


def test_duplicates_are_kept_for_the_reward_to_punish() -> None:
    assert boxes(reply(f"[{ELEMENT}, {ELEMENT}]")) == [BOX, BOX]


def test_other_thinking_tags_follow_the_profile() -> None:
    frame = Frame(ModelProfile("other", "norm_1000", think_tags=("<thinking>", "</thinking>")), 640, 480)
    prediction = parse_detections(f"<thinking>[{ELEMENT}]</thinking><answer>[{ELEMENT}]</answer>", frame)
    assert prediction.well_formed
    assert len(prediction.detections) == 1


@pytest.mark.parametrize(
    ("answer", "label", "status"),
    [
        ("737-100", "737-100", Status.OK),
        ("\n  passion\n flower ", "passion flower", Status.OK),
        ("'cat'", "cat", Status.OK),
        ("```\ncat\n```", "cat", Status.REPAIRED),
        ("", None, Status.NO_ANSWER),
        ("''", None, Status.NO_ANSWER),
        ("a" * 513, None, Status.MALFORMED),
    ],
)
def test_labels(answer: str, label: str | None, status: Status) -> None:
    prediction = parse_label(reply(answer), FRAME)
    assert (prediction.label, prediction.status) == (label, status)


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("(100,100),(500,500)", Status.OK),
        (" ( 100 , 100 ) , ( 500, 500 ) ", Status.OK),
        ("[100, 100, 500, 500]", Status.REPAIRED),
        ('{"bbox_2d": [100, 100, 500, 500]}', Status.REPAIRED),
        ("[{'Position': [100, 100, 500, 500]}, {'Position': [1, 1, 2, 2]}]", Status.REPAIRED),
    ],
)
def test_regions(answer: str, status: Status) -> None:
    prediction = parse_region(reply(answer), FRAME)
    assert prediction.status is status
    assert [item.box for item in prediction.detections] == [BOX]


@pytest.mark.parametrize(
    "answer", ["(100,100)", "100 100 500 500", "(1000,1000),(0,0)", "(1,1),(2,2),(3,3)", "No Objects"]
)
def test_what_is_no_region_is_malformed(answer: str) -> None:
    prediction = parse_region(reply(answer), FRAME)
    assert prediction.status is Status.MALFORMED
    assert prediction.detections == ()


_PIECES = st.sampled_from(
    [
        *("<think>", "</think>", "<answer>", "</answer>", "```", "[", "]", "{", "}", "'Position'", ":", ",", "1e999"),
        *(
            "[1, 2, 3, 4]",
            "-5",
            "'Confidence'",
            "\n",
            "\x00",
            "é",
            "(1,2),(3,4)",
            "No Objects",
            "\\",
            '"',
            "NaN",
            ELEMENT,
        ),
    ]
)


@settings(max_examples=300)
@given(st.lists(_PIECES | st.text(max_size=5), max_size=40).map("".join), st.booleans())
def test_parsing_never_raises_and_keeps_its_promises(text: str, truncated: bool) -> None:
    frame = Frame(ABS_ORIGINAL, 100, 50)
    for parse in PARSERS:
        prediction = parse(text, frame, truncated=truncated)
        assert len(prediction.detections) <= prediction.boxes_read
        if prediction.well_formed:
            assert prediction.status in (Status.OK, Status.REFUSED)
        for box, confidence in prediction.detections:
            assert 0 <= box[0] < box[2] <= 100
            assert 0 <= box[1] < box[3] <= 50
            assert confidence is None or 0 <= confidence <= 1


_NEARLY = st.sampled_from(["0", "7", "500", "1000", "1001", "12.5", "-3", "007", "1e2", "NaN", "'5'"])
_STATED = st.sampled_from(["0", "1", "0.25", "1.0", "1.5", "-0.1", "'0.5'", "null", ".5"])
_ELEMENTS = st.builds(
    "{{'Position': [{}, {}, {}, {}], 'Confidence': {}{}".format,
    *([st.integers(0, 999).map(str) | _NEARLY] * 4),
    _STATED,
    st.sampled_from(["}"] * 20 + ["", " }", ", 'Confidence': 1}", ", 'why': 1}", "]}"]),
)
_LAYOUTS = st.sampled_from(
    [
        *("<think>a</think><answer>{}</answer>", " <THINK>a b\n</THINK>\n <answer> {} </answer>\n"),
        *("<think>a</think>\u2003<answer>{}</answer>", "<think>a < b</think><answer>{}</answer>"),
        *("<think><think>a</think><answer>{}</answer>", "<think>a</think><answer>{}</answer>.", "<answer>{}</answer>"),
    ]
)


@settings(max_examples=500)
@given(
    st.lists(_ELEMENTS, max_size=4),
    _LAYOUTS,
    st.sampled_from([", "] * 5 + [",", " "]),
    st.sampled_from([QWEN2_VL, ABS_ORIGINAL, ModelProfile("other", "norm_1000", axes="yxyx")]),
)
def test_the_quick_reading_of_the_common_case_is_the_general_one(
    elements: list[str], layout: str, separator: str, profile: ModelProfile
) -> None:
    text, frame = layout.format(f"[{separator.join(elements)}]"), Frame(profile, 640, 480)
    quick = [parse(text, frame) for parse in PARSERS]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parsing, "_as_asked", lambda answer, frame: None)
        patch.setattr(replies, "_layout_pattern", lambda tags: replies._NEVER)
        assert [parse(text, frame) for parse in PARSERS] == quick


def test_the_quick_reading_is_taken_for_an_answer_as_asked() -> None:
    answer = f"[{ELEMENT}, {ELEMENT}]"
    assert parsing._as_asked(answer, FRAME) == parse_detections(reply(answer), FRAME)
    assert replies._layout_pattern(("<think>", "</think>")).fullmatch(reply(answer))


@pytest.mark.parametrize(
    "tags", [("<answer>", "</answer>"), ("<a", "</a"), ("think:", ":think"), ("<think>", "<think>")]
)
def test_odd_thinking_tags_are_read_by_the_general_rules(tags: tuple[str, str]) -> None:
    text = f"{tags[0]}a{tags[1]}<answer>[{ELEMENT}]</answer>"
    quick = replies.read_reply(text, tags)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(replies, "_layout_pattern", lambda tags: replies._NEVER)
        assert replies.read_reply(text, tags) == quick
