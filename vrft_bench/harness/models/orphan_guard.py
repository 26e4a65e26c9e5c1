"""Ends the processes of an engine whose owner was killed and could not.

vLLM's engine processes outlive a parent that dies by SIGKILL, and keep the GPU's memory. So a small process stands by:
it is told their ids through a pipe, and ends them when their owner is gone or says so. Run as a script, this file is
that process; it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

GRACE = 5.0
"""Seconds between asking a process to end and killing it."""

_LOOK_EVERY = 0.2
_END = "end"


class OrphanGuard:
    """Stands by for child processes that :mod:`multiprocessing` starts while :meth:`adopting`."""

    def __init__(self) -> None:
        self._before = _children()
        self._told: set[int] = set()
        # Isolated from the working directory and this folder, whose files have the names of other packages.
        command = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, text=True, start_new_session=True)

    @contextlib.contextmanager
    def adopting(self) -> Iterator[None]:
        """Look for new processes as they come: this one may be killed before all are there."""
        done = threading.Event()

        def look() -> None:
            while not done.wait(_LOOK_EVERY):
                self._tell()

        thread = threading.Thread(target=look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
            self._tell()

    def close(self) -> None:
        """End what is left of the processes, as would happen if this one were killed."""
        self._say(_END)
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _tell(self) -> None:
        new = _children() - self._before - self._told
        self._told |= new
        for pid in sorted(new):
            self._say(str(pid))

    def _say(self, word: str) -> None:
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):  # somebody killed the guard: the run is worth more than it
                self._process.stdin.write(f"{word}\n")
                self._process.stdin.flush()


def _children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def main() -> None:
    """Read process ids until the owner is gone or says ``end``, then end what is left of those processes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    handles = _handles_until_the_end(int(sys.argv[1]))
    for number in (signal.SIGTERM, signal.SIGKILL):
        for handle in handles:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(handle, number)
        while handles:
            ended, _, _ = select.select(handles, [], [], GRACE)
            if not ended:
                break
            handles = [handle for handle in handles if handle not in ended]


def _handles_until_the_end(owner: int) -> list[int]:
    """Handles of the processes that standard input names: an id may soon be another process's."""
    handles: list[int] = []
    watched: list[int] = [0]
    wait: float | None = 0.0
    with contextlib.suppress(ProcessLookupError):  # the owner may be gone already; what it said waits all the same
        watched, wait = [0, os.pidfd_open(owner)], None
    text = ""
    while 0 in select.select(watched, [], [], wait)[0]:
        said = os.read(0, 4096).decode()
        *words, text = (text + said).split("\n")
        for word in words:
            if word != _END:
                with contextlib.suppress(ProcessLookupError):
                    handles.append(os.pidfd_open(int(word)))
        if not said or _END in words:
            break
    return handles


if __name__ == "__main__":
    main()
