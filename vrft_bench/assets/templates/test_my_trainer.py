"""my_trainer leaves a model that learned something and evaluates, does not repeat itself, and refuses what it lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.registry import include
from vrft_bench.tasks import get_task
from vrft_bench.trainers.base import make_train_config
from vrft_bench.trainers.launch import start

include(Path(__file__).with_name("my_trainer.py"))


def train(folder: Path, **more: Any) -> Path:
    few = {"trainer": "my_trainer", "task": "coco_fewshot", "limit": 4, "steps": 2, "learning_rate": 1e-3}
    return start(make_train_config({**few, "output_dir": folder, **more}))


def test_its_result_is_another_model_and_evaluates(tmp_path: Path) -> None:
    final = train(tmp_path / "out")
    backend = load_backend(f"hf/{final}")
    result = evaluate(get_task("coco_fewshot"), backend, make_config({"limit": 4, "output_dir": tmp_path / "runs"}))
    backend.close()
    assert (result.status, result.answers.failures) == ("complete", 0)
    assert (final / "model.safetensors").read_bytes() != _tiny("model.safetensors")
    written = (final / "model.safetensors").stat().st_mtime_ns
    assert train(tmp_path / "out") == final
    assert (final / "model.safetensors").stat().st_mtime_ns == written


def test_an_option_that_it_does_not_have_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="beta"):
        train(tmp_path / "out", beta=0.04)


def _tiny(file: str) -> bytes:
    from vrft_bench.harness.models.checkpoint import find_checkpoint

    return (Path(find_checkpoint("tiny").source) / file).read_bytes()
