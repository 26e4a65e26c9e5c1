"""An ask map is what a model said is in each image, made in one go or several, and read by ``ask=file:``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from questions import Questions

from vrft_bench.errors import PartialRunError, UserError
from vrft_bench.harness.ask_map import PROMPT, PresenceTask, write_ask_map
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, DataSpec
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.profiles import ABS_ORIGINAL

TASK = Questions(name="questions", version="1", summary="generated questions", size=20)
"""Ten images, each asked about cats and dogs."""


class Says:
    """A backend that answers what ``texts`` says by sample id, else no; ``stop`` answers come before it is killed."""

    def __init__(self, texts: Mapping[str, str | None], stop: int | None = None) -> None:
        self.texts = texts
        self.stop = stop
        self.asked: list[Request] = []

    def identity(self) -> Mapping[str, Any]:
        return {"name": "says"}

    def profile(self) -> ModelProfile | None:
        return ABS_ORIGINAL

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for request in requests:
            if len(self.asked) == self.stop:
                raise KeyboardInterrupt
            self.asked.append(request)
            text = self.texts.get(request.sample.id, "no")
            if text is None:
                yield Completion(request.sample.id, 0, "", "error", error="out of memory")
            else:
                yield Completion(request.sample.id, 0, text)

    def close(self) -> None:
        """Nothing is held."""


def test_the_map_holds_what_the_model_said(tmp_path: Path) -> None:
    texts = {
        "0:cat": "Yes.",
        "0:dog": "<think>no, wait</think><answer>yes</answer>",
        "1:cat": "'Yes', there is one",
        "2:cat": "certainly",
        "3:dog": "No",
        "4:dog": "yesterday",
    }
    path = tmp_path / "maps" / "map.json"
    report = write_ask_map(TASK, DataSpec(), Says(texts), ABS_ORIGINAL, path)
    made = json.loads(path.read_text())
    assert {image: names for image, names in made.items() if names} == {"0": ["cat", "dog"], "1": ["cat"]}
    assert list(made) == [str(image) for image in range(10)]
    assert (report.images, report.questions, report.yes, report.unclear, report.failed) == (10, 20, 3, 2, 0)
    info = json.loads((tmp_path / "maps" / "map.json.info").read_text())
    assert (info["prompt"], info["model"], info["yes"]) == (PROMPT, {"name": "says"}, 3)
    assert sorted(file.name for file in path.parent.iterdir()) == ["map.json", "map.json.info"]


def test_the_question_names_the_category_and_has_the_image(tmp_path: Path) -> None:
    backend = Says({})
    write_ask_map(TASK, DataSpec(), backend, ABS_ORIGINAL, tmp_path / "a.json")
    request = backend.asked[0]
    assert request.messages[0]["content"] == [
        {"type": "image"},
        {"type": "text", "text": "Is there a 'cat' in the image? Answer with one word, yes or no."},
    ]
    assert request.sampling.max_tokens == 16
    write_ask_map(TASK, DataSpec(), backend, ABS_ORIGINAL, tmp_path / "b.json", prompt="Any {category}?", max_tokens=4)
    assert backend.asked[-1].messages[0]["content"][1]["text"] == "Any dog?"


def test_a_stopped_call_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    texts = {"0:cat": "yes", "9:dog": "yes"}
    first, second = Says(texts, stop=7), Says(texts)
    with pytest.raises(KeyboardInterrupt):
        write_ask_map(TASK, DataSpec(), first, ABS_ORIGINAL, path)
    with (tmp_path / "map.json.partial").open("a") as file:
        file.write('["3:dog", tr')  # as a killed process leaves it
    report = write_ask_map(TASK, DataSpec(), second, ABS_ORIGINAL, path)
    assert [request.sample.id for request in first.asked + second.asked] == [
        f"{image}:{name}" for image in range(10) for name in ("cat", "dog")
    ]
    assert report.yes == 2
    assert json.loads(path.read_text())["9"] == ["dog"]


def test_half_a_line_is_gone_before_another_is_written(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    for stop in (3, 2):
        with pytest.raises(KeyboardInterrupt):
            write_ask_map(TASK, DataSpec(), Says({"1:cat": "yes"}, stop=stop), ABS_ORIGINAL, path)
        with (tmp_path / "map.json.partial").open("a") as file:
            file.write('["3:dog", tr')
    third = Says({})
    assert write_ask_map(TASK, DataSpec(), third, ABS_ORIGINAL, path).yes == 1
    assert len(third.asked) == 15


def test_another_prompt_or_a_file_that_is_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    with pytest.raises(KeyboardInterrupt):
        write_ask_map(TASK, DataSpec(), Says({}, stop=1), ABS_ORIGINAL, path)
    with pytest.raises(
        UserError, match=r"map\.json\.partial was begun otherwise: prompt: .* there, 'A \{category\}\?'"
    ):
        write_ask_map(TASK, DataSpec(), Says({}), ABS_ORIGINAL, path, prompt="A {category}?")
    (tmp_path / "map.json.partial").write_text("nothing\n")
    with pytest.raises(UserError, match="is damaged"):
        write_ask_map(TASK, DataSpec(), Says({}), ABS_ORIGINAL, path)
    path.write_text("{}")
    with pytest.raises(UserError, match="is there already"):
        write_ask_map(TASK, DataSpec(), Says({}), ABS_ORIGINAL, path)
    with pytest.raises(UserError, match="does not name the category"):
        write_ask_map(TASK, DataSpec(), Says({}), ABS_ORIGINAL, tmp_path / "b.json", prompt="Anything?")
    with pytest.raises(UserError, match="is no detection task"):
        write_ask_map(get_task("lisa_grounding"), DataSpec(), Says({}), ABS_ORIGINAL, tmp_path / "b.json")


def test_answers_about_other_data_are_not_taken_up(tmp_path: Path) -> None:
    """The same ids and categories, but other images and truth: another file of annotations, say."""
    path = tmp_path / "map.json"
    with pytest.raises(KeyboardInterrupt):
        write_ask_map(TASK, DataSpec(), Says({}, stop=3), ABS_ORIGINAL, path)
    with pytest.raises(UserError, match=r"was begun otherwise: data\.sha256"):
        write_ask_map(replace(TASK, size=18), DataSpec(), Says({}), ABS_ORIGINAL, path)


def test_two_processes_do_not_make_one_map(tmp_path: Path) -> None:
    path = tmp_path / "map.json"

    class Second(Says):
        def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
            with pytest.raises(UserError, match=r"another process is making .*map\.json"):
                write_ask_map(TASK, DataSpec(), Says({}), ABS_ORIGINAL, path)
            return super().generate(requests)

    assert write_ask_map(TASK, DataSpec(), Second({}), ABS_ORIGINAL, path).questions == 20


def test_a_call_that_was_killed_before_its_first_line_was_whole_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    (tmp_path / "map.json.partial").write_text('{"task": "ques')
    assert write_ask_map(TASK, DataSpec(), Says({"0:cat": "yes"}), ABS_ORIGINAL, path).yes == 1


def test_failed_questions_are_left_out_and_many_end_the_call(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    report = write_ask_map(TASK, DataSpec(), Says({"0:cat": None}), ABS_ORIGINAL, path)
    assert (report.failed, report.yes) == (1, 0)
    failing = {f"{image}:cat": None for image in range(2)}
    with pytest.raises(PartialRunError, match="2 of 20 questions failed, the last with: out of memory"):
        write_ask_map(TASK, DataSpec(), Says(failing), ABS_ORIGINAL, tmp_path / "b.json")
    assert (tmp_path / "b.json.partial").is_file()


def test_a_right_answer_says_what_the_truth_says(tmp_path: Path) -> None:
    report = write_ask_map(TASK, DataSpec(), load_backend("mock/gold"), ABS_ORIGINAL, tmp_path / "map.json")
    assert report.to_json()["agreement"] == 1.0
    assert report.yes == sum(
        bool(sample.target.boxes) for sample in TASK.load(DataSpec()).samples() if isinstance(sample.target, BoxTarget)
    )


def test_a_detection_task_takes_the_map(tmp_path: Path, sample_cache: Path) -> None:
    """With a perfect model, what is asked is what is there."""
    task, path = get_task("lvis_fewshot"), tmp_path / "map.json"
    write_ask_map(task, DataSpec(), load_backend("mock/gold"), ABS_ORIGINAL, path)
    by_map = {sample.id for sample in task.load(DataSpec(ask=f"file:{path}")).samples()}
    assert by_map == {sample.id for sample in task.load(DataSpec(ask="present")).samples()}
    assert list(task.load(DataSpec(ask=f"file:{path}")).unasked()) == []


def test_the_bundled_model_can_be_asked(tmp_path: Path, sample_cache: Path) -> None:
    pytest.importorskip("torch")
    task, path = get_task("lvis_fewshot"), tmp_path / "map.json"
    backend = load_backend("hf/tiny")
    try:
        profile = backend.profile()
        assert profile is not None
        report = write_ask_map(task, DataSpec(categories=("red_circle",)), backend, profile, path)
    finally:
        backend.close()
    assert report.questions > 0
    assert set(json.loads(path.read_text())) == {
        sample.fields["image_id"] for sample in task.load(DataSpec(categories=("red_circle",), ask="all")).samples()
    }


def test_underscores_are_spoken_as_spaces() -> None:
    sample = next(TASK.load(DataSpec()).samples())
    asked = type(sample)(sample.id, sample.image, {"category": "kitchen_table"}, sample.target)
    assert "'kitchen table'" in PresenceTask("presence", "1", "").prompt(asked, ABS_ORIGINAL)
