"""Several tasks in one command: all are planned first, one that fails ends no other, and the end says what is left."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError
from vrft_bench.harness.models import mock
from vrft_bench.harness.models.base import Completion
from vrft_bench.tasks import select_tasks

pytestmark = pytest.mark.usefixtures("sample_cache")

THREE = ("-t", "coco_fewshot,lisa_grounding,classification", "-m", "mock/gold", "-L", "6", "--json")


@pytest.fixture
def on_task(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes mock/gold do something before it answers the questions of one task."""

    def put(**actions: Any) -> None:
        generate = mock.TextMock.generate

        def acting(self: Any, requests: Any) -> Iterator[Completion]:
            for request in requests:
                if (action := actions.get(request.task.name)) is not None:
                    action()
                yield from generate(self, [request])

        monkeypatch.setattr(mock.TextMock, "generate", acting)

    return put


def gone() -> None:
    raise BackendError("the server\nis gone", fix="start it")


def test_a_mistake_in_the_last_task_costs_nothing(cli: Any, tmp_path: Path) -> None:
    outcome = cli("-t", "coco_fewshot,coco_ovd,lisa_grounding", "-m", "mock/gold", "--categories", "red circle")
    assert outcome.code == 2
    assert outcome.err.startswith("error: 1 of 3 tasks cannot be run, and nothing was asked:\n")
    assert "\n  lisa_grounding: task 'lisa_grounding' has no categories" in outcome.err
    assert list(tmp_path.iterdir()) == [], "the first task must not have run"
    known = json.loads(cli("-t", "coco_fewshot", "-m", "mock/gold", "--dry-run", "--json").out)["first_question"]["id"]
    outcome = cli("-t", "coco_fewshot,classification", "-m", "mock/gold", "--sample-id", known)
    assert outcome.code == 2
    assert f"\n  classification: unknown sample id '{known}'" in outcome.err
    assert list(tmp_path.iterdir()) == [], "the first task must not have run"


def test_every_task_that_lacks_its_data_is_named_and_can_be_left_out(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "data/coco").mkdir(parents=True)
    outcome = cli("-t", "visual_rft", "--data", "data", "-m", "mock/gold")
    assert outcome.code == 3
    assert "error: 9 of 9 tasks cannot be run" in outcome.err
    lacking = re.findall(r"^  (\w+): ", outcome.err, re.MULTILINE)
    assert lacking == [*select_tasks(["visual_rft"]), "fix"]
    assert outcome.err.endswith("fix: mend that\n")
    some = cli("-t", "coco_fewshot,lisa_grounding", "-m", "mock/gold", "--categories", "red circle", "-L", "2")
    assert some.err.endswith("or leave them out: --task coco_fewshot,lisa_grounding,-lisa_grounding\n")
    rest = cli("-t", "coco_fewshot,lisa_grounding,-lisa_grounding", "-m", "mock/gold", "-L", "2", "--json")
    assert [json.loads(line)["task"] for line in rest.out.splitlines()] == ["coco_fewshot"]


