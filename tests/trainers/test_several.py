"""Training in several processes: real ones, on the CPU, through ``accelerate launch``."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks import get_task
from vrft_bench.trainers import several
from vrft_bench.trainers.folder import checkpoints, read_record, step_of
from vrft_bench.trainers.launch import main
from vrft_bench.trainers.outcome import VARIABLE, raise_outcome, report_outcome
from vrft_bench.trainers.several import accelerate_config, launch

pytest.importorskip("trl")


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([*command, "--num-processes", "2"], capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    return done


def losses(folder: Path) -> dict[int, float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    return {line["step"]: line["loss"] for line in lines if "loss" in line}


def test_two_processes_learn_what_one_learns_with_twice_the_batch(trainings: Any, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    trainings.train("sft", one, steps=4, batch_size=4, limit=8)
    done = run(trainings.command("sft", two, steps=4, batch_size=2, limit=8))
    assert done.stdout == f"{two}/final\n"
    assert f"-m vrft_bench.trainers.sft --config {two}/config.yaml\n" in done.stderr
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    assert trainings.largest_difference(one / "final", two / "final") < 1e-4
    base = Path(several.__file__).parents[1] / "assets" / "tiny_qwen2_vl"
    assert trainings.largest_difference(base, two / "final") > 1e-3
    record = read_record(two)
    assert (record.status, record.step, record.identity["processes"]) == ("complete", 4, 2)
    assert {path.name for path in checkpoints(two)[-1].glob("rng_state*")} == {"rng_state_0.pth", "rng_state_1.pth"}


def test_grpo_in_two_processes_shares_its_groups_and_its_result_evaluates(trainings: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    out = tmp_path / "out"
    run(trainings.command("grpo", out, batch_size=4, group_size=8))
    table = pandas.read_parquet(out / "completions" / "completions_00001.parquet")
    assert len(table) == 8
    assert table["sample_id"].nunique() == 1
    task = get_task("coco_fewshot")
    config = make_config({"task": ["coco_fewshot"], "limit": 4, "output_dir": tmp_path / "runs"})
    backend = HFBackend(str(out / "final"))
    assert evaluate(task, backend, config).manifest.finished == 4


@pytest.mark.slow
def test_two_processes_end_after_the_same_step_and_go_on_exactly(trainings: Any, tmp_path: Path) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    changes = {"steps": 8, "save_every": 100, "batch_size": 4, "group_size": 4}
    run(trainings.command("grpo", straight, **changes))
    command = [*trainings.command("grpo", stopped, **changes), "--num-processes", "2"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while not process.stderr.readline().startswith("step 3/"):
        assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    said = process.stderr.read()
    assert process.wait(timeout=300) == 130
    (kept,) = checkpoints(stopped)
    assert f"error: interrupted: step {step_of(kept)} is kept in {kept}" in said
    run(trainings.command("grpo", stopped, **changes))
    assert trainings.largest_difference(straight / "final", stopped / "final") == 0.0


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that would be run; none is."""
    commands: list[list[str]] = []

    def note(command: list[str], environment: dict[str, str]) -> int:
        commands.append(command)
        return 0

    monkeypatch.setattr(several, "_run", note)
    return commands


