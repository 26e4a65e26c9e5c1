"""A run with vLLM that is killed or interrupted leaves no process behind, and goes on where it stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from vrft_bench.errors import ExitCode
from vrft_bench.harness.records import read_records
from vrft_bench.harness.store import SAMPLES, read_manifest

SECONDS = 300.0
COUNT = 400
COMMAND = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", "run", "-m", "vllm/tiny"]
TASK = ["-t", "lvis_fewshot", "-L", str(COUNT), "--max-tokens", "200"]


@pytest.fixture
def start(vllm_is_here: None, sample_cache: Path, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command in an empty folder. Whatever becomes of the test, its process group is ended."""
    started: list[subprocess.Popen[str]] = []

    def call(*argv: str) -> subprocess.Popen[str]:
        with (tmp_path / "output").open("a") as output:
            process = subprocess.Popen(
                [*COMMAND, *argv], cwd=tmp_path, text=True, stdout=output, stderr=output, start_new_session=True
            )
        started.append(process)
        return process

    yield call
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def until(is_so: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def answered(folder: Path) -> int:
    return sum(len(file.read_bytes().splitlines()) for file in folder.glob(f"results/*/*/*/{SAMPLES}"))


def descendants(pid: int) -> set[int]:
    """All processes below ``pid``."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found: set[int] = set()
    waiting = [pid]
    while waiting:
        new = children.get(waiting.pop(), [])
        found.update(new)
        waiting += new
    return found


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_killed_run_leaves_no_engine_and_an_interrupted_one_neither_and_a_third_ends_it(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Killed with no warning; then interrupted as by Ctrl-C, which only this process hears; then left alone."""
    killed = start(*TASK)
    until(lambda: answered(tmp_path) > 20)
    engine = descendants(killed.pid)
    assert len(engine) >= 2  # the engine, and the guard that ends it
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    until(lambda: not any(map(lives, engine)))

    before = answered(tmp_path)
    assert 20 < before < COUNT
    interrupted = start(*TASK)
    until(lambda: answered(tmp_path) > before)
    engine = descendants(interrupted.pid)
    os.kill(interrupted.pid, signal.SIGINT)
    assert interrupted.wait(SECONDS) == ExitCode.INTERRUPTED
    assert not any(map(lives, engine))

    assert start(*TASK).wait(SECONDS) == ExitCode.OK, (tmp_path / "output").read_text()
    (folder,) = (path.parent for path in tmp_path.glob("results/*/*/*/run.json"))
    manifest = read_manifest(folder)
    assert (manifest.status, manifest.finished, manifest.failed, len(manifest.sessions)) == ("complete", COUNT, 0, 3)
    records = list(read_records(folder / SAMPLES))
    assert len({(record["id"], record["n"]) for record in records}) == len(records) == COUNT


@pytest.mark.parametrize(
    ("spawn", "number"),
    [
        ((), signal.SIGKILL),
        ((), signal.SIGINT),
        (("--spawn",), signal.SIGKILL),
        (("--spawn",), signal.SIGTERM),
    ],
    ids=["engine killed", "engine interrupted", "server killed", "server terminated"],
)
def test_a_run_that_is_ended_while_vllm_starts_leaves_nothing_behind(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, spawn: tuple[str, ...], number: signal.Signals
) -> None:
    run = start(*TASK, *spawn)
    wanted = 2 if spawn else 3  # the keeper becomes the server; an engine has a guard and Python's resource tracker
    started: set[int] = set()

    def has_started() -> bool:
        started.clear()
        started.update(descendants(run.pid))  # one look: some live for a moment only
        return len(started) >= wanted or run.poll() is not None

    until(has_started)
    assert len(started) >= wanted, (tmp_path / "output").read_text()
    os.kill(run.pid, number)
    run.wait(SECONDS)
    until(lambda: not any(map(lives, started)))
    assert answered(tmp_path) == 0