def test_each_task_has_its_own_rule_of_asking_and_its_protocol_its_longest_answer(cli: Any, tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    tasks = ("-t", "fewshot_detection,coco_ovd,lisa_grounding", "-m", "mock/gold", "--protocol", "paper")
    rules = ("--ask", "fewshot_detection=all", "--ask", "lvis_fewshot=present")
    outcome = cli(*tasks, *rules, "-L", "2", "--dry-run", "--json")
    views = {view["task"]: view for view in map(json.loads, outcome.out.splitlines())}
    assert {name: view["ask"] for name, view in views.items()} == {
        "coco_fewshot": "all",
        "lvis_fewshot": "present",
        "coco_ovd": "all",
        "lisa_grounding": None,
    }
    longest = {name: view["identity"]["sampling"]["max_tokens"] for name, view in views.items()}
    assert longest == {"coco_fewshot": 1024, "lvis_fewshot": 1024, "coco_ovd": 1024, "lisa_grounding": 128}
    chosen = cli(*tasks, "--max-tokens", "1024", "-L", "2", "--dry-run", "--json").out.splitlines()
    assert {json.loads(line)["identity"]["sampling"]["max_tokens"] for line in chosen} == {1024}


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (("coco_ovd=all",), "'coco_ovd' is none of the tasks of this command"),
        (("coco_few=all",), "unknown task 'coco_few'; did you mean 'coco_fewshot'"),
        (("lvis_fewshot=all", "lvis_fewshot=present"), "--ask lvis_fewshot=... is given twice"),
        (("all", "lvis_fewshot=all"), "'all' stands beside another rule, and does not say for which task"),
        (("lvis_fewshot=some",), "use present, all or file:PATH"),
        (("lisa_grounding=all",), "task 'lisa_grounding' asks one question of an image, and takes no --ask"),
    ],
)
def test_a_rule_of_asking_for_no_task_is_one_message(cli: Any, ask: tuple[str, ...], message: str) -> None:
    rules = [word for rule in ask for word in ("--ask", rule)]
    outcome = cli("-t", "lvis_fewshot,lisa_grounding", "-m", "mock/gold", *rules)
    assert outcome.code == 2
    assert message in outcome.err
    assert "fix: " in outcome.err


def test_a_model_that_is_not_there_is_said_once_and_waited_for_once(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def absent(*_: Any) -> None:
        asked.append("profile")
        gone()

    monkeypatch.setattr(mock.TextMock, "profile", absent)
    outcome = cli(*THREE)
    assert outcome.code == 4
    assert outcome.err.splitlines() == ["error: the server", "is gone", "  fix: start it"]
    assert asked == ["profile"]


def test_the_tasks_after_one_that_fails_are_run_and_the_worst_exit_code_wins(cli: Any, on_task: Any) -> None:
    def broken() -> None:
        raise BackendError("out of memory")

    on_task(coco_fewshot=gone, lisa_grounding=broken)
    outcome = cli(*THREE)
    assert outcome.code == 4
    assert [json.loads(line)["task"] for line in outcome.out.splitlines()] == ["classification"]
    lines = outcome.err.splitlines()
    start = next(index for index, line in enumerate(lines) if "tasks are not finished" in line)
    assert lines[start:] == [
        "error: 2 of 3 tasks are not finished:",
        "  coco_fewshot: the server is gone fix: start it",
        "  lisa_grounding: out of memory",
        "  fix: repeat the command: what is finished is shown, and the rest goes on where it stopped",
    ]


def test_repeating_the_command_finishes_what_was_left(cli: Any, on_task: Any) -> None:
    failures = [BackendError("gone")]

    def once() -> None:
        if failures:
            raise failures.pop()

    on_task(coco_fewshot=once)
    assert cli(*THREE).code == 4
    again = cli(*THREE)
    assert again.code == 0, again.err
    assert [json.loads(line)["reused"] for line in again.out.splitlines()] == [False, True, True]


def test_a_single_task_that_fails_is_told_as_it_is(cli: Any, on_task: Any) -> None:
    on_task(coco_fewshot=gone)
    outcome = cli("-t", "coco_fewshot", "-m", "mock/gold", "-L", "6")
    assert outcome.code == 4
    assert outcome.err.splitlines()[-3:] == ["error: the server", "is gone", "  fix: start it"]


def test_an_interrupt_ends_the_command_and_names_what_was_not_begun(cli: Any, on_task: Any) -> None:
    on_task(lisa_grounding=lambda: signal.raise_signal(signal.SIGINT))
    outcome = cli(*THREE)
    assert outcome.code == 130
    assert [json.loads(line)["task"] for line in outcome.out.splitlines()] == ["coco_fewshot"]
    assert "error: 2 of 3 tasks are not finished:\n  lisa_grounding: interrupted with 0 of 6" in outcome.err
    assert "\n  classification: not begun\n" in outcome.err
