"""`make demo-train`: what is learned from a few images is real, whichever images and whichever random numbers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "demo_train.py"

pytest.importorskip("trl")


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_grpo_gains_on_held_out_images_with_two_seeds(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--output", str(tmp_path), "--seeds", "0,1", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("300 images held out, none in both") == 2
