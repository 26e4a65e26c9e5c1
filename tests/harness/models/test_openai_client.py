"""When a request is tried again, when its samples fail, and when the run ends."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from openai_server import Asked, Drop, Hang, Later, OpenAIServer, Pictures, Raw, Say, Status, index_of

from vrft_bench.errors import BackendError, ExitCode, PartialRunError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models import openai_client
from vrft_bench.harness.models.base import Completion
from vrft_bench.harness.models.openai import OpenAIBackend
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.store import read_manifest

MakeConfig = Callable[..., RunConfig]

LOADED = {"data": [{"id": "served", "root": "maker/model"}]}
"""The list of a server that says what it has loaded: its runs go on at another address."""


def answers(backend: OpenAIBackend, size: int = 1) -> list[Completion]:
    return list(backend.generate(Pictures(size=size).requests()))


def first(*actions: Any) -> Callable[[Asked], Any]:
    """Every question meets ``actions`` one after the other, and from then on the last of them."""
    return lambda asked: actions[min(asked.attempt, len(actions) - 1)]


@pytest.mark.parametrize(
    "fault",
    [
        Status(408),
        Status(409),
        Status(429),
        Status(500),
        Status(502),
        Status(503),
        Status(504),
        Status(529),
        Raw(""),
        Raw('{"choices": null}'),
        Raw('{"choices": [{"index": 0}]}'),
        Raw('{"error": {"code": 502, "message": "upstream is gone"}}'),
        Say(None),
    ],
)
def test_what_may_pass_is_tried_again(serve: Any, connect: Any, fault: Any) -> None:
    server = serve(first(fault, fault, "text"))
    (completion,) = answers(connect(server))
    assert (completion.text, completion.error) == ("text", None)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (Status(500, "the engine is dead"), "HTTP 500: the engine is dead (after 3 attempts)"),
        (Raw("<html>Welcome</html>"), "the server's answer is no JSON but '<html>Welcome</html>' (after 3 attempts)"),
        (Raw("[]"), "the server's answer is no JSON object but [] (after 3 attempts)"),
        (Raw('{"choices": []}'), "the server's answer holds 0 choices, of 1 asked for (after 3 attempts)"),
        (Say(None), "the server's answer holds no text (after 3 attempts)"),
        (Say("x", finish_reason="abort"), "the server gave up on it (finish_reason 'abort') (after 3 attempts)"),
        (Hang(), "no answer within 0.2 seconds (timeout) (after 3 attempts)"),
        (Status(422, body='{"detail": "too many pixels"}'), "HTTP 422: too many pixels"),
        (Say("", finish_reason="content_filter"), "the server held the answer back (content_filter)"),
    ],
)
def test_a_sample_that_fails_says_why(serve: Any, connect: Any, action: Any, said: str) -> None:
    server = serve(lambda asked: action if index_of(asked) == 1 else "text")
    good, bad = sorted(
        answers(connect(server, retries=2, timeout=0.2), size=2), key=lambda completion: completion.error or ""
    )
    assert (good.text, good.error) == ("text", None)
    assert (bad.text, bad.finish_reason, bad.error) == ("", "error", said)


@pytest.mark.parametrize("as_date", [False, True])
def test_retry_after_is_honoured_in_seconds_and_as_a_date(serve: Any, connect: Any, as_date: bool) -> None:
    came: list[datetime] = []

    def script(asked: Asked) -> Any:
        came.append(datetime.now(UTC))
        if len(came) > 1:
            return "text"
        until = format_datetime(datetime.now(UTC) + timedelta(seconds=2), usegmt=True)
        return Status(429, headers={"Retry-After": until if as_date else "1"})

    (completion,) = answers(connect(serve(script)))
    assert completion.error is None
    assert (came[1] - came[0]).total_seconds() >= 1.0  # a date has no fractions of a second


def test_a_pause_that_the_server_asks_for_is_kept_by_every_request(serve: Any, connect: Any) -> None:
    came: list[datetime] = []

    def script(asked: Asked) -> Any:
        came.append(datetime.now(UTC))
        return Status(503, headers={"Retry-After": "0.5"}) if len(came) == 1 else "text"

    assert len(answers(connect(serve(script), max_concurrent=1), size=6)) == 6
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(came)]
    assert len(gaps) == 6
    assert gaps[0] >= 0.5


def test_a_pause_of_hours_ends_the_run(serve: Any, connect: Any) -> None:
    server = serve(lambda asked: Status(429, "daily limit reached", headers={"Retry-After": "7200"}))
    with pytest.raises(BackendError, match=r"asks for a pause of 7,200 seconds: HTTP 429: daily limit") as caught:
        answers(connect(server))
    assert "repeat the command later: it resumes" in (caught.value.fix or "")


@pytest.mark.parametrize(
    ("action", "said", "fix"),
    [
        (Status(401, "invalid key"), "answers no request: HTTP 401: invalid key", "OPENAI_API_KEY"),
        (Status(402, "no credits"), "answers no request: HTTP 402: no credits", "limits of your account"),
        (Status(429, "quota", code="insufficient_quota"), "answers no request: HTTP 429", "limits of your account"),
        (Status(308, headers={"Location": "https://there/v1"}), "it redirects to https://there/v1", "--base-url"),
        (Status(403, "not for you"), "refuses even a plain question about a small image: HTTP 403", "OPENAI_API_KEY"),
        (Status(404, "no model 'served'"), "refuses even a plain question", "what the server calls it"),
        (Status(400, "unknown field top_q"), "HTTP 400: unknown field top_q", "extra_body"),
        (Raw('{"error": {"code": 400, "message": "no images"}}'), "error 400: no images", "extra_body"),
    ],
)
def test_what_no_request_can_escape_ends_the_run_with_the_servers_words(
    serve: Any, connect: Any, action: Any, said: str, fix: str
) -> None:
    server = serve(lambda asked: action)
    with pytest.raises(BackendError) as caught:
        answers(connect(server), size=40)
    assert caught.value.exit_code == ExitCode.BACKEND_FAILED
    assert server.url in caught.value.message
    assert said in caught.value.message
    assert fix in (caught.value.fix or "")
    assert len(server.asked) <= 40


def test_a_first_question_that_is_refused_alone_fails_alone(serve: Any, connect: Any) -> None:
    """A resumed run may have nothing left but what the server refuses: it ends, and is not stopped."""
    server = serve(lambda asked: "It is grey." if index_of(asked) > 1000 else Status(400, "too long"))
    completions = answers(connect(server), size=12)
    assert [completion.error for completion in completions] == ["HTTP 400: too long"] * 12
    assert len(server.asked) == 13


@pytest.mark.parametrize(("answered", "most_asked"), [(0, 4 + 1), (5, 5 + 2 * 4 + 1)])
def test_a_server_that_takes_requests_and_falls_silent_ends_the_run(
    serve: Any, connect: Any, answered: int, most_asked: int
) -> None:
    server = serve(lambda asked: "text" if len(server.asked) <= answered else Hang())
    with pytest.raises(BackendError) as caught:
        answers(connect(server, timeout=0.3, max_concurrent=4), size=40)
    assert caught.value.exit_code == ExitCode.BACKEND_FAILED
    assert caught.value.message == (
        f"the server {server.url} takes requests and answers none, not even a plain question about a small image: "
        "no answer within 0.3 seconds (timeout)"
    )
    assert "give it more than -M timeout=0.3" in (caught.value.fix or "")
    plain = [asked for asked in server.asked if "What is in the image?" in asked.text]
    assert len(plain) == 1
    assert len(server.asked) <= most_asked


def test_the_plain_question_is_asked_alone_and_an_answer_to_it_lets_the_run_go_on(serve: Any, connect: Any) -> None:
    came: list[tuple[datetime, bool]] = []

    def script(asked: Asked) -> Any:
        plain = "What is in the image?" in asked.text
        crowded = not any(was_plain for _, was_plain in came)
        came.append((datetime.now(UTC), plain))
        return Later(0.2, "It is grey.") if plain else Hang() if crowded else "text"

    completions = answers(connect(serve(script), timeout=0.4, max_concurrent=4), size=12)
    assert [(one.text, one.error) for one in completions] == [("text", None)] * 12
    assert [plain for _, plain in came] == [False] * 4 + [True] + [False] * 12
    assert (came[5][0] - came[4][0]).total_seconds() >= 0.2


def test_a_request_is_not_waited_for_all_day(serve: Any, connect: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "LONGEST_SILENCE", 0.5)
    server = serve(lambda asked: "It is grey." if index_of(asked) > 1000 else Hang())
    (completion,) = answers(connect(server, timeout=0.2, retries=8))
    assert completion.error == "no answer within 0.2 seconds (timeout) (after 3 attempts)"


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_no_server_at_all_is_said_at_once_with_its_address(config: MakeConfig) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    backend = OpenAIBackend("served", {"base_url": url})
    with pytest.raises(BackendError) as caught:
        evaluate(Pictures(size=4), backend, config(profile="abs_original"))
    backend.close()
    assert caught.value.message.startswith(f"the server {url} does not answer: no connection: ")
    assert "vllm serve" in (caught.value.fix or "")
    assert not config().output_dir.exists()


def test_a_server_that_goes_away_ends_the_run_and_the_rest_is_asked_when_it_is_back(
    connect: Any, config: MakeConfig
) -> None:
    task = Pictures(size=300)
    right = task.truth()

    def script(asked: Asked) -> Any:
        if len(server.asked) <= 100:
            return right(asked)
        server.stop_listening()
        return Drop()

    with OpenAIServer(script, LOADED) as server:
        backend = connect(server, retries=3)
        with pytest.raises(BackendError, match=r"is not there \(any more\): no connection"):
            evaluate(task, backend, config(profile="abs_original"))
    (folder,) = config().output_dir.glob("pictures/*/*")
    kept = read_manifest(folder).finished
    assert 0 < kept <= 100
    with OpenAIServer(right, LOADED) as other:
        result = evaluate(task, connect(other), config(profile="abs_original"))
    assert result.folder == folder
    assert (result.status, result.answers.failures) == ("complete", 0)
    assert len(other.asked) == 300 - kept


def test_too_many_failures_stop_the_run_with_the_commonest_reason(serve: Any, connect: Any, config: MakeConfig) -> None:
    right = Pictures(size=200).truth()
    server = serve(lambda asked: Status(400, "too long") if index_of(asked) % 4 == 3 else right(asked))
    with pytest.raises(PartialRunError, match="too long"):
        evaluate(Pictures(size=200), connect(server), config(profile="abs_original"))


@pytest.mark.parametrize("models", [Status(404), Status(405), Status(403), Status(501), Raw("<html>"), {}, [], "x"])
def test_a_server_without_a_list_of_models_is_asked_all_the_same(serve: Any, connect: Any, models: Any) -> None:
    server = serve(lambda asked: "text", models)
    backend = connect(server)
    assert answers(backend)[0].text == "text"
    assert backend.identity()["owned_by"] is None
    assert "top_k" not in server.asked[0].body


def test_the_list_of_models_is_asked_for_again_when_the_server_stumbles(serve: Any, connect: Any) -> None:
    listed = {"data": [{"id": "served", "owned_by": "vllm"}]}
    server = serve(lambda asked: "text", lambda count: listed if count == 3 else Status(500))
    assert connect(server).identity()["owned_by"] == "vllm"
    with pytest.raises(BackendError, match="does not answer: HTTP 500"):
        connect(serve(lambda asked: "text", Status(500))).identity()
    with pytest.raises(BackendError, match="does not answer: HTTP 401"):
        connect(serve(lambda asked: "text", Status(401))).identity()


def test_a_run_folder_and_its_records_say_nothing_of_how_often_was_asked(
    serve: Any, connect: Any, config: MakeConfig, tmp_path: Path
) -> None:
    task = Pictures(size=20)
    right = task.truth()
    plain = evaluate(task, connect(serve(right, LOADED)), config(profile="abs_original"))
    stumbling = serve(lambda asked: Status(500) if asked.attempt == 0 else right(asked), LOADED)
    other = config(profile="abs_original", output_dir=tmp_path / "other")
    assert evaluate(task, connect(stumbling, max_concurrent=3), other).report == plain.report
    (folder,) = other.output_dir.glob("pictures/*/*")
    assert read_manifest(folder).fingerprint == read_manifest(plain.folder).fingerprint
