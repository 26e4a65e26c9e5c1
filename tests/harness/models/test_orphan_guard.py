"""Processes of an engine end with their owner, even where the owner is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vrft_bench.harness.models.orphan_guard import MARK, OrphanGuard

SECONDS = 60.0
SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]); " + SLEEP
OWNER = f"""
import subprocess, sys, time
from vrft_bench.harness.models.orphan_guard import OrphanGuard

def start(code):
    return subprocess.Popen([sys.executable, "-c", code])

guard = OrphanGuard()
with guard.marking():
    parent = start({PARENT!r})
print(start({SLEEP!r}).pid, parent.pid, flush=True)
time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(is_so: object) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("at_once", [True, False])
def test_what_was_started_under_it_ends_when_the_owner_is_killed_and_nothing_else_does(at_once: bool) -> None:
    """Even where the owner is killed before the guard has begun to watch it; and also what ignores SIGTERM."""
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    other, parent = map(int, owner.stdout.readline().split())
    guarded = [parent]
    if not at_once:
        wait_for(lambda: children(parent))
        guarded += children(parent)
    assert all(map(lives, (other, *guarded)))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    wait_for(lambda: not any(map(lives, guarded)))
    assert lives(other)
    os.kill(other, signal.SIGKILL)


def test_closing_it_ends_what_is_left_and_leaves_no_mark() -> None:
    guard = OrphanGuard()
    with guard.marking():
        process = subprocess.Popen([sys.executable, "-c", SLEEP])
    assert MARK not in os.environ
    guard.close()
    assert process.wait(SECONDS) == -signal.SIGTERM
    assert guard._process.poll() is not None
