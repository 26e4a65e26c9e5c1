"""The enforced answer format: whatever an engine writes under it is read, and the truth can be said in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.registry import PROFILES, TASKS
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import UNPARSABLE, ClassTarget, DataSpec, Prediction, Sample, Status, Task
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.structured import MAX_BOXES, _above_zero, _below, answer_regex

pytestmark = pytest.mark.usefixtures("sample_cache")

CATALOG = [entry.name for entry in TASKS if entry.source == "built in"]
FEW_TOKENS = 200  # short thoughts, so that hypothesis has not much to draw


@cache
def first_sample(name: str) -> Sample:
    return next(iter(get_task(name).load(DataSpec()).samples()))


def pattern(task: Task, sample: Sample, profile: ModelProfile, max_tokens: int = FEW_TOKENS) -> tuple[str, Frame]:
    frame = Frame(profile, sample.image.width, sample.image.height)
    return answer_regex(task, sample, frame, max_tokens=max_tokens), frame


def drawn(name: str, profile: str, data: st.DataObject) -> tuple[str, Prediction]:
    """A text of the pattern for the task's first sample, and what the task reads in it."""
    task, sample = get_task(name), first_sample(name)
    regex, frame = pattern(task, sample, PROFILES.get(profile))
    text = data.draw(st.from_regex(re.compile(regex), fullmatch=True))
    return text, task.parse(text, frame)


def boxes_with_area(text: str, profile: str) -> int:
    found = 0
    for numbers in re.findall(r"'Position': \[([^\]]*)\]", text):
        a, b, c, d = map(float, numbers.split(", "))
        found += a < c and b < d
    return found


@pytest.mark.parametrize("profile", PROFILES.names())
@given(data=st.data())
def test_every_list_of_the_format_is_read_box_by_box(profile: str, data: st.DataObject) -> None:
    text, prediction = drawn("lvis_fewshot", profile, data)
    written = text.count("'Position'")
    assert (prediction.boxes_read, prediction.boxes_out_of_range) == (written, 0)
    assert len(prediction.detections) == boxes_with_area(text, profile)
    assert (prediction.status in UNPARSABLE) == (written > 0 and not prediction.detections)
    if not written:
        assert prediction.status is Status.REFUSED
    if len(prediction.detections) == written:
        assert prediction.well_formed


@pytest.mark.parametrize("profile", PROFILES.names())
@given(data=st.data())
def test_every_region_of_the_format_is_read(profile: str, data: st.DataObject) -> None:
    _, prediction = drawn("lisa_grounding", profile, data)
    assert (prediction.boxes_read, prediction.boxes_out_of_range) == (1, 0)
    assert prediction.status is (Status.OK if prediction.detections else Status.MALFORMED)


@given(data=st.data())
def test_every_label_of_the_format_is_one_that_the_question_lists(data: st.DataObject) -> None:
    _, prediction = drawn("pets37_fewshot", "qwen2-vl", data)
    assert prediction.status is Status.OK
    assert prediction.label in first_sample("pets37_fewshot").fields["options"].split(", ")


@given(data=st.data())
def test_a_list_that_the_token_limit_cuts_off_keeps_the_boxes_before_the_cut(data: st.DataObject) -> None:
    task, sample = get_task("lvis_fewshot"), first_sample("lvis_fewshot")
    regex, frame = pattern(task, sample, PROFILES.get("qwen2-vl"))
    element = "{'Position': [1, 2, 30, 40], 'Confidence': 0.5}"
    whole = f"<think>a</think>\n<answer>[{', '.join([element] * 9)}]</answer>"
    assert re.fullmatch(regex, whole)
    end = data.draw(st.integers(whole.index("}") + 1, whole.index("</answer>")))
    prediction = task.parse(whole[:end], frame, truncated=True)
    assert len(prediction.detections) == whole[:end].count("}")


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("profile", PROFILES.names())
def test_the_gold_completion_can_be_written(name: str, profile: str) -> None:
    task = get_task(name)
    for sample, _ in zip(task.load(DataSpec()).samples(), range(60), strict=False):
        regex, frame = pattern(task, sample, PROFILES.get(profile), 1024)
        assert re.fullmatch(regex, task.gold(sample, frame))


