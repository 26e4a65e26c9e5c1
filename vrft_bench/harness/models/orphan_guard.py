"""Ends the processes of an engine whose owner was killed and could not.

vLLM's engine processes outlive a parent that dies by SIGKILL, and keep the GPU's memory. So they are started with a
mark in their environment, which those that they start inherit, and a small process stands by that ends whatever bears
the mark once the owner is gone. Run as a script, this file is that process; it needs nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

MARK = "VRFT_BENCH_ENGINE"
GRACE = 5.0
"""Seconds between asking processes to end and killing them."""

_POLL = 0.1


class OrphanGuard:
    """Stands by for the processes that are started while :meth:`marking`, if they do not fork but run anew."""

    def __init__(self) -> None:
        self._mark = f"{os.getpid()}-{secrets.token_hex(8)}"
        # Isolated from the working directory and this folder, whose files have the names of other packages.
        command = [sys.executable, "-I", "-S", str(Path(__file__).resolve()), str(os.getpid()), self._mark]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    @contextlib.contextmanager
    def marking(self) -> Iterator[None]:
        os.environ[MARK] = self._mark
        try:
            yield
        finally:
            del os.environ[MARK]

    def end(self) -> None:
        """End the marked processes that there are now."""
        _end_marked(self._mark)

    def close(self) -> None:
        """End what is left of them; nobody stands by any more."""
        self.end()
        self._process.kill()
        self._process.wait()


def _end_marked(mark: str) -> None:
    """Ask every process that bears ``mark`` to end, and kill those that do not, until there is none."""
    deadline = time.monotonic() + GRACE
    asked: set[int] = set()
    while bearers := _marked(mark):
        late = time.monotonic() > deadline
        for pid in bearers if late else bearers - asked:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL if late else signal.SIGTERM)
        asked |= bearers
        time.sleep(_POLL)


def _marked(mark: str) -> set[int]:
    """The living processes that bear ``mark``."""
    sought = f"{MARK}={mark}".encode()
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
                if sought in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
    return found


def main() -> None:
    """Wait for the end of the owner, then end what it has left."""
    owner, mark = int(sys.argv[1]), sys.argv[2]
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ProcessLookupError):  # it is gone already
        select.select([os.pidfd_open(owner)], [], [])
    _end_marked(mark)


if __name__ == "__main__":
    main()
