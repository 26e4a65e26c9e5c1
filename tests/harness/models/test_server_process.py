"""A server in a child process ends when it is told to, and also when the process that started it is killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.server_process import ServerProcess, free_port

SECONDS = 60.0

# A server that starts a process of its own, as an engine does, and says which.
SERVER = """
import http.server, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("child", child.pid, flush=True)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""
OWNER = """
import sys, time
from vrft_bench.harness.models.server_process import ServerProcess
server = ServerProcess("kept_server", [sys.argv[1]])
print(server.group, server.log, flush=True)
time.sleep(600)
"""


@pytest.fixture
def kept_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts ``kept_server``, a module to run, where Python finds it."""
    (tmp_path / "kept_server.py").write_text(SERVER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
            return True
    except OSError:
        return False


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether a process is there, and is not only waiting for its parent to ask how it ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def child_in(log: Path) -> int:
    found = re.search(r"child (\d+)", log.read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.usefixtures("kept_server")
def test_it_is_waited_for_and_ends_with_all_that_it_started() -> None:
    port = free_port()
    server = ServerProcess("kept_server", [str(port)])
    try:
        server.wait_until(lambda: answers(port), SECONDS)
        server.require_running()
        child = child_in(server.log)
        assert lives(child)
        assert os.getpgid(child) == server.group != os.getpgid(0)
    finally:
        server.stop()
    until(lambda: not lives(child))
    assert not answers(port)
    assert not server.log.exists()


@pytest.mark.usefixtures("kept_server")
def test_it_ends_when_the_process_that_started_it_is_killed() -> None:
    port = free_port()
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(port)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    group, log = owner.stdout.readline().split()
    until(lambda: answers(port))
    child = child_in(Path(log))
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    until(lambda: not lives(child) and not lives(int(group)))
    owner.stdout.close()
    Path(log).unlink()


def test_variables_that_would_lock_us_out_are_kept_from_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "telling_server.py").write_text("import os\nprint(sorted({'KEPT', 'HELD_BACK'} & set(os.environ)))\n")
    for name in ("PYTHONPATH", "KEPT", "HELD_BACK"):
        monkeypatch.setenv(name, str(tmp_path))
    server = ServerProcess("telling_server", [], without=["HELD_BACK"])
    try:
        with pytest.raises(BackendError, match=r"\['KEPT'\]"):
            server.wait_until(lambda: False, SECONDS)
    finally:
        server.stop()
        server.log.unlink()


def test_a_server_that_ends_by_itself_is_told_with_the_end_of_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_server.py").write_text("print('no such model: x')\nraise SystemExit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ServerProcess("broken_server", [])
    try:
        with pytest.raises(BackendError, match=r"(?s)ended by itself \(exit code 3\).*no such model: x"):
            server.wait_until(lambda: False, SECONDS)
    finally:
        server.stop()
    assert server.log.exists()
    server.log.unlink()


def test_a_server_that_is_never_ready_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow_server.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    server = ServerProcess("slow_server", [])
    try:
        with pytest.raises(BackendError, match=r"not ready after 0\.2 seconds") as refused:
            server.wait_until(lambda: False, 0.2)
        assert "start_timeout" in str(refused.value)
    finally:
        server.stop()
    until(lambda: not lives(server.group))
