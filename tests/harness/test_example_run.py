"""The example run in ``results/example``: scored again, it must say what it says; else scoring has changed silently."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from vrft_bench.harness.rescore import rescore

EXAMPLE = Path(__file__).parents[2] / "results" / "example"


def test_the_example_run_scores_as_it_did(tmp_path: Path, sample_cache: Path) -> None:
    """Where this fails on purpose, the task's version has to change with it, and the example is made anew."""
    (stored,) = EXAMPLE.glob("*/*/*")
    run = tmp_path / stored.name
    shutil.copytree(stored, run)
    before = json.loads((run / "metrics.json").read_text())
    rescore(run)
    after = json.loads((run / "metrics.json").read_text())
    assert after == before
