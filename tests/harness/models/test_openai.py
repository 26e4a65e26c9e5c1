"""The openai backend through the real run loop, against servers that behave and servers that do not."""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from openai_server import Asked, Drop, HalfBody, Hang, Later, Pictures, Raw, Say, Status, index_of
from PIL import Image
from questions import question

from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models.base import Request
from vrft_bench.harness.models.mock import mock_backend
from vrft_bench.harness.models.openai import OpenAIBackend
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks.profiles import QWEN2_5_VL

MakeConfig = Callable[..., RunConfig]
Records = Callable[[Path], list[dict[str, Any]]]


def judged(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What may not differ between two runs that were answered alike, in an order of its own."""
    kept = ("id", "n", "text", "finish_reason", "prediction", "score")
    return sorted(({key: record[key] for key in kept} for record in records), key=lambda record: json.dumps(record))


def test_a_server_that_answers_from_the_truth_scores_exactly_what_the_mock_scores(
    serve: Any, connect: Any, config: MakeConfig, records: Records
) -> None:
    task = Pictures(size=200)
    server = serve(task.truth())
    backend = connect(server)
    served = evaluate(task, backend, config(output_dir=config().output_dir / "a", profile="abs_original"))
    mocked = evaluate(task, mock_backend("gold", {}), config(output_dir=config().output_dir / "b"))
    assert served.report == mocked.report
    assert served.report.figures["ap"].value == 1.0
    assert served.answers.reward == mocked.answers.reward
    assert judged(records(served.folder)) == judged(records(mocked.folder))
    assert len(server.asked) == 200
    assert max(server.attempts.values()) == 1
    assert server.looked_up == 1


def test_two_thousand_requests_at_thirty_percent_faults_are_each_answered_once_or_failed_with_a_reason(
    serve: Any, connect: Any, config: MakeConfig, records: Records
) -> None:
    task = Pictures(size=2000)
    right = task.truth()
    too_long, undecodable = {3, 500, 501, 1200}, {11, 700, 1999}
    chance, lock = random.Random(4), threading.Lock()
    faults = [
        *[Status(500), Status(502), Drop(), HalfBody(), Raw("<html>busy</html>"), Raw('{"choices": []}')] * 6,
        *[Raw("[]"), Status(500, body="oops"), Say(None), Say("half", finish_reason="abort"), Later(0.01, Drop())] * 3,
        *[Status(429, headers={"Retry-After": "0.005"}), Status(503)],
    ]
    hangs = {100, 400, 900, 1300, 1700}

    def script(asked: Asked) -> Any:
        index = index_of(asked)
        if index in too_long:
            return Status(400, "the prompt is too long")
        if index in undecodable:
            return Status(500, "cannot be decoded")
        if index in hangs and asked.attempt == 0:
            return Hang()
        with lock:
            return chance.choice(faults) if chance.random() < 0.3 else right(asked)

    server = serve(script)
    backend = connect(server, timeout=1, backoff=0.002)
    result = evaluate(task, backend, config(profile="abs_original"))
    lines = records(result.folder)
    assert result.status == "complete"
    assert len({(line["id"], line["n"]) for line in lines}) == len(lines) == 2000
    failed = {line["id"]: line["error"] for line in lines if "error" in line}
    assert failed == {
        **{question(index).id: "HTTP 400: the prompt is too long" for index in too_long},
        **{question(index).id: "HTTP 500: cannot be decoded (after 9 attempts)" for index in undecodable},
    }
    assert all(line["score"]["total"] == 3.0 for line in lines if "error" not in line)
    assert len(server.asked) > 2700
    assert backend.images.encoded == 1000


def test_each_image_is_decoded_resized_and_encoded_once_for_eighty_categories(
    serve: Any, connect: Any, ask: Any
) -> None:
    server = serve(lambda asked: "<answer>No Objects</answer>")
    backend = connect(server, max_pixels=28 * 28 * 12)
    profile = backend.with_pixel_limits(QWEN2_5_VL)
    requests = [
        replace(request, sample=replace(request.sample, id=f"{request.sample.id}/{category}"), profile=profile)
        for request in ask([(300, 200), (301, 200), (302, 200)], "qwen2_5_vl")
        for category in range(80)
    ]
    completions = list(backend.generate(requests))
    assert len(completions) == len(server.asked) == 240
    assert (backend.images.decoded, backend.images.resized, backend.images.encoded) == (3, 3, 3)
    assert len({asked.url for asked in server.asked}) == 3
    assert {completion.processed for completion in completions} == {(112, 56)}
    assert {Image.open(io.BytesIO(asked.image)).size for asked in server.asked} == {(112, 56)}


def test_requests_are_read_a_bounded_number_ahead_of_the_answers(serve: Any, connect: Any) -> None:
    server = serve(lambda asked: "text")
    backend = connect(server, max_concurrent=8)
    asked = answered = most = 0

    def requests() -> Iterator[Request]:
        nonlocal asked, most
        for request in Pictures(size=500).requests():
            asked += 1
            most = max(most, asked - answered)
            yield request

    for _ in backend.generate(requests()):
        answered += 1
    assert (asked, answered) == (500, 500)
    assert most <= 2 * 8 + 1
    assert 1 <= server.most_in_flight <= 8


def test_concurrency_stays_below_what_a_server_turns_away(serve: Any, connect: Any) -> None:
    """A server that takes 12 requests at a time and answers 429 to more. (test_adaptive_limit.py has the rest.)"""
    turned_away: list[int] = []

    def script(asked: Asked) -> Any:
        if server.in_flight > 12:
            turned_away.append(server.in_flight)
            return Status(429)
        return Later(0.004, "text")

    server = serve(script)
    backend = connect(server)
    completions = list(backend.generate(Pictures(size=1500).requests()))
    assert [completion.error for completion in completions if completion.error] == []
    assert 1 <= len(turned_away) < 400
    assert server.most_in_flight <= 32
    assert backend._client.limit.current <= 14


def test_several_tasks_share_the_connections_and_what_is_known_of_the_server(
    serve: Any, connect: Any, config: MakeConfig
) -> None:
    task = Pictures(size=40)
    server = serve(task.truth())
    backend = connect(server)
    for name in ("a", "b"):
        evaluate(
            replace(task, name=name), backend, config(output_dir=config().output_dir / name, profile="abs_original")
        )
    assert (len(server.asked), server.looked_up) == (80, 1)
    assert backend.images.encoded == 20


def test_a_closed_backend_leaves_no_thread_behind(serve: Any) -> None:
    server = serve(lambda asked: "text")
    before = set(threading.enumerate())
    backend = OpenAIBackend("served", server.args())
    assert len(list(backend.generate(Pictures(size=20).requests()))) == 20
    backend.close()
    backend.close()
    assert {thread.name for thread in set(threading.enumerate()) - before if thread.is_alive()} <= {"images_0"}
