"""``vrft-bench export``: what it prints, and what it says of a wrong choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.harness.config import make_config
from vrft_bench.harness.plan import choose_task, make_plan
from vrft_bench.tasks.profiles import QWEN2_VL
from vrft_bench.trainers.data import write_training_manifest

pytestmark = pytest.mark.usefixtures("sample_cache")

EXPORT = ("export", "--for", "ms-swift", "-t", "coco_fewshot", "--profile", "qwen2-vl", "-o", "out")


def test_it_says_what_was_written_and_the_check_agrees(cli: Any) -> None:
    done = cli(*EXPORT, "--limit", "9")
    first, last = done.out.splitlines()
    assert first.startswith("coco_fewshot grpo for ms-swift 4.6.0  |  profile qwen2-vl  |  protocol strict")
    assert first.endswith("data: sample  |  9 questions, 2 images  |  written")
    assert last.endswith("out")
    assert cli(*EXPORT, "--limit", "9").out.splitlines()[0].endswith("there already")
    checked = cli("export", "--check", "out")
    assert (checked.code, checked.out.splitlines()[0].endswith("9 questions, 2 images  |  whole")) == (0, True)
    told = json.loads(cli("export", "--check", "out", "--json").out)
    assert told["counts"] == {"rows": 9, "images": 2}


def test_what_an_engine_cannot_be_told_is_noted(cli: Any) -> None:
    Path("mine.yaml").write_text("grpo: {warmup_steps: 20, epochs: 2, loss: dapo}")
    export = ("export", "--for", "openrlhf", "-t", "coco_fewshot", "--profile", "qwen2-vl", "-o", "out")
    done = cli(*export, "--limit", "2", "--recipe", "mine.yaml")
    assert "note: openrlhf cannot be told warmup_steps = 20" in done.out
    assert json.loads(Path("out/manifest.json").read_text())["left_out"] == ["warmup_steps = 20"]


def test_only_the_samples_of_a_manifest_are_exported(cli: Any) -> None:
    config = make_config({"task": ["coco_fewshot"], "split": "train", "limit": 9})
    plan = make_plan(choose_task("coco_fewshot", config), QWEN2_VL, config)
    ids = [sample.id for sample in plan.walk()]
    write_training_manifest(Path("worth.json"), plan, ids[2:4], {"model": "tiny"})
    done = cli(*EXPORT, "--limit", "9", "--manifest", "worth.json")
    assert "2 questions" in done.out, done.err
    assert "already holds another export: its data is" in cli(*EXPORT, "--limit", "9").err
    assert "--manifest gone.json" in cli(*EXPORT, "--manifest", "gone.json").err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("export",), 2, "export needs --for ENGINE"),
        (("export", "--for", "verl"), 2, "export needs --task NAME"),
        (("export", "--for", "verl", "-t", "coco_fewshot"), 2, "export needs --output-dir DIR"),
        (("export", "--for", "trl", "-t", "coco_fewshot", "-o", "x"), 2, "`vrft-bench train` trains in place"),
        (("export", "--for", "verl", "-t", "coco_fewshot", "-o", "x"), 2, "say --profile qwen2-vl | qwen2.5-vl"),
        (
            ("export", "--for", "verl", "-t", "coco_fewshot", "-o", "x", "--profile", "qwen9"),
            2,
            "unknown profile 'qwen9'",
        ),
        (
            ("export", "--for", "openrlhf", "--stage", "sft", "-t", "coco_fewshot", "-o", "x"),
            2,
            "its SFT takes text alone",
        ),
        (("export", "--check", "gone"), 3, "gone is no export"),
    ],
)
def test_a_wrong_choice_is_said(cli: Any, argv: tuple[str, ...], code: int, said: str) -> None:
    done = cli(*argv)
    assert done.code == code
    assert said in done.err
