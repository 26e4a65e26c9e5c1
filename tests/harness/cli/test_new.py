"""``vrft-bench new`` as a user calls it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

CLI = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()"]


@pytest.mark.parametrize(
    "argv",
    [
        ["model", "mine_a"],
        ["model", "mine_b", "--profile-only"],
        ["task", "mine_c", "--family", "grounding", "-o", "plugins"],
        ["trainer", "mine_d"],
    ],
)
def test_the_command_that_is_printed_runs(
    argv: list[str], cli: Callable[..., Any], tmp_path: Path, sample_cache: Path
) -> None:
    outcome = cli("new", *argv)
    assert outcome.code == 0
    wrote, test_it, use_it, _, group, point = outcome.out.splitlines()
    folder = "plugins/" if "-o" in argv else ""
    assert wrote == f"wrote {folder}{argv[1]}.py and {folder}test_{argv[1]}.py"
    assert test_it == f"test it:     python -m pytest {folder}test_{argv[1]}.py"
    assert group.strip().startswith('[project.entry-points."vrft_bench.')
    assert point.strip().startswith(f'{argv[1]} = "my_package.{argv[1]}:')
    command = shlex.split(use_it.removeprefix("use it:"))
    assert command[0] == "vrft-bench"
    done = subprocess.run([*CLI, *command[1:]], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr


def test_a_second_time_is_refused_and_changes_nothing(cli: Callable[..., Any], tmp_path: Path) -> None:
    assert cli("new", "model", "mine").code == 0
    (tmp_path / "mine.py").write_text("my work")
    outcome = cli("new", "model", "mine")
    assert outcome.code == 2
    assert "mine.py is there already, and nothing is overwritten" in outcome.err
    assert (tmp_path / "mine.py").read_text() == "my work"
