"""Processes of an engine end with their owner, even where the owner is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from vrft_bench.harness.models.orphan_guard import OrphanGuard

SECONDS = 60.0
OWNER = """
import multiprocessing, signal, sys, time
from vrft_bench.harness.models.orphan_guard import OrphanGuard

def sleep(stubborn):
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)

context = multiprocessing.get_context("fork")
before = context.Process(target=sleep, args=(False,))
before.start()
guard = OrphanGuard()
with guard.adopting():
    started = [context.Process(target=sleep, args=(stubborn,)) for stubborn in (False, True)]
    for process in started:
        process.start()
print(before.pid, *(process.pid for process in started), guard._process.pid, flush=True)
time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_what_was_started_under_it_ends_when_the_owner_is_killed_and_nothing_else_does() -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    before, *guarded = map(int, owner.stdout.readline().split())
    assert all(map(lives, (before, *guarded)))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + SECONDS
    while any(map(lives, guarded)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert lives(before)
    os.kill(before, signal.SIGKILL)


def test_closing_it_ends_what_is_left() -> None:
    guard = OrphanGuard()
    with guard.adopting():
        process = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(600,))
        process.start()
    guard.close()
    process.join(SECONDS)
    assert process.exitcode == -signal.SIGTERM
