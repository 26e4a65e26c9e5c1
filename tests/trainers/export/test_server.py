"""The score over HTTP: the evaluator's to the last bit, whole or an error, within bounds."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.tasks import get_task
from vrft_bench.trainers.export.engines import ENGINES
from vrft_bench.trainers.export.server import RewardServer, score_by_truth

LIMIT = 4_000_000


@pytest.fixture
def server() -> Iterator[RewardServer]:
    with RewardServer(("127.0.0.1", 0), score_by_truth(), max_body=LIMIT) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def truth(shared_export: Any) -> str:
    row, *_ = ENGINES["ms-swift"].read(shared_export("ms-swift"), "grpo")
    return row.ground_truth


def ask(server: RewardServer, body: bytes | dict[str, Any], method: str = "POST", path: str = "/score",
        headers: dict[str, str] | None = None) -> tuple[int, Any]:  # fmt: skip
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, content, headers or {})
    answer = connection.getresponse()
    found = answer.status, json.loads(answer.read())
    connection.close()
    return found


def items(truth: str, *texts: str) -> dict[str, Any]:
    return {"items": [{"completion": text, "ground_truth": truth} for text in texts]}


def test_a_batch_is_scored_as_the_task_scores_it(server: RewardServer, truth: str) -> None:
    texts = ["", "<think>a</think>\n<answer>No Objects</answer>", "[{" * 1000, "\ud83d\ude00 \u0000"]
    task = get_task("coco_fewshot")
    assert ask(server, items(truth, *texts)) == (200, {"scores": [task.score(text, truth) for text in texts]})
    assert ask(server, {"items": []}) == (200, {"scores": []})


def test_32_clients_get_their_own_scores(server: RewardServer, truth: str) -> None:
    task = get_task("coco_fewshot")
    texts = [f"<think>{n}</think>\n<answer>{'No Objects' if n % 2 else ''}</answer>" for n in range(96)]
    with ThreadPoolExecutor(32) as clients:
        found = list(clients.map(lambda text: ask(server, items(truth, text)), texts))
    assert found == [(200, {"scores": [task.score(text, truth)]}) for text in texts]


def test_it_says_that_it_runs(server: RewardServer) -> None:
    status, said = ask(server, b"", "GET", "/health")
    assert (status, said["status"]) == (200, "ok")


def test_an_item_that_cannot_be_scored_fails_the_batch_and_is_named(server: RewardServer, truth: str) -> None:
    other = json.dumps(json.loads(truth) | {"version": "0"})
    batch = items(truth, "")
    batch["items"].append({"completion": "", "ground_truth": other})
    status, said = ask(server, batch)
    assert (status, said["item"]) == (422, 1)
    assert "was made for version '0', and is scored by version '1'" in said["error"]
    for broken in (
        "{}",
        "no JSON",
        "[" * 100_000,
        '{"task": "cocofewshot", "protocol": "strict"}',
        '{"task": 1, "protocol": 2}',
    ):
        status, said = ask(server, items(broken, ""))
        assert (status, said["item"]) == (422, 0)
        assert said["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"{}",
        b'{"items": 1}',
        b'{"items": [1]}',
        b'{"items": [{"completion": 1}]}',
        b"[" * 100_000,
    ],
)
def test_a_body_of_another_shape_is_refused_with_the_right_one(server: RewardServer, body: bytes) -> None:
    status, said = ask(server, body)
    assert status == 400
    assert said["fix"] == 'send {"items": [{"completion": "...", "ground_truth": "..."}, ...]}'


def test_a_body_is_refused_by_its_length_before_it_is_read(server: RewardServer) -> None:
    for length in (LIMIT + 1, 10**30, "9" * 5000):
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
        connection.putrequest("POST", "/score")
        connection.putheader("Content-Length", str(length))
        connection.endheaders()
        answer = connection.getresponse()
        assert answer.status == 413
        assert f"at most {LIMIT} are read" in json.loads(answer.read())["error"]
        connection.close()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=30)
    connection.request("POST", "/score", iter([b"a"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().status == 411
    connection.close()


def test_a_body_of_two_lengths_is_refused(server: RewardServer) -> None:
    both = {"Content-Length": "2", "Transfer-Encoding": "chunked"}
    assert ask(server, b"{}", headers=both)[0] == 411


def test_a_score_that_fails_is_an_answer(server: RewardServer, truth: str) -> None:
    def broken(completion: str, ground_truth: str) -> dict[str, float]:
        raise OverflowError("too large")

    server.score = broken
    assert ask(server, items(truth, "")) == (500, {"error": "the score failed: OverflowError('too large')"})
    server.score = score_by_truth()
    assert ask(server, items(truth, ""))[0] == 200


def test_a_defect_is_logged_and_a_client_that_went_away_is_not(server: RewardServer, capsys: Any) -> None:
    for error, logged in ((ConnectionResetError("gone"), False), (OverflowError("too large"), True)):
        try:
            raise error
        except (ConnectionError, OverflowError):
            server.handle_error(None, ("127.0.0.1", 1))
        assert (str(error) in capsys.readouterr().err) == logged


def test_it_ends_while_silent_clients_take_every_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrft_bench.trainers.export.server.MAX_CONNECTIONS", 2)
    with RewardServer(("127.0.0.1", 0), score_by_truth()) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        silent = [socket.create_connection(("127.0.0.1", running.server_address[1])) for _ in range(4)]
        while running._free.acquire(blocking=False):
            running._free.release()
        running.shutdown()
        thread.join(timeout=30)
        assert not thread.is_alive()
        for client in silent:
            client.close()


def test_a_kept_connection_makes_room_for_one_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vrft_bench.trainers.export.server.MAX_CONNECTIONS", 1)
    with RewardServer(("127.0.0.1", 0), score_by_truth()) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        kept, waiting = (
            http.client.HTTPConnection("127.0.0.1", running.server_address[1], timeout=30) for _ in range(2)
        )
        kept.request("GET", "/health")
        answer = kept.getresponse()
        assert (answer.getheader("Connection"), answer.read() != b"") == (None, True)
        waiting.request("GET", "/health")
        while not running.crowded:
            time.sleep(0.01)
        kept.request("GET", "/health")
        assert kept.getresponse().getheader("Connection") == "close"
        assert waiting.getresponse().status == 200
        waiting.close()
        kept.close()
        running.shutdown()
        thread.join()


def test_there_is_nothing_else(server: RewardServer) -> None:
    for method, path in (("POST", "/"), ("GET", "/score"), ("GET", "/../etc/passwd")):
        assert ask(server, b"", method, path)[0] == 404


def test_only_chosen_tasks_are_scored_and_by_chosen_rewards(truth: str) -> None:
    score = score_by_truth(["coco_fewshot"], "format=0.5")
    assert score("", truth) == {"format": 0.0, "total": 0.0}
    with pytest.raises(UserError, match="this server does not score 'coco_fewshot'"):
        score_by_truth(["lisa_grounding"])("", truth)


def test_a_port_that_is_taken_is_said(server: RewardServer) -> None:
    with pytest.raises(UserError, match=rf"cannot listen on 127\.0\.0\.1:{server.server_address[1]}"):
        RewardServer(("127.0.0.1", server.server_address[1]), score_by_truth())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_says_where_it_listens_and_ends_when_it_is_told_to(number: int) -> None:
    code = "from vrft_bench.harness.cli.app import main; main()"
    command = [sys.executable, "-u", "-c", code, "serve-reward", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as running:
        assert running.stdout is not None
        said = running.stdout.readline().split()
        assert said[:2] == ["listening", "on"]
        port = int(said[2].rsplit(":", 1)[1])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        connection.request("GET", "/health")
        assert connection.getresponse().status == 200
        connection.close()
        running.send_signal(number)
        assert running.wait(timeout=30) == 0


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    import inspect

    from vrft_bench.trainers.cli.serve_reward import serve_reward

    assert inspect.signature(serve_reward).parameters["host"].default == "127.0.0.1"


def test_a_wrong_choice_is_said(cli: Any) -> None:
    assert "no task is given" in cli("serve-reward", "--reward", "iou=1").err
    assert "unknown task 'cocofewshot'" in cli("serve-reward", "--task", "cocofewshot").err
