"""my_model answers a small run on the sample data: every question once, and in a form that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.registry import include
from vrft_bench.tasks import get_task

include(Path(__file__).with_name("my_model.py"))

MODEL = "my_model/NAME"


def test_a_small_run_answers_every_question(tmp_path: Path) -> None:
    config = make_config({"model": MODEL, "limit": 20, "output_dir": tmp_path})
    backend = load_backend(MODEL)
    result = evaluate(get_task("lvis_fewshot"), backend, config)
    backend.close()
    assert result.status == "complete"
    assert (result.answers.completions, result.answers.failures) == (20, 0)
    assert set(result.answers.status) <= {"ok", "repaired", "refused"}
    assert result.answers.boxes_out_of_range == 0


def test_the_same_model_has_the_same_identity() -> None:
    first, second = (json.dumps(load_backend(MODEL).identity(), sort_keys=True) for _ in range(2))
    assert first == second


def test_an_unknown_argument_is_refused() -> None:
    with pytest.raises(UserError, match="colour"):
        load_backend(MODEL, {"colour": "red"})
