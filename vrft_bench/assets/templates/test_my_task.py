"""my_task keeps its promises on the sample data, and a perfect model scores the maximum."""

from __future__ import annotations

from pathlib import Path

from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.registry import PROFILES, include
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.validate import validate

include(Path(__file__).with_name("my_task.py"))


def test_it_keeps_its_promises_in_every_profile() -> None:
    profiles = [PROFILES.get(name) for name in PROFILES.names()]
    checks = validate(get_task("my_task"), DataSpec(), profiles, limit=40)
    assert [check for check in checks if not check.passed] == []


def test_a_perfect_model_scores_the_maximum(tmp_path: Path) -> None:
    config = make_config({"model": "mock/gold", "limit": 40, "output_dir": tmp_path})
    result = evaluate(get_task("my_task"), load_backend("mock/gold"), config)
    assert result.answers.failures == 0
    value = result.report.figures[result.report.headline].value
    assert value is not None
    assert value > 0.99
