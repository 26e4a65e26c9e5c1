"""The page of supported engines says what the results say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from vrft_bench.trainers.export.engines import ENGINES

ROOT = Path(__file__).parents[3]


def test_the_page_is_the_one_that_the_results_give() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "support_matrix.py", "--check"], check=False)
    assert done.returncode == 0, "run: python scripts/support_matrix.py"


def test_what_was_tested_is_what_exports_say_they_were_written_for() -> None:
    results = json.loads((ROOT / "tests" / "conformance" / "results.json").read_text())
    for name, found in results.items():
        if name in ENGINES:
            assert found["version"] == ENGINES[name].version
        assert set(found["aspects"].values()) == {"passed"}, name
    assert set(ENGINES) - set(results) == {"easyr1"}
