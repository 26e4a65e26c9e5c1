from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError, ExitCode, PartialRunError, RunInterrupted, UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models.base import Completion
from vrft_bench.harness.models.mock import mock_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.store import RunStore, is_locked, read_manifest

MakeConfig = Callable[..., RunConfig]
Records = Callable[[Path], list[dict[str, Any]]]


class Notes:
    """A progress that keeps the lines it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.rewards: list[float | None] = []
        self.began: tuple[str, int, int] | None = None

    def begin(self, label: str, total: int, done: int = 0) -> None:
        self.began = (label, total, done)

    def advance(self, reward: float | None) -> None:
        self.rewards.append(reward)

    def note(self, text: str) -> None:
        self.lines.append(text)

    def end(self) -> None: ...


def only_run(config: RunConfig) -> Path:
    (file,) = config.output_dir.glob("*/*/*/run.json")
    return file.parent


def test_perfect_answers_score_one_and_every_record_is_whole(
    questions: Any, answers: Any, config: MakeConfig, records: Records
) -> None:
    progress = Notes()
    result = evaluate(questions, answers(), config(), progress=progress)
    assert result.status == "complete"
    assert result.report.headline == "ap"
    assert result.report.figures["ap"].value == 1.0
    assert result.answers.completions == 60
    assert result.answers.status == {"ok": 40, "refused": 20}
    assert (result.answers.prompt_tokens, result.answers.completion_tokens) == (600, 300)
    assert progress.began == ("questions", 60, 0)
    assert progress.rewards == [3.0] * 60
    first = records(result.folder)[1]
    assert first["id"] == "0:dog"
    assert first["prediction"]["boxes"] == [[1.0, 1.0, 21.0, 31.0], [60.0, 50.0, 90.0, 75.0]]
    assert first["score"] == {"iou": 1.0, "confidence": 1.0, "format": 1.0, "total": 3.0}
    assert first["finish_reason"] == "stop"
    assert "No Objects" in records(result.folder)[0]["text"]


def test_run_json_says_what_ran_and_names_no_machine_or_user(questions: Any, answers: Any, config: MakeConfig) -> None:
    result = evaluate(questions, answers(), config(seed=5, fresh=True))
    written = json.loads((result.folder / "run.json").read_text())
    assert written["status"] == "complete"
    assert written["data"] == "real"
    assert (written["samples"], written["completions"], written["finished"], written["failed"]) == (60, 60, 60, 0)
    assert written["config"]["seed"] == 5
    assert written["config"]["task"] == ["questions"]
    assert written["config"]["fresh"] is False
    task = {"name": "questions", "version": "1", "protocol": "strict", "weights": {}, "groups": {}}
    task["rewards"] = ["iou", "confidence", "format"]
    assert written["identity"]["task"] == task
    assert written["identity"]["model"] == {"name": "answers"}
    assert len(written["sessions"]) == 1
    assert not is_locked(result.folder)
    described = json.dumps({key: value for key, value in written.items() if key != "config"})
    assert str(Path.home()) not in described
    assert str(result.folder.parent) not in described


def test_answers_may_come_in_any_order(questions: Any, answers: Any, config: MakeConfig) -> None:
    def backwards(completions: Iterable[Completion]) -> Iterator[Completion]:
        yield from reversed(list(completions))

    usual = evaluate(questions, mock_backend("noisy", {}), config(output_dir=config().output_dir / "a"))
    noisy = mock_backend("noisy", {})
    reordered = answers(shape=lambda _: iter(()))
    reordered.identity = noisy.identity
    reordered.generate = lambda requests: backwards(noisy.generate(requests))
    other = evaluate(questions, reordered, config(output_dir=config().output_dir / "b"))
    assert 0.1 < (usual.report.figures["ap"].value or 0) < 0.9
    assert other.report == usual.report
    assert other.answers == usual.answers


def test_several_completions_per_sample_are_all_asked(questions: Any, answers: Any, config: MakeConfig) -> None:
    backend = answers()
    result = evaluate(questions, backend, config(samples=3, limit=4))
    assert sorted(backend.asked)[:3] == [("0:cat", 0), ("0:cat", 1), ("0:cat", 2)]
    assert len(backend.asked) == result.answers.completions == 12


def test_a_finished_run_is_shown_and_not_run_again_unless_fresh(
    questions: Any, answers: Any, config: MakeConfig
) -> None:
    first = evaluate(questions, answers(), config())
    again, progress = answers(), Notes()
    shown = evaluate(questions, again, config(), progress=progress)
    assert shown.reused
    assert again.asked == []
    assert (shown.folder, shown.report, shown.answers) == (first.folder, first.report, first.answers)
    assert progress.lines == [f"finished already, shown from {first.folder}; --fresh runs it anew"]
    fresh = evaluate(questions, answers(), config(fresh=True))
    assert fresh.folder != first.folder
    assert not fresh.reused


def test_failed_samples_count_as_missed_truth_and_are_never_dropped(
    questions: Any, answers: Any, config: MakeConfig, records: Records
) -> None:
    backend = answers({("0:dog", 0): {"error": "image missing", "finish_reason": "error"}})
    whole = evaluate(questions, answers(name="whole"), config())
    result = evaluate(questions, backend, config(max_failures=0.05))
    assert result.status == "complete"
    assert (result.answers.completions, result.answers.failures) == (60, 1)
    assert {"id": "0:dog", "n": 0, "error": "image missing"} in records(result.folder)
    assert whole.report.figures["ap"].value == 1.0
    assert (result.report.figures["recall"].value or 1.0) < 1.0
    assert result.answers.reward == pytest.approx(3.0 * 59 / 60)
    assert "1 of 60 completions failed and count as no prediction" in result.answers.notes
    assert read_manifest(result.folder).failed == 1


def test_more_failures_than_allowed_stop_the_run_with_the_commonest_reason_and_repeating_asks_them_again(
    questions: Any, answers: Any, config: MakeConfig
) -> None:
    broken = {(f"{index}:cat", 0): {"error": f"image missing: '{index}.png'"} for index in range(0, 30, 3)}
    broken["1:cat", 0] = {"error": "out of memory"}
    backend = answers(broken)
    with pytest.raises(PartialRunError) as caught:
        evaluate(questions, backend, config())
    assert caught.value.exit_code == ExitCode.PARTIAL
    assert "4 of 60 completions failed" in caught.value.message
    assert "most common reason (3 times): image missing: '0.png'" in caught.value.message
    assert "asks the failed ones again" in (caught.value.fix or "")
    stopped = read_manifest(only_run(config()))
    assert (stopped.status, stopped.failed, stopped.finished) == ("failed", 4, len(backend.asked) - 4)
    mended, progress = answers(), Notes()
    result = evaluate(questions, mended, config(), progress=progress)
    assert (result.status, result.answers.failures) == ("complete", 0)
    assert {("0:cat", 0), ("1:cat", 0), ("3:cat", 0), ("6:cat", 0)} <= set(mended.asked)
    assert len(mended.asked) == 60 - stopped.finished
    assert "4 failed ones are asked again" in progress.lines[0]
    assert result.report.figures["ap"].value == 1.0


def test_a_run_that_resumes_has_the_figures_of_one_that_was_never_stopped(
    questions: Any, config: MakeConfig, records: Records
) -> None:
    class Dies:
        """mock/noisy that dies after 25 answers."""

        def __init__(self) -> None:
            self._noisy = mock_backend("noisy", {})
            self.identity, self.profile, self.close = self._noisy.identity, self._noisy.profile, self._noisy.close

        def generate(self, requests: Any) -> Iterator[Completion]:
            for count, completion in enumerate(self._noisy.generate(requests)):
                if count == 25:
                    raise BackendError("the server is gone", fix="start it")
                yield completion

    task = replace(questions, extra=4)
    undisturbed = evaluate(task, mock_backend("noisy", {}), config(output_dir=config().output_dir / "a", samples=2))
    settings = config(samples=2)
    for done in (25, 50, 75, 100):
        with pytest.raises(BackendError, match="the server is gone"):
            evaluate(task, Dies(), settings)
        (folder,) = settings.output_dir.glob("questions/*/*")
        assert read_manifest(folder).status == "failed"
        assert len(records(folder)) == done
    resumed = evaluate(task, Dies(), settings)
    assert resumed.report == undisturbed.report
    assert resumed.answers == undisturbed.answers
    assert records(resumed.folder) == records(undisturbed.folder)
    assert len(read_manifest(resumed.folder).sessions) == 5


def test_unasked_truth_counts_as_missed(questions: Any, answers: Any, config: MakeConfig) -> None:
    result = evaluate(replace(questions, extra=30), answers(), config())
    assert result.answers.completions == 60
    assert result.report.figures["recall"].value == pytest.approx(2 / 3, abs=0.05)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), signal.SIGTERM])
def test_an_interrupt_is_a_clean_stop_that_resumes(questions: Any, answers: Any, config: MakeConfig, stop: Any) -> None:
    def interrupting(completions: Iterable[Completion]) -> Iterator[Completion]:
        for count, completion in enumerate(completions):
            if count == 10:
                if isinstance(stop, BaseException):
                    raise stop
                signal.raise_signal(stop)
            yield completion

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(RunInterrupted, match="interrupted with 10 of 60 completions done") as caught:
        evaluate(questions, answers(shape=interrupting), config())
    assert caught.value.exit_code == ExitCode.INTERRUPTED == 130
    assert signal.getsignal(signal.SIGTERM) == before
    stopped = read_manifest(only_run(config()))
    assert (stopped.status, stopped.finished) == ("interrupted", 10)
    backend = answers()
    assert evaluate(questions, backend, config()).status == "complete"
    assert len(backend.asked) == 50


def test_a_second_process_is_refused_while_the_first_works(questions: Any, answers: Any, config: MakeConfig) -> None:
    with pytest.raises(BackendError):
        evaluate(questions, answers({("3:cat", 0): BackendError("gone")}), config())
    folder = only_run(config())
    with RunStore(folder), pytest.raises(UserError, match="is being written by another process"):
        evaluate(questions, answers(), config())
    assert evaluate(questions, answers(), config()).folder == folder


def test_a_run_folder_given_as_output_is_resumed_or_refused(questions: Any, answers: Any, config: MakeConfig) -> None:
    with pytest.raises(BackendError):
        evaluate(questions, answers({("3:cat", 0): BackendError("gone")}), config())
    folder = only_run(config())
    with pytest.raises(UserError, match=r"sampling\.temperature: 0\.0 there, 1\.0 here"):
        evaluate(questions, answers(), config(output_dir=folder, temperature=1.0))
    with pytest.raises(UserError, match="--fresh starts a new run"):
        evaluate(questions, answers(), config(output_dir=folder, fresh=True))
    assert evaluate(questions, answers(), config(output_dir=folder)).folder == folder


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        (lambda completions: (item for one in completions for item in (one, one)), "unasked or twice"),
        (lambda completions: (replace(one, sample_id="x") for one in completions), "'x', n=0, unasked or twice"),
    ],
)
def test_a_backend_that_answers_what_nobody_asked_is_stopped(
    questions: Any, answers: Any, config: MakeConfig, shape: Any, said: str
) -> None:
    with pytest.raises(BackendError, match=said):
        evaluate(questions, answers(shape=shape), config())


def test_requests_that_a_backend_swallows_are_failures(questions: Any, answers: Any, config: MakeConfig) -> None:
    def last_two_lost(completions: Iterable[Completion]) -> Iterator[Completion]:
        yield from list(completions)[:-2]

    result = evaluate(questions, answers(shape=last_two_lost), config())
    assert result.answers.failures == 2
    assert result.answers.completions == 60


def test_requests_are_read_lazily_and_forgotten_when_answered(
    questions: Any, answers: Any, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vrft_bench.harness import run

    waiting: list[int] = []
    finish = run._Run._finish

    def watched(self: Any, *args: Any) -> None:
        waiting.append(len(self._in_flight))
        finish(self, *args)

    monkeypatch.setattr(run._Run, "_finish", watched)
    evaluate(questions, answers(), config())
    assert waiting == [0] * 60


def test_a_truncated_completion_is_read_as_one(questions: Any, answers: Any, config: MakeConfig) -> None:
    cut = {"text": "<think>I look for the", "finish_reason": "length"}
    result = evaluate(questions, answers({("1:cat", 0): cut}), config())
    assert result.answers.status["truncated"] == 1


def test_boxes_are_read_in_the_size_that_the_processor_really_used(
    questions: Any, answers: Any, config: MakeConfig, records: Records
) -> None:
    text = "<think>x</think>\n<answer>[{'Position': [25, 20, 50, 40], 'Confidence': 1.0}]</answer>"
    backend = answers({("0:dog", 0): {"text": text, "processed": (50, 40)}})
    result = evaluate(questions, backend, config(profile="qwen2.5-vl"))
    record = records(result.folder)[1]
    assert record["processed"] == [50, 40]
    assert record["prediction"]["boxes"] == [[50.0, 40.0, 100.0, 80.0]]


def test_boxes_out_of_range_are_said_loudly(questions: Any, answers: Any, config: MakeConfig) -> None:
    wild = "<think>x</think>\n<answer>[{'Position': [10, 10, 900, 900], 'Confidence': 1.0}]</answer>"
    result = evaluate(questions, answers({("0:dog", 0): wild, ("2:dog", 0): wild}), config())
    assert result.answers.boxes_out_of_range == 2
    assert result.answers.boxes == 58
    assert any(note.startswith("3.4% of the boxes (2 of 58) left the declared") for note in result.answers.notes)


def test_a_defect_in_a_task_ends_the_run_as_failed_and_keeps_what_was_done(
    questions: Any, answers: Any, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    parse = type(questions).parse

    def broken(self: Any, text: str, frame: Any, *, truncated: bool = False) -> Any:
        if "bad" in text:
            raise ZeroDivisionError
        return parse(self, text, frame, truncated=truncated)

    monkeypatch.setattr(type(questions), "parse", broken)
    with pytest.raises(ZeroDivisionError):
        evaluate(questions, answers({("2:cat", 0): "bad"}), config())
    stopped = read_manifest(only_run(config()))
    assert (stopped.status, stopped.finished) == ("failed", 4)
