"""The score over HTTP, for an engine that can ask a server but load no file of ours.

::

    POST /score   {"items": [{"completion": "...", "ground_truth": "..."}, ...]}
                  -> {"scores": [{"iou": 0.8, ..., "total": 2.3}, ...]}
    GET  /health  -> {"status": "ok", "version": "..."}

A ground truth names its task and protocol, so the server holds nothing that a request could depend on. A request is
answered whole or not at all: an item that cannot be scored is an error that names it, never a reward of 0.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from vrft_bench import __version__
from vrft_bench.errors import UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import Task
from vrft_bench.tasks.ground_truth import no_ground_truth

MAX_BODY = 16 << 20
MAX_CONNECTIONS = 128
"""Connections that are served at once; further ones wait to be accepted."""
IDLE_SECONDS = 60
"""After so long without a word a connection is closed."""

_LENGTH_DIGITS = 40
"""A length with more digits is not turned into a number, which Python refuses beyond some thousands."""
LINGER_SECONDS = 2
"""How long a client is listened to that sends on after it was refused."""

Score = Callable[[str, str], dict[str, float]]


class RefusedError(Exception):
    """A request that is answered by an error: its HTTP status and what the client is told."""

    def __init__(self, status: HTTPStatus, message: str, **further: Any) -> None:
        super().__init__(message)
        self.status = status
        self.content = {"error": message, **further}


def score_by_truth(tasks: Sequence[str] = (), reward: str | None = None) -> Score:
    """A function that scores a completion by the task that its ground truth names: one of ``tasks``, or any.

    With ``reward`` every task has those rewards and weights in place of its own.
    """

    @lru_cache(maxsize=64)
    def task_of(name: str, protocol: str) -> Task:
        if tasks and name not in tasks:
            raise UserError(f"this server does not score {name!r}", fix=f"it scores {', '.join(tasks)}")
        task = get_task(name, protocol)  # type: ignore[arg-type] # an unknown one is a UserError
        task.require_libraries()
        return task if reward is None else task.rewarded_by(reward)

    def score(completion: str, ground_truth: str) -> dict[str, float]:
        try:
            named = json.loads(ground_truth)
            name, protocol = named["task"], named["protocol"]
        except (ValueError, TypeError, LookupError, RecursionError) as error:
            raise no_ground_truth(ground_truth, "names no task and protocol in JSON") from error
        if not isinstance(name, str) or not isinstance(protocol, str):
            raise no_ground_truth(ground_truth, "names no task and protocol in words")
        return task_of(name, protocol).score(completion, ground_truth)

    return score


def answer(body: bytes, score: Score) -> dict[str, Any]:
    """What ``POST /score`` answers to ``body``. Raises :class:`RefusedError` for one that cannot be scored whole."""
    shape = 'send {"items": [{"completion": "...", "ground_truth": "..."}, ...]}'
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(HTTPStatus.BAD_REQUEST, f"the body is not JSON: {error}", fix=shape) from error
    items = request.get("items") if isinstance(request, Mapping) else None
    if not isinstance(items, list):
        raise RefusedError(HTTPStatus.BAD_REQUEST, "the body has no list `items`", fix=shape)
    scores = []
    for index, item in enumerate(items):
        texts = [item.get(name) if isinstance(item, Mapping) else None for name in ("completion", "ground_truth")]
        if not all(isinstance(text, str) for text in texts):
            why = "an item has a completion and a ground_truth, and both are text"
            raise RefusedError(HTTPStatus.BAD_REQUEST, why, item=index, fix=shape)
        try:
            scores.append(score(*map(str, texts)))
        except UserError as error:
            status = HTTPStatus.UNPROCESSABLE_ENTITY
            raise RefusedError(status, error.message, item=index, fix=error.fix) from error
    return {"scores": scores}


class RewardServer(ThreadingHTTPServer):
    """Listens on ``address`` (host, port; port 0 is any that is free) from the moment it is made."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, address: tuple[str, int], score: Score, *, max_body: int = MAX_BODY) -> None:
        self.score = score
        self.max_body = max_body
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._ending = threading.Event()
        self.crowded = False
        """Whether a connection waits for a place: those that have one then close after their answer."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            raise UserError(
                f"cannot listen on {address[0]}:{address[1]}: {error.strerror}",
                fix="choose another --port (0: any that is free), or an address of this machine with --host",
            ) from error

    @property
    def url(self) -> str:
        """Where it is reached."""
        host, port = str(self.server_address[0]), self.server_address[1]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        """Wait for a free place before the next connection is served; one that waits when the server ends is closed."""
        while not self._free.acquire(timeout=0.1):
            self.crowded = True
            if self._ending.is_set():
                self.shutdown_request(request)
                return
        self.crowded = False
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection in its thread, and free its place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def shutdown(self) -> None:
        """End, also where every place is taken by a client that says nothing."""
        self._ending.set()
        super().shutdown()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell of defects, and not of clients that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server: RewardServer

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(HTTPStatus.OK, {"status": "ok", "version": __version__})
        else:
            self._send_refusal(self._not_found())

    def do_POST(self) -> None:
        try:
            if self.path != "/score":
                raise self._not_found()
            body = self._body()
        except RefusedError as refused:
            self._send_refusal(refused)
            return
        try:
            self._send(HTTPStatus.OK, answer(body, self.server.score))
        except RefusedError as refused:
            self._send(refused.status, refused.content)
        except Exception as error:
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"the score failed: {error!r}"[:500]})
            raise

    def _body(self) -> bytes:
        """The body, whose length is checked before any of it is read."""
        stated = self.headers.get("Content-Length")
        if stated is None or not stated.isdecimal() or "Transfer-Encoding" in self.headers:
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "the request does not state its Content-Length")
        if len(stated) > _LENGTH_DIGITS or int(stated) > self.server.max_body:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the body has {stated[:_LENGTH_DIGITS]} bytes, and at most {self.server.max_body} are read",
                fix="send fewer items at once, or start the server with a larger --max-body",
            )
        body = self.rfile.read(int(stated))
        if len(body) < int(stated):
            raise RefusedError(HTTPStatus.BAD_REQUEST, "the body ends before its Content-Length")
        return body

    def _not_found(self) -> RefusedError:
        return RefusedError(HTTPStatus.NOT_FOUND, f"there is no {self.path}", fix="POST /score or GET /health")

    def _send_refusal(self, refused: RefusedError) -> None:
        """Answer a request whose body was not read. What follows on the connection could not be understood.

        A connection that is closed on what was not read is reset, and the client may lose the answer: what it still
        sends is taken and thrown away for a moment.
        """
        self.close_connection = True
        self._send(refused.status, refused.content)
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(LINGER_SECONDS)
            left = self.server.max_body
            while left > 0 and (piece := self.connection.recv(min(left, 1 << 16))):
                left -= len(piece)

    def _send(self, status: HTTPStatus, content: Mapping[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.close_connection = self.close_connection or self.server.crowded
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A line per request would be a line per rollout."""
