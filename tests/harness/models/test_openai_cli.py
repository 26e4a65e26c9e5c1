"""``vrft-bench run --model openai/NAME`` as a process: the key stays in the environment, and an interrupt ends all."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from openai_server import Asked, Hang, Say, Status

from vrft_bench.errors import ExitCode
from vrft_bench.harness.cli.run import pairs

SECRET = "sk-test/0123456789abcdef"
TEXT = "<think>I look.</think>\n<answer>No Objects</answer>"


@pytest.fixture
def start(sample_cache: Path, tmp_path: Path) -> Any:
    """Starts the command in an empty folder, with a key in its environment."""

    def call(server: Any, *argv: str, key: str = SECRET) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()"]
        command += ["run", "-t", "lvis_fewshot", "-m", "openai/served", "--base-url", server.url]
        command += ["--profile", "qwen2-vl", "-M", "backoff=0.01", *argv]
        environment = {**os.environ, "OPENAI_API_KEY": key, "PYTHONUNBUFFERED": "1"}
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    return call


def written(folder: Path) -> str:
    return "".join(file.read_text(errors="replace") for file in folder.rglob("*") if file.is_file())


def test_the_key_reaches_the_server_and_no_file_and_no_output(serve: Any, start: Any, tmp_path: Path) -> None:
    """Not even where the server repeats it, in its answers and in its errors."""

    def script(asked: Asked) -> Any:
        assert asked.headers["Authorization"] == f"Bearer {SECRET}"
        if asked.attempt == 0 and len(server.asked) % 7 == 0:
            return Status(500, f"worker for {SECRET} is busy")
        if len(server.asked) in (5, 6):
            return Status(400, f"bad request by {SECRET}")
        return Say(f"{TEXT} your key is {SECRET}")

    server = serve(script)
    process = start(server, "--debug")
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    kept = written(tmp_path)
    assert "your key is [key]" in kept
    assert "bad request by [key]" in kept
    for text in (kept, out, err):
        assert SECRET not in text
        assert SECRET.partition("/")[2] not in text
    (run,) = tmp_path.glob("results/*/*/*/run.json")
    described = json.loads(run.read_text())
    assert described["config"]["base_url"] == server.url
    assert described["identity"]["model"]["address"] == server.url  # it does not say what it has loaded


def test_a_refused_key_is_not_shown(serve: Any, start: Any, tmp_path: Path) -> None:
    refused = serve(lambda asked: Status(401, "Incorrect API key provided: sk-test/********cdef, or " + SECRET))
    process = start(refused, "--debug")
    out, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "Incorrect API key provided" in err
    assert "cdef" not in err + out + written(tmp_path)


def test_ctrl_c_ends_every_request_and_repeating_asks_only_what_is_left(serve: Any, start: Any) -> None:
    server = serve(lambda asked: TEXT if len(server.asked) <= 30 else Hang())
    process = start(server)
    deadline = time.monotonic() + 60
    while len(server.asked) < 40 and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == ExitCode.INTERRUPTED, err
    done = re.search(r"interrupted with (\d+) of 430 completions done", err)
    assert done is not None, err
    assert 0 < int(done[1]) <= 30
    while server.in_flight and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.in_flight == 0
    server.script = lambda asked: TEXT
    before = len(server.asked)
    again = start(server)
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert len(server.asked) - before == 430 - int(done[1])


def test_json_arguments_may_hold_commas() -> None:
    given = ['retries=3,extra_body={"a": [1, 2], "b": {"c": ","}},think_begun=true', "timeout=5"]
    assert pairs(given) == {
        "retries": 3,
        "extra_body": {"a": [1, 2], "b": {"c": ","}},
        "think_begun": True,
        "timeout": 5,
    }
    assert pairs(['extra_body={"a": 1,b']) == {"extra_body": '{"a": 1,b'}
    assert pairs(["a=1,,b= ,"]) == {"a": 1, "b": ""}