def test_the_command_is_accelerates_own_with_the_resolved_choices_in_a_file(
    trainings: Any, tmp_path: Path, launched: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    config = trainings.config("grpo", tmp_path / "out", recipe="visual_rft", steps=7, limit=20)
    flags = ["--num_machines", "2", "--machine_rank", "0", "--main_process_ip", "10.0.0.1"]
    assert launch(config, num_processes=16, accelerate=None, flags=flags) == tmp_path / "out" / "final"
    file = tmp_path / "out" / "config.yaml"
    ddp = Path(several.__file__).with_name("accelerate") / "ddp.yaml"
    arguments = [
        *("launch", "--config_file", str(ddp), "--num_processes", "16", *flags),
        *("-m", "vrft_bench.trainers.grpo", "--config", str(file)),
    ]
    assert launched[0][-len(arguments) :] == arguments
    assert f"accelerate {shlex.join(arguments)}" in capsys.readouterr().err
    written = yaml.safe_load(file.read_text())
    assert written["steps"] == 7
    assert written["beta"] == 0.04
    assert written["output_dir"] == str(tmp_path / "out")


@pytest.mark.parametrize("name", ["ddp", "zero2", "zero3", "fsdp"])
def test_every_config_that_ships_is_one_of_accelerates(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    file = Path(several.__file__).with_name("accelerate") / f"{name}.yaml"
    config = load_config_from_file(str(file))
    kinds = {"ddp": "MULTI_GPU", "zero2": "DEEPSPEED", "zero3": "DEEPSPEED", "fsdp": "FSDP"}
    assert config.distributed_type == kinds[name]


def test_what_several_processes_would_stumble_over_is_said_before_they_start(
    trainings: Any, tmp_path: Path, launched: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings.train("sft", tmp_path / "other", steps=1)
    with pytest.raises(UserError, match="processes: 1 there, 2 here"):
        launch(trainings.config("sft", tmp_path / "other", steps=1), num_processes=2, accelerate=None)
    with pytest.raises(UserError, match="no such checkpoint folder"):
        launch(trainings.config("sft", tmp_path / "out", model="./absent"), num_processes=2, accelerate=None)
    with pytest.raises(UserError, match="without GPUs it has to be said how many"):
        launch(trainings.config("sft", tmp_path / "out"), num_processes=None, accelerate="ddp")
    with pytest.raises(UserError, match=r"'zero4' is no config that ships, and no file; did you mean 'zero3'"):
        accelerate_config("zero4")
    with pytest.raises(UserError, match="zero3 needs DeepSpeed"):
        accelerate_config("zero3")
    with pytest.raises(UserError, match="fsdp cuts the model into parts for GPUs"):
        accelerate_config("fsdp")
    monkeypatch.setattr(several, "_gpus", lambda: 4)
    assert accelerate_config("fsdp").name == "fsdp.yaml"
    with pytest.raises(UserError, match=r"torch finds 4 GPU\(s\) here"):
        launch(trainings.config("sft", tmp_path / "out"), num_processes=8, accelerate=None)
    assert launched == []
    assert not (tmp_path / "out").exists()


def test_a_process_reads_the_data_that_the_command_would_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump({"task": "coco_fewshot", "trainer": "grpo", "output_dir": str(tmp_path / "out")}))
    monkeypatch.setenv("VRFT_BENCH_DATA", str(tmp_path / "absent"))
    monkeypatch.setattr("sys.argv", ["sft", "--config", str(file)])
    with pytest.raises(SystemExit) as stop:
        main("sft")
    assert stop.value.code == 3
    assert str(tmp_path / "absent") in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_first_process_that_fails_says_why_and_no_later_one_instead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "outcome.json"
    monkeypatch.setenv(VARIABLE, str(file))
    monkeypatch.setenv("RANK", "1")
    for error, code in ((BackendError("the disk is gone", fix="mount it"), 4), (KeyboardInterrupt(), 130)):
        with pytest.raises(SystemExit) as stop, report_outcome():
            raise error
        assert stop.value.code == code
    assert capsys.readouterr().err == "error: the disk is gone\n  fix: mount it\n"
    with pytest.raises(UserError, match="the disk is gone") as caught:
        raise_outcome(file)
    assert (caught.value.exit_code, caught.value.fix) == (4, "mount it")


def test_an_end_that_nobody_explains_keeps_its_exit_code(
    trainings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = trainings.config("sft", tmp_path / "out")
    for code, told in ((3, 3), (-9, 137)):
        monkeypatch.setattr(several, "_run", lambda *_, code=code: code)
        with pytest.raises(BackendError, match=f"ended with exit code {code}") as caught:
            launch(config, num_processes=2, accelerate=None)
        assert caught.value.exit_code == told
