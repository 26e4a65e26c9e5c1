"""``vrft-bench train`` as a user calls it."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.trainers import several
from vrft_bench.trainers.folder import read_record

pytestmark = pytest.mark.usefixtures("sample_cache")

FEW = ("-t", "coco_fewshot", "--ask", "present", "--limit", "4", "--steps", "1", "--batch-size", "4", "-o", "out")


def test_the_last_line_is_the_result_and_all_else_is_said_on_stderr(cli: Any) -> None:
    pytest.importorskip("trl")
    outcome = cli("train", "--trainer", "sft", *FEW, "--lr", "1e-4")
    assert outcome.code == 0
    assert outcome.out == f"{Path('out/final').absolute()}\n"
    assert outcome.err.startswith("step 1/1  loss ")
    again = cli("train", "--config", "out/train.json", "--json")
    assert (again.code, json.loads(again.out)) == (0, {"checkpoint": str(Path("out/final").absolute())})
    assert "finished already, at step 1" in again.err
    assert read_record(Path("out")).config["learning_rate"] == 1e-4
    seen = cli("run", "-t", "coco_fewshot", "-m", "./out/final", "--limit", "2", "--plain")
    assert seen.code == 0


def test_a_dry_run_tells_every_choice_and_trains_nothing(cli: Any) -> None:
    chosen = ("--recipe", "visual_rft", "--batch-size", "8", "--beta", "0.1", "-E", "num_iterations=2")
    outcome = cli("train", *FEW, *chosen, "--dry-run")
    assert outcome.code == 0, outcome.err
    told = dict(line.split(maxsplit=1) for line in outcome.out.splitlines())
    assert (told["beta"], told["group_size"], told["steps"]) == ("0.1", "8", "1")
    assert told["engine_args"] == "{'num_iterations': 2}"
    assert (told["questions"], told["begins"]) == ("4", "with step 1")
    asked = json.loads(cli("train", *FEW, "--group-size", "4", "--dry-run", "--json").out)
    assert asked.pop("found") == {"questions": 4, "images": 4, "coordinates": "qwen2-vl", "begins": "with step 1"}
    assert asked == {
        "task": "coco_fewshot", "ask": "present", "limit": 4, "steps": 1, "batch_size": 4, "group_size": 4,
        "output_dir": "out",
    }  # fmt: skip
    assert cli("train", *FEW[:-1], "deep/down/out", "--group-size", "4", "--dry-run").code == 0
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("train", "-t", "coco_fewshot"), "no output_dir is given"),
        (("train", "-o", "out"), "no task is given"),
        (("train", *FEW, "--trainer", "grop"), "unknown trainer 'grop'; did you mean 'grpo'"),
        (("train", *FEW, "--trainer", "sft", "--group-size", "8"), "trainer 'sft' has no option 'group_size'"),
        (("train", *FEW, "--dry-run", "--trainer", "sft", "--beta", "1"), "trainer 'sft' has no option 'beta'"),
        (("train", *FEW, "--dry-run", "--group-size", "8"), "cannot be cut into groups of 8"),
        (("train", *FEW, "--dry-run", "--trainer", "sft", "-E", "packin=1"), "SFTConfig has no argument 'packin'"),
        (("train", *FEW, "--group-size", "4", "-E", "num_iteration=2"), "GRPOConfig has no argument 'num_iteration'"),
        (("train", *FEW, "--", "--num_machines", "2"), "'--num_machines 2' is for `accelerate launch`"),
        (("train", *FEW, "--num-processes", "2", "grpo"), "'grpo' is not an option of train"),
        (("train", *FEW, "--accelerate", "zero9"), "'zero9' is no config that ships"),
    ],
)
def test_a_mistake_is_one_message_with_a_way_out(argv: tuple[str, ...], message: str, cli: Any) -> None:
    outcome = cli(*argv)
    assert outcome.code == 2
    assert message in outcome.err
    assert "fix: " in outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("option", "given", "code", "message"),
    [
        ("--data", "nowhere", 3, "there is no data folder nowhere"),
        ("--model", "./no-checkpoint", 4, "no such checkpoint folder"),
    ],
)
def test_a_dry_run_finds_that_data_or_model_are_absent(
    option: str, given: str, code: int, message: str, cli: Any
) -> None:
    outcome = cli("train", *FEW, "--group-size", "4", option, given, "--dry-run")
    assert outcome.code == code
    assert message in outcome.err
    assert not Path("out").exists()


def test_without_the_extra_it_says_what_to_install(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without_trl(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name in ("trl", "datasets") else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without_trl)
    outcome = cli("train", *FEW)
    assert outcome.code == 2
    assert "trainer 'grpo' needs trl and datasets, not installed here" in outcome.err
    assert "pip install 'vrft-bench[train]'" in outcome.err


def test_several_processes_are_asked_for_with_their_flags(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []
    monkeypatch.setattr(several, "_run", lambda command, _: commands.append(command) or 0)
    outcome = cli("train", *FEW, "--trainer", "sft", "--num-processes", "4", "--", "--num_machines", "2")
    assert (outcome.code, outcome.out) == (0, f"{Path('out/final').absolute()}\n")
    assert "--num_processes 4 --num_machines 2 -m vrft_bench.trainers.sft" in " ".join(commands[0])


def test_help_and_lists_load_no_library_of_a_model() -> None:
    heavy = ("torch", "transformers", "trl", "datasets", "accelerate", "peft")
    code = (
        "import sys\nfrom vrft_bench.harness.cli.app import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print([name for name in {heavy} if name in sys.modules], file=sys.stderr)"
    )
    for argv in (["train", "--help"], ["ls", "trainers"], ["new", "--help"]):
        done = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, timeout=60)
        assert done.stderr == "[]\n"
        assert done.stdout
