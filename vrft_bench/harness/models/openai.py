"""``openai/NAME``: any server that speaks OpenAI's chat API (vLLM, SGLang, llama.cpp, LMDeploy, commercial ones).

The run asks synchronously; behind that, an event loop in a thread of its own keeps as many requests in flight as the
server can take. The run decides how text is drawn: servers that say what they are get fields that set aside their own
and their checkpoint's defaults (see :mod:`vrft_bench.harness.models.openai_servers`).

Parts: options, images, the chat's JSON, one HTTP exchange, the patience around it, and the limit of requests in flight.
Each has a file beside this one.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import secrets
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.images import ImageCache, ImageError
from vrft_bench.harness.models.background_loop import BackgroundLoop
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.checkpoint import select_profile
from vrft_bench.harness.models.groups import Group, in_groups
from vrft_bench.harness.models.openai_chat import ChatFormat, ReplyFormat, refuse_control_tokens
from vrft_bench.harness.models.openai_client import PatientClient
from vrft_bench.harness.models.openai_faults import Fault
from vrft_bench.harness.models.openai_images import ImageSender
from vrft_bench.harness.models.openai_options import ApiKey, OpenAIOptions
from vrft_bench.harness.models.openai_servers import (
    DIALECTS,
    ServedModel,
    read_model_list,
    refuse_long_answers,
)
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.structured import answer_regex

READ_AHEAD = 2
"""Questions in memory per place in flight: while one is answered, the image of the next is made ready."""

_GREY_SIDE = 224  # pixels: a multiple of every common patch

logger = logging.getLogger(__name__)


class OpenAIBackend:
    """A model behind a server. Implements ``Backend``. ``args`` are described at :class:`OpenAIOptions`.

    The server is not asked anything before it is needed: for what it says of the model by :meth:`identity` and
    :meth:`profile`, for answers by :meth:`generate`.
    """

    def __init__(self, name: str, args: Mapping[str, object] | None = None) -> None:
        self.options = OpenAIOptions.parse(args or {})
        _require_aiohttp()
        self._name = name
        self._key = ApiKey.from_environment(self.options.api_key_env)
        self.images = ImageCache()

    def identity(self) -> Mapping[str, Any]:
        """What the server says of the model, and every field and option that can change a completion."""
        options = self.options
        return {
            "backend": "openai",
            "name": self._name,
            **self.served.identity(options.base_url),
            "fields": self._fields,
            "image_format": options.image_format,
            "resize": options.resize,
            "min_pixels": options.min_pixels,
            "max_pixels": options.max_pixels,
            "think_begun": options.think_begun,
            "structured": options.structured,
            **({"logprobs": True} if options.logprobs else {}),
        }

    def profile(self) -> ModelProfile | None:
        """The profile of the checkpoint that the server says it has loaded, if it can be found from here."""
        checkpoint = self.served.checkpoint(self._name, self.options.base_url)
        profile = select_profile(checkpoint.model_type) if checkpoint is not None else None
        return None if profile is None else self.with_pixel_limits(profile)

    def with_pixel_limits(self, profile: ModelProfile) -> ModelProfile:
        """``profile`` with the limits of the options."""
        given = (self.options.min_pixels, self.options.max_pixels)
        if given != (None, None) and profile.factor is None:
            raise UserError(
                f"pixel limits are given, and images of profile {profile.name!r} are not resized by area",
                fix="leave min_pixels and max_pixels out of --model-args",
            )
        changed = replace(profile, min_pixels=given[0] or profile.min_pixels, max_pixels=given[1] or profile.max_pixels)
        if changed.min_pixels > changed.max_pixels:
            raise UserError(
                f"min_pixels={changed.min_pixels} is above max_pixels={changed.max_pixels} "
                f"(what is not given is profile {profile.name!r}'s)",
                fix="give both --model-args min_pixels=N and max_pixels=M, with N not above M",
            )
        return changed

    @cached_property
    def served(self) -> ServedModel:
        """What the server's list says about the model. Raises :class:`BackendError` where there is no server."""
        found = read_model_list(self._loop.run(self._client.list_models()), self._name)
        if found.names and self._name not in found.names:
            logger.warning(
                "%s does not list a model %r%s; it is asked for it all the same",
                self.options.base_url,
                self._name,
                did_you_mean(self._name, found.names) or f" (but {', '.join(found.names[:3])})",
            )
        return found

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request once, in the order in which the server does, and at most a few ahead of it."""
        client, dialect = self._client, self.served.dialect
        together = dialect.groups if self.options.group_samples is None else self.options.group_samples

        def room() -> int:
            return READ_AHEAD * client.limit.current + min(client.sleeping, client.limit.ceiling)

        yield from self._loop.map(self._answer, in_groups(requests, together), room)

    def close(self) -> None:
        """End all connections and the thread behind them."""
        held = self.__dict__
        if "_sender" in held:
            held.pop("_sender").close()
        if "_client" in held:
            self._loop.run(held.pop("_client").close())
        if "_loop" in held:
            held.pop("_loop").close()
        self.images = ImageCache()

    async def _answer(self, group: Group) -> list[Completion]:
        request = group.first
        refuse_long_answers(self.served, request.sampling.max_tokens)
        try:
            refuse_control_tokens(request)
            image = await self._sender.hold(request.sample.image, request.profile)
        except (ImageError, ValueError) as error:
            return group.failed(str(error))

        try:
            outcome = await self._client.ask(
                self._chats.body(group, image.url, self._structure(request, image.processed)),
                lambda answer: self._replies.completions(answer.value, group, image, answer.seconds),
                lambda: self._chats.plain_question(request.sampling, _grey_image()),
            )
        finally:
            self._sender.let_go(image)
        return group.failed(outcome.reason) if isinstance(outcome, Fault) else outcome

    def _structure(self, request: Request, processed: tuple[int, int] | None) -> Mapping[str, Any] | None:
        """The fields that let the server write nothing but the answer format of ``request``."""
        if not self.options.structured:
            return None
        structured = self.served.dialect.structured
        if structured is None:
            raise UserError(
                f"--structured on: {self.options.base_url} is no server that is known to hold answers to a format",
                fix=f"leave it out, or use one of {', '.join(name for name, it in DIALECTS.items() if it.structured)}",
            )
        frame = replace(request.frame, processed=processed)
        length, begun = request.sampling.max_tokens, self.options.think_begun
        return structured(answer_regex(request.task, request.sample, frame, max_tokens=length, begun=begun))

    @cached_property
    def _loop(self) -> BackgroundLoop:
        return BackgroundLoop("openai")

    @cached_property
    def _client(self) -> PatientClient:
        from vrft_bench.harness.models.openai_transport import Transport

        async def connect() -> PatientClient:
            return PatientClient(Transport(self.options.base_url, self._key, self.options.timeout), self.options)

        return self._loop.run(connect())

    @cached_property
    def _sender(self) -> ImageSender:
        return ImageSender(self.options, self.images)

    @property
    def _fields(self) -> dict[str, Any]:
        """The fields that every request has beside those of its sampling; ``None`` takes one out."""
        dialect = self.served.dialect
        special = {"skip_special_tokens": False} if dialect.keeps_special else {}
        logprobs = {"logprobs": True} if self.options.logprobs else {}
        return {**dialect.neutral, **special, **logprobs, **self.options.extra_body}

    @cached_property
    def _chats(self) -> ChatFormat:
        return ChatFormat(self._name, self._fields, marker=secrets.token_hex(16))

    @cached_property
    def _replies(self) -> ReplyFormat:
        return ReplyFormat(self.served.dialect.keeps_special, self.options.think_begun, self.options.logprobs)


def _grey_image() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (_GREY_SIDE, _GREY_SIDE), "grey").save(stream, "PNG")
    return b"data:image/png;base64," + b64encode(stream.getvalue())


def _require_aiohttp() -> None:
    if importlib.util.find_spec("aiohttp") is None:
        raise UserError("the openai backend needs aiohttp, not installed here", fix="pip install 'vrft-bench[openai]'")
