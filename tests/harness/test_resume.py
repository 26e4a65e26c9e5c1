"""Runs that are really killed, interrupted and starved of disk, in processes of their own."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import ExitCode
from vrft_bench.harness.records import read_records
from vrft_bench.harness.store import METRICS, SAMPLES, is_locked, read_manifest

WORKER = Path(__file__).with_name("worker.py")


def start(output_dir: Path, size: int, seconds: float = 0.0, *limit: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(WORKER), str(output_dir), str(size), str(seconds), *map(str, limit)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def finish(output_dir: Path, size: int, *limit: int) -> tuple[int, str]:
    child = start(output_dir, size, 0.0, *limit)
    _, said = child.communicate(timeout=120)
    return child.returncode, said


def the_run(output_dir: Path) -> Path:
    (file,) = output_dir.glob("*/*/*/run.json")
    return file.parent


def size_of(output_dir: Path) -> int:
    return sum(file.stat().st_size for file in output_dir.glob(f"*/*/*/{SAMPLES}"))


def wait_for_records(output_dir: Path, child: subprocess.Popen[str]) -> None:
    """Until ``child`` has put a record on disk."""
    before, deadline = size_of(output_dir), time.monotonic() + 60
    while size_of(output_dir) <= before and child.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


def answers_in(output_dir: Path) -> list[tuple[Any, ...]]:
    """(id, n, text, score) of every line that counts, sorted; raises where one key has two answers."""
    return sorted(
        (record["id"], record["n"], record["text"], json.dumps(record["score"]))
        for record in read_records(the_run(output_dir) / SAMPLES)
    )


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 2,000 completions that nothing happened to."""
    output_dir = tmp_path_factory.mktemp("undisturbed")
    code, said = finish(output_dir, 1000)
    assert code == 0, said
    return output_dir


def test_a_run_killed_twenty_times_ends_with_the_records_of_an_undisturbed_one(
    tmp_path: Path, undisturbed: Path
) -> None:
    stream = random.Random(2503)
    kills_while_writing = 0
    for attempt in range(22):
        child = start(tmp_path, 1000, 0.002)
        if attempt % 6 == 5:  # now and then while it starts, wherever that is
            time.sleep(stream.uniform(0.0, 0.6))
        else:
            wait_for_records(tmp_path, child)
            kills_while_writing += child.poll() is None
            time.sleep(stream.uniform(0.0, 0.1))
        child.kill()
        child.communicate()
        assert child.returncode == -signal.SIGKILL
        if attempt % 4 == 0:  # what a power cut leaves behind
            with next(tmp_path.glob(f"*/*/*/{SAMPLES}")).open("ab") as file:
                file.write(b'{"id":"7:cat","n":0,"te')
    folder = the_run(tmp_path)
    assert kills_while_writing >= 15
    assert read_manifest(folder).status == "running"
    assert not is_locked(folder)
    left_to_do = 2000 - len(answers_in(tmp_path))
    assert 0 < left_to_do < 1900
    code, said = finish(tmp_path, 1000)
    assert code == 0, said
    assert f"resuming {folder}: {2000 - left_to_do} of 2000" in said
    lines = (folder / SAMPLES).read_text().splitlines()
    assert len(lines) == 2000
    assert answers_in(tmp_path) == answers_in(undisturbed)
    mine, theirs = (json.loads((the_run(root) / METRICS).read_text()) for root in (tmp_path, undisturbed))
    assert mine == theirs


def test_ctrl_c_exits_130_and_the_run_resumes(tmp_path: Path, undisturbed: Path) -> None:
    child = start(tmp_path, 1000, 0.002)
    wait_for_records(tmp_path, child)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=30)
    assert child.returncode == ExitCode.INTERRUPTED
    assert "repeat the same command" in said
    assert "Traceback" not in said
    stopped = read_manifest(the_run(tmp_path))
    assert stopped.status == "interrupted"
    assert stopped.finished == len(answers_in(tmp_path)) > 0
    assert finish(tmp_path, 1000)[0] == 0
    assert answers_in(tmp_path) == answers_in(undisturbed)


def test_a_full_disk_exits_5_keeps_whole_lines_and_the_run_resumes(tmp_path: Path, undisturbed: Path) -> None:
    limit = 20_000  # a real EFBIG from the kernel, after a partial write
    code, said = finish(tmp_path, 1000, limit)
    assert code == ExitCode.PARTIAL
    assert "the disk is full or takes no more" in said
    assert "File too large" in said
    assert "repeat the same command" in said
    kept = (the_run(tmp_path) / SAMPLES).read_bytes()
    assert limit - 1000 < len(kept) <= limit
    assert kept.endswith(b"\n")
    assert read_manifest(the_run(tmp_path)).status == "failed"
    assert finish(tmp_path, 1000)[0] == 0
    assert answers_in(tmp_path) == answers_in(undisturbed)


def test_a_second_process_on_the_same_run_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    first = start(tmp_path, 1000, 0.01)
    wait_for_records(tmp_path, first)
    try:
        code, said = finish(tmp_path, 1000)
    finally:
        first.kill()
        first.communicate()
    assert code == ExitCode.USAGE
    assert f"is being written by another process (pid {first.pid})" in said
