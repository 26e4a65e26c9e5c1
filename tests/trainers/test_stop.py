"""A file that asks a training to stop."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.trainers import callbacks
from vrft_bench.trainers.stop import STOP, request_stop

pytest.importorskip("trl")
pytestmark = pytest.mark.usefixtures("sample_cache")

COMMAND = (
    "train", "-t", "coco_fewshot", "--trainer", "sft", "-o", "out", "--limit", "12", "--steps", "3",
    "--batch-size", "4", "--save-every", "10",
)  # fmt: skip


def test_a_training_ends_after_the_step_with_a_checkpoint_and_goes_on_when_told(
    cli: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = callbacks.append_log

    def ask_after_the_first_step(path: Path, values: Any) -> None:
        append(path, values)
        if values["step"] == 1:
            request_stop(path.parent, "the reward is hacked")

    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "append_log", ask_after_the_first_step)
        stopped = cli(*COMMAND)
    assert stopped.code == 5
    assert "the reward is hacked" in stopped.err
    done = json.loads(Path("out/train.json").read_text())["step"]
    assert done in (1, 2)  # the log of a step is written before or after the callback looks
    assert Path(f"out/checkpoint-{done}").is_dir()
    assert not Path("out/final").exists()

    again = cli(*COMMAND)
    assert again.code == 2
    assert "was asked to stop: the reward is hacked" in again.err

    Path("out", STOP).unlink()
    assert cli(*COMMAND).code == 0
    assert Path("out/final/model.safetensors").is_file()
    assert json.loads(Path("out/train.json").read_text())["step"] == 3