def test_the_gold_completion_fits_after_a_template_that_begins_the_thought() -> None:
    task, sample = get_task("lvis_fewshot"), first_sample("lvis_fewshot")
    frame = Frame(PROFILES.get("qwen2-vl"), sample.image.width, sample.image.height)
    regex = answer_regex(task, sample, frame, max_tokens=1024, begun=True)
    gold = task.gold(sample, frame)
    assert re.fullmatch(regex, gold.removeprefix("<think>"))
    assert not re.fullmatch(regex, gold)


@pytest.mark.parametrize("limit", [*range(1, 25), 99, 100, 101, 252, 640, 999, 1000, 1001, 1337, 12_045])
def test_whole_coordinates_are_those_of_a_box_with_an_area(limit: int) -> None:
    low, high = re.compile(_below(limit, 0)), re.compile(_above_zero(limit, 0))
    values = range(2 * limit + 2)
    assert [value for value in values if low.fullmatch(str(value))] == list(range(limit))
    assert [value for value in values if high.fullmatch(str(value))] == list(range(1, limit + 1))
    for text in ("00", "01", "-1", "1.0", ""):
        assert not low.fullmatch(text)
        assert not high.fullmatch(text)


@pytest.mark.parametrize("decimals", [1, 2, 3])
@pytest.mark.parametrize("limit", [1, 2, 10, 42])
def test_coordinates_with_decimals_are_those_of_a_box_with_an_area(limit: int, decimals: int) -> None:
    low, high = re.compile(_below(limit, decimals)), re.compile(_above_zero(limit, decimals))
    for step in range((limit + 1) * 10**decimals):
        value = step / 10**decimals
        text = f"{value:.{decimals}f}"
        assert bool(low.fullmatch(text)) == (value < limit)
        assert bool(high.fullmatch(text)) == (0 < value <= limit)
        assert float(text) == value
    assert not low.fullmatch(f"0.{'1' * (decimals + 1)}")
    assert not high.fullmatch(f"0.{'1' * (decimals + 1)}")


@pytest.mark.parametrize("name", ["lvis_fewshot", "lisa_grounding", "pets37_fewshot"])
@pytest.mark.parametrize("max_tokens", [FEW_TOKENS, 1024, 8192])
def test_a_thought_leaves_room_for_an_answer_even_where_a_character_is_a_token(name: str, max_tokens: int) -> None:
    regex, frame = pattern(get_task(name), first_sample(name), PROFILES.get("qwen2-vl"), max_tokens)
    thought = re.search(r"\[\^<\]\{0,(\d+)\}", regex)
    assert thought is not None
    gold = get_task(name).gold(first_sample(name), frame)
    assert int(thought[1]) + len(gold) - gold.index("</think>") <= max_tokens
    assert int(thought[1]) >= max_tokens // 2 - 100


def test_a_list_has_no_more_boxes_than_the_parser_reads() -> None:
    regex, frame = pattern(get_task("lvis_fewshot"), first_sample("lvis_fewshot"), PROFILES.get("qwen2-vl"))
    element = "{'Position': [1, 2, 30, 40], 'Confidence': 0.5}"
    for count, fits in ((1, True), (MAX_BOXES, True), (MAX_BOXES + 1, False)):
        text = f"<think></think><answer>[{', '.join([element] * count)}]</answer>"
        assert bool(re.fullmatch(regex, text)) == fits
        assert len(get_task("lvis_fewshot").parse(text, frame).detections) == count


@dataclass(frozen=True)
class OtherParser(DetectionTask):
    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        return Prediction(Status.NO_ANSWER)


def test_what_has_no_enforceable_format_is_refused_in_words() -> None:
    sample = first_sample("lvis_fewshot")
    for task, said in (
        (get_task("lvis_fewshot", "paper"), "--protocol paper has no answer format"),
        (OtherParser("mine", "1", "a task with a parser of its own"), "with a parser of its own has no answer format"),
    ):
        with pytest.raises(UserError, match=said):
            pattern(task, sample, PROFILES.get("qwen2-vl"))
    with pytest.raises(UserError, match="--max-tokens 40 leaves no room"):
        pattern(get_task("lvis_fewshot"), sample, PROFILES.get("qwen2-vl"), 40)


def test_class_names_that_the_question_does_not_keep_apart_are_refused() -> None:
    sample = first_sample("pets37_fewshot")
    unclear = replace(sample, fields={"options": "tench, Tinca tinca, pug"}, target=ClassTarget("tench, Tinca tinca"))
    with pytest.raises(UserError, match="cannot be told apart"):
        pattern(get_task("pets37_fewshot"), unclear, PROFILES.get("qwen2-vl"))
