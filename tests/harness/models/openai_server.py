"""A scriptable OpenAI-compatible server in a thread of the test's own process, and questions with images to ask it.

``OpenAIServer(script)`` calls ``script(asked)`` for every chat request; what it returns says what happens on the wire:
a text or ``Say`` answers, ``Status`` refuses, and ``Drop``, ``HalfBody``, ``Raw`` and ``Hang`` break the exchange in
the ways that servers and networks do. ``Later`` does any of these after a while. Loaded by conftest.py as a module of
this name.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Self

from aiohttp import web
from PIL import Image
from questions import CATEGORIES, Questions, question

from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.mock import gold
from vrft_bench.tasks.base import Dataset, DataSpec, ImageRef, Sample
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.profiles import ABS_ORIGINAL


@dataclass(frozen=True)
class Asked:
    """One chat request: its JSON, its headers, and how often the same question was asked before."""

    body: Mapping[str, Any]
    headers: Mapping[str, str]
    attempt: int

    @property
    def text(self) -> str:
        """The text part of the question."""
        return "".join(part.get("text", "") for part in self.body["messages"][-1]["content"])

    @property
    def url(self) -> str:
        """What stands for the image."""
        (url,) = [part["image_url"]["url"] for part in self.body["messages"][-1]["content"] if "image_url" in part]
        return str(url)

    @property
    def image(self) -> bytes:
        """The image file that came with it."""
        return base64.b64decode(self.url.partition(";base64,")[2])


@dataclass(frozen=True)
class Say:
    """A completion, or one per text. ``message`` is added to every message, ``choice`` to every choice."""

    text: str | list[str] | None
    finish_reason: str | None = "stop"
    message: Mapping[str, Any] = field(default_factory=dict)
    usage: Mapping[str, Any] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5})
    choice: Mapping[str, Any] = field(default_factory=dict)

    def json(self) -> dict[str, Any]:
        texts = self.text if isinstance(self.text, list) else [self.text]
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": text, **self.message},
                "finish_reason": self.finish_reason,
                **self.choice,
            }
            for index, text in enumerate(texts)
        ]
        return {"object": "chat.completion", "model": "served", "choices": choices, "usage": self.usage}


@dataclass(frozen=True)
class Status:
    """An HTTP error with OpenAI's error body, or with ``body``."""

    status: int
    message: str = "the server says no"
    code: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None


@dataclass(frozen=True)
class Raw:
    """Status 200 and any body."""

    body: str


@dataclass(frozen=True)
class Drop:
    """The connection ends without a word."""


@dataclass(frozen=True)
class HalfBody:
    """The headers promise more than comes before the connection ends."""


@dataclass(frozen=True)
class Hang:
    """Nothing ever comes."""


@dataclass(frozen=True)
class Later:
    seconds: float
    then: Any


Script = Callable[[Asked], Any]


class OpenAIServer:
    """Use as a context manager. Counters may be read at any time."""

    def __init__(self, script: Script, models: Any = None) -> None:
        self.script = script
        self.models = {"data": [{"id": "served", "owned_by": "test"}]} if models is None else models
        self.asked: list[Asked] = []
        self.attempts: Counter[str] = Counter()
        self.in_flight = self.most_in_flight = 0
        self.looked_up = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def args(self, **more: Any) -> dict[str, Any]:
        """Arguments of a backend that asks this server, and that does not wait long between attempts."""
        return {"base_url": self.url, "backoff": 0.01, **more}

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> int:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_get("/v1/models", self._list)
        app.router.add_post("/v1/chat/completions", self._chat)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await self._site.start()
        self._listening = True
        return int(self._runner.addresses[0][1])

    def stop_listening(self) -> None:
        """From now on, no connection can be made. To be called by a script."""
        if not self._listening:
            return
        self._listening = False
        for held in self._site._server.sockets:  # asyncio leaks a connection that it has accepted and not yet set up
            self._loop.remove_reader(held.fileno())
        self._loop.call_later(0.02, lambda: self._loop.create_task(self._site.stop()))

    async def _stop(self) -> None:
        await self._runner.cleanup()

    async def _list(self, request: web.Request) -> web.StreamResponse:
        self.looked_up += 1
        models = self.models(self.looked_up) if callable(self.models) else self.models
        return await self._act(request, models if isinstance(models, Status | Raw | Hang) else Raw(json.dumps(models)))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            text = await request.text()
            key = hashlib.sha256(text.encode()).hexdigest()
            asked = Asked(json.loads(text), dict(request.headers), self.attempts[key])
            self.attempts[key] += 1
            self.asked.append(asked)
            return await self._act(request, self.script(asked))
        finally:
            self.in_flight -= 1

    async def _act(self, request: web.Request, action: Any) -> web.StreamResponse:
        match action:
            case Later(seconds, then):
                await asyncio.sleep(seconds)
                return await self._act(request, then)
            case Hang():
                await asyncio.sleep(3600)
            case Drop():
                _transport(request).close()
            case HalfBody():
                _transport(request).write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n"
                    + b'{"choices": ['
                )
                await asyncio.sleep(0.001)
                _transport(request).close()
            case Status(status, message, code, headers, body):
                body = body or json.dumps({"error": {"message": message, "code": code}})
                return web.Response(status=status, text=body, headers=dict(headers), content_type="application/json")
            case Raw(body):
                return web.Response(text=body, content_type="application/json")
            case Say():
                return web.json_response(action.json())
            case str() | None:
                return web.json_response(Say(action).json())
        return web.Response()


def _transport(request: web.Request) -> Any:
    assert request.transport is not None
    return request.transport


@cache
def png(image: int) -> bytes:
    """100 x 80 pixels, all in a colour of the image's own."""
    stream = io.BytesIO()
    Image.new("RGB", (100, 80), (image % 256, image // 256, 77)).save(stream, "PNG")
    return stream.getvalue()


def index_of(asked: Asked) -> int:
    """Which question of :class:`Pictures` this is: by the colour of its image, and the category in its text."""
    low, high, _ = Image.open(io.BytesIO(asked.image)).getpixel((0, 0))
    return 2 * (low + 256 * high) + ("dog" in asked.text)


def picture(index: int) -> Sample:
    """Question ``index``, with an image that can be sent. Image ``index // 2`` is asked about twice."""
    return replace(question(index), image=ImageRef(100, 80, data=png(index // 2)))


@dataclass(frozen=True)
class Pictures(Questions):
    """The generated questions (see questions.py) with images."""

    name: str = "pictures"
    version: str = "1"
    summary: str = "generated questions with images"

    def load(self, spec: DataSpec) -> Dataset:
        return Dataset("val", CATEGORIES, lambda: map(picture, range(self.size)), rules="coco", ask="all")

    def requests(self, sampling: Sampling | None = None, profile: ModelProfile = ABS_ORIGINAL) -> list[Request]:
        """Every request that a run of the task makes."""
        sampling = sampling or Sampling()
        return [
            Request(self, sample, n, self.messages(sample, profile), profile, sampling)
            for sample in self.load(DataSpec()).samples()
            for n in range(sampling.n)
        ]

    def truth(self) -> Callable[[Asked], str]:
        """A script that answers every question right, in pixels of the original image, and any other one somehow."""
        answers = dict(enumerate(gold(request) for request in self.requests()))
        return lambda asked: answers.get(index_of(asked), "It is grey.")
