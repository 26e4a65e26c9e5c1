"""A perfect model that speaks as my_profile declares is understood, but for the rounding of its coordinates."""

from __future__ import annotations

from pathlib import Path

from vrft_bench.harness.config import make_config
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.registry import PROFILES, include
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.validate import validate

include(Path(__file__).with_name("my_profile.py"))


def test_every_task_family_keeps_its_promises_in_it() -> None:
    profile = PROFILES.get("my_profile")
    for name in ("detection", "grounding", "classification"):
        checks = validate(get_task(name), DataSpec(), [profile], limit=40)
        assert [check for check in checks if not check.passed] == []


def test_gold_answers_in_it_overlap_with_the_truth(tmp_path: Path) -> None:
    fields = {"model": "mock/gold", "profile": "my_profile", "limit": 40, "output_dir": tmp_path}
    result = evaluate(get_task("lisa_grounding"), load_backend("mock/gold"), make_config(fields))
    miou = result.report.figures["miou"].value
    assert miou is not None
    assert miou > 0.95
