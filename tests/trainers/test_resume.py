"""What goes on after a kill is what would have come without it, bit by bit."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import RunInterrupted, UserError
from vrft_bench.trainers import trl_engine
from vrft_bench.trainers.folder import checkpoints, read_record, step_of
from vrft_bench.trainers.interrupts import Interrupts

pytest.importorskip("trl")

# 6 prompts make an epoch of 3 steps (GRPO) or 2 (SFT): step 4 is inside another epoch than the first.
STEPS, KILLED_AFTER = 6, 4


def logged(folder: Path) -> list[tuple[int, float, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [(line["step"], line["loss"], line["grad_norm"]) for line in lines if "grad_norm" in line]


def act_at(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Let ``act`` be called in the middle of the training, when ``step`` steps are done."""
    from transformers import TrainerCallback

    class Act(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            if state.global_step == step:
                act()

    callbacks = trl_engine.training_callbacks
    monkeypatch.setattr(trl_engine, "training_callbacks", lambda *given: [*callbacks(*given), Act()])


def crash() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("trainer", "changes"),
    [("sft", {}), ("grpo", {"beta": 0.04, "engine_args": {"num_iterations": 2}})],
    ids=["sft", "grpo with a reference model and every completion used twice"],
)
def test_a_killed_training_ends_as_an_undisturbed_one(
    trainings: Any, trainer: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    changes = {"steps": STEPS, "save_every": 2, **changes}
    straight, killed = tmp_path / "straight", tmp_path / "killed"
    trainings.train(trainer, straight, **changes)
    process = subprocess.Popen(trainings.command(trainer, killed, **changes), stderr=subprocess.DEVNULL)
    while not (killed / f"checkpoint-{KILLED_AFTER}" / "checkpoint.json").is_file():
        assert process.poll() is None
        time.sleep(0.005)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (killed / "final").exists()
    trainings.train(trainer, killed, **changes)
    assert logged(killed) == logged(straight)
    assert any(norm > 0 for step, _, norm in logged(killed) if step > KILLED_AFTER)
    assert trainings.largest_difference(straight / "final", killed / "final") == 0.0
    assert len(read_record(killed).sessions) == 2
    assert read_record(killed).status == "complete"


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 4}], ids=["whole", "with adapters"])
def test_a_grpo_training_that_crashed_ends_as_an_undisturbed_one(
    trainings: Any, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"steps": STEPS, "save_every": KILLED_AFTER, **changes}
    straight, crashed = tmp_path / "straight", tmp_path / "crashed"
    trainings.train("grpo", straight, **changes)
    with monkeypatch.context() as patch:
        act_at(patch, KILLED_AFTER + 1, crash)
        with pytest.raises(ZeroDivisionError):
            trainings.train("grpo", crashed, **changes)
    assert read_record(crashed).status == "failed"
    assert [step_of(checkpoint) for checkpoint in checkpoints(crashed)] == [KILLED_AFTER]
    trainings.train("grpo", crashed, **changes)
    assert logged(crashed) == logged(straight)
    assert any(norm > 0 for step, _, norm in logged(crashed) if step > KILLED_AFTER)
    assert trainings.largest_difference(straight / "final", crashed / "final") == 0.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_the_step_at_hand_and_the_same_command_goes_on(
    trainings: Any, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    trainings.train("sft", straight, steps=5, save_every=100)
    with monkeypatch.context() as patch:
        act_at(patch, 2, lambda: os.kill(os.getpid(), number))
        with pytest.raises(RunInterrupted, match=r"step 3 is kept in .*checkpoint-3"):
            trainings.train("sft", stopped, steps=5, save_every=100)
    assert "ending after this step, with a checkpoint; Ctrl-C again ends it at once" in capfd.readouterr().err
    assert read_record(stopped).status == "interrupted"
    trainings.train("sft", stopped, steps=5, save_every=100)
    assert trainings.largest_difference(straight / "final", stopped / "final") == 0.0


def test_a_signal_in_the_middle_of_a_printed_line_is_noted_and_said_without_pythons_streams(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    class Busy:
        def write(self, _: str) -> int:
            raise RuntimeError("reentrant call")

    interrupts = Interrupts()
    with interrupts.heeded(), monkeypatch.context() as patch:
        patch.setattr("sys.stderr", Busy())
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert interrupts.asked
    assert capfd.readouterr().err.count("ending after this step") == 1


def test_an_interrupted_command_exits_with_130(trainings: Any, tmp_path: Path) -> None:
    command = trainings.command("sft", tmp_path / "out", steps=1000, save_every=1000)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("step 2/"):
        assert process.poll() is None
    process.terminate()
    out, said = process.communicate(timeout=300)
    (kept,) = checkpoints(tmp_path / "out")
    assert process.returncode == 130
    assert out == ""
    assert f"error: interrupted: step {step_of(kept)} is kept in {kept}" in said
    assert "fix: repeat the same command: it goes on from there" in said


def test_a_training_that_died_while_it_wrote_its_result_only_writes_it_again(trainings: Any, tmp_path: Path) -> None:
    final = trainings.train("sft", tmp_path / "out", steps=3)
    first = trainings.weights(final)
    shutil.move(final, tmp_path / "out" / ".final-whole")
    assert trainings.train("sft", tmp_path / "out", steps=3) == final
    again = trainings.weights(final)
    assert all((again[name] == tensor).all() for name, tensor in first.items())
    assert not (tmp_path / "out" / ".final-whole").exists()


def test_a_checkpoint_without_its_mark_was_being_written_and_is_removed(trainings: Any, tmp_path: Path) -> None:
    final = trainings.train("sft", tmp_path / "out")
    first = trainings.weights(final)
    shutil.rmtree(final)
    (tmp_path / "out" / "checkpoint-2" / "checkpoint.json").unlink()
    (tmp_path / "out" / "checkpoint-2" / "model.safetensors").write_bytes(b"half")
    trainings.train("sft", tmp_path / "out")
    assert all((tensor == first[name]).all() for name, tensor in trainings.weights(final).items())


def test_a_finished_training_is_told_and_not_repeated(
    trainings: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = trainings.train("sft", tmp_path / "out")
    written = (final / "model.safetensors").stat().st_mtime_ns
    assert trainings.train("sft", tmp_path / "out") == final
    assert (final / "model.safetensors").stat().st_mtime_ns == written
    assert "finished already, at step 2" in capsys.readouterr().err


def test_other_choices_are_another_training(trainings: Any, tmp_path: Path) -> None:
    trainings.train("sft", tmp_path / "out", steps=1)
    with pytest.raises(UserError, match=r"holds another training \(hyperparameters\.learning_rate: 0\.001 there"):
        trainings.train("sft", tmp_path / "out", steps=1, learning_rate=1e-4)
    with pytest.raises(UserError, match="seed: 0 there, 1 here"):
        trainings.train("sft", tmp_path / "out", steps=1, seed=1)


def test_no_resume_refuses_to_begin_anew_over_checkpoints(trainings: Any, tmp_path: Path) -> None:
    final = trainings.train("sft", tmp_path / "out")
    shutil.rmtree(final)
    with pytest.raises(UserError, match="has been trained for 2 steps"):
        trainings.train("sft", tmp_path / "out", resume=False)


def test_saving_between_two_uses_of_the_same_completions_is_refused(trainings: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="save_every 3 is not a multiple of 2") as caught:
        trainings.train("grpo", tmp_path / "out", save_every=3, engine_args={"num_iterations": 2})
    assert caught.value.fix == "give --save-every 4"


def test_a_second_ctrl_c_ends_at_once(trainings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def press_twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    act_at(monkeypatch, 1, press_twice)
    with pytest.raises(RunInterrupted, match=r"step 1 is kept in .*checkpoint-1"):
        trainings.train("sft", tmp_path / "out", steps=9)
    assert read_record(tmp_path / "out").status == "interrupted"
