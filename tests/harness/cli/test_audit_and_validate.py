"""``audit`` and ``validate`` as a user calls them: what is printed, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vrft_bench.harness.cli.app import app

pytestmark = pytest.mark.usefixtures("sample_cache")

GAMED = """
from dataclasses import dataclass

from vrft_bench.registry import TASKS
from vrft_bench.tasks.base import Reward
from vrft_bench.tasks.classification import ClassificationTask


def generous(prediction, target):
    return 1.0


@dataclass(frozen=True)
class Gamed(ClassificationTask):
    @property
    def rewards(self):
        return (Reward("accuracy", generous),)


TASKS.register("gamed", lambda: Gamed("gamed", "1", "pays for anything"))
"""


def test_a_sound_task_passes_both() -> None:
    audited = CliRunner().invoke(app, ["audit", "lvis_fewshot", "--protocol", "strict", "-L", "8"])
    assert audited.exit_code == 0, audited.output
    assert "within the bounds" in audited.output
    assert "always No Objects" in audited.output
    validated = CliRunner().invoke(app, ["validate", "lvis_fewshot", "--protocol", "strict", "-L", "8"])
    assert validated.exit_code == 0, validated.output
    assert "FAILED" not in validated.output


def test_a_task_that_can_be_gamed_ends_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "gamed.py").write_text(GAMED)
    # in processes of their own: what a file registers stays registered
    start = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()"]
    rest = ["gamed", "--include", "gamed.py", "--protocol", "strict", "-L", "8"]
    audited, validated = (
        subprocess.run([*start, verb, *rest], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        for verb in ("audit", "validate")
    )
    assert audited.returncode == 1, audited.stderr
    assert "ABOVE THE BOUNDS" in audited.stdout
    assert "above: accuracy" in audited.stdout
    assert validated.returncode == 1, validated.stderr
    assert "FAILED" in validated.stdout


def test_json_holds_every_trick() -> None:
    audited = CliRunner().invoke(app, ["audit", "classification", "--protocol", "strict", "-L", "8", "--json"])
    (report,) = json.loads(audited.output)
    assert report["protocol"] == "strict"
    assert len(report["results"]) > 25
    validated = CliRunner().invoke(app, ["validate", "classification", "--protocol", "strict", "-L", "8", "--json"])
    assert all(check["passed"] for check in json.loads(validated.output)["strict"])
