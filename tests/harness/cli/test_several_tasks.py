"""Several tasks in one command: all are planned first, one that fails ends no other, and the end says what is left."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError
from vrft_bench.harness.models import mock
from vrft_bench.harness.models.base import Completion

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
    assert "error: task 'lisa_grounding' has no categories" in outcome.err
    assert list(tmp_path.iterdir()) == [], "the first task must not have run"
    known = json.loads(cli("-t", "coco_fewshot", "-m", "mock/gold", "--dry-run", "--json").out)["first_question"]["id"]
    outcome = cli("-t", "coco_fewshot,classification", "-m", "mock/gold", "--sample-id", known)
    assert outcome.code == 2
    assert f"error: task 'classification': unknown sample id '{known}'" in outcome.err
    assert list(tmp_path.iterdir()) == [], "the first task must not have run"


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
