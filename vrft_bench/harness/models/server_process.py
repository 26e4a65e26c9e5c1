"""A server in a child process: started, waited for, and stopped with everything that it started itself.

The child leads a process group of its own, which ends when it is told to, and also when this process is gone, however
that ended (see :mod:`kept_process`).
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from vrft_bench.errors import BackendError

GRACE = 10.0
"""Seconds that a server has to end by itself before it is killed."""

_POLL = 0.1
_TOLD_LINES = 20


class ServerProcess:
    """``python -m module arguments...``, running. What it writes goes into ``log``.

    It has this process's environment but for the variables called ``without``.
    """

    def __init__(self, module: str, arguments: Sequence[str], without: Sequence[str] = ()) -> None:
        descriptor, name = tempfile.mkstemp(prefix="vrft-bench-", suffix=".log")
        self.log = Path(name)
        self._module = module
        keeper = [sys.executable, "-P", "-m", "vrft_bench.harness.models.kept_process", str(os.getpid())]
        with os.fdopen(descriptor, "wb") as log:
            self._process = subprocess.Popen(
                [*keeper, module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={name: value for name, value in os.environ.items() if name not in without},
                start_new_session=True,
            )

    @property
    def group(self) -> int:
        """The id of the process group that the server leads."""
        return self._process.pid

    def wait_until(self, is_ready: Callable[[], bool], timeout: float) -> None:
        """Return once ``is_ready()``. Raises :class:`BackendError` where the server ends first, or takes too long."""
        deadline = time.monotonic() + timeout
        while not is_ready():
            self.require_running()
            if time.monotonic() > deadline:
                raise BackendError(
                    f"the server is not ready after {timeout:g} seconds; {self._last_words()}",
                    fix="give it longer with -M start_timeout=SECONDS",
                )
            time.sleep(_POLL)

    def require_running(self) -> None:
        """Raise :class:`BackendError` with the end of its log where the server is gone."""
        code = self._process.poll()
        if code is not None:
            how = f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
            raise BackendError(f"the server ended by itself ({how}); {self._last_words()}", fix="mend what it says")

    def stop(self) -> None:
        """End the server and all of its group, and remove the log, unless it ended by itself and its log says why."""
        ended_by_itself = self._process.poll() is not None
        self._signal_group(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        while self._group_lives() and time.monotonic() < deadline:
            time.sleep(_POLL)
        self._signal_group(signal.SIGKILL)
        self._process.wait()
        if not ended_by_itself:
            self.log.unlink(missing_ok=True)

    def _group_lives(self) -> bool:
        self._process.poll()  # a server that has ended stays in its group until it is asked for
        try:
            os.killpg(self.group, 0)
        except ProcessLookupError:
            return False
        return True

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.group, number)

    def _last_words(self) -> str:
        lines = [line.rstrip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"the end of its log, {self.log}:" + "".join(f"\n    {line}" for line in lines[-_TOLD_LINES:])


def free_port() -> int:
    """A TCP port of the loopback interface that nothing listens on at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
