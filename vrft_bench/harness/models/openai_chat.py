"""Requests as the JSON that a chat server takes, and its JSON as completions. No network, no state.

One body asks for one group: a question, and the completions of it that are drawn together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vrft_bench.harness.models.base import Completion, Request, Sampling
from vrft_bench.harness.models.control_tokens import ANSWER_TAGS
from vrft_bench.harness.models.groups import Group
from vrft_bench.harness.models.openai_logprobs import given_in, laid_along
from vrft_bench.harness.models.token_logprobs import TokenLogprobs
from vrft_bench.tasks.coordinates import ModelProfile

_CONTROL_TOKEN = re.compile(r"<\|[^<>|\s]{1,64}\|>")
"""How every family that we know writes its control tokens. A server's tokenizer takes them for real in a question."""

_HELD_BACK = "content_filter"
_STOPPED_BY_SERVER = frozenset({"abort", "error"})


@dataclass(frozen=True, slots=True)
class SentImage:
    """What a request's ``image_url`` says, and what is known of the image behind it."""

    url: bytes
    processed: tuple[int, int] | None
    sha256: str


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a server's JSON gives no completions. ``code`` is the HTTP status that an error inside it names."""

    reason: str
    code: int | None = None


def refuse_control_tokens(request: Request) -> None:
    """Raise ``ValueError`` where the question holds one: it could end its turn, or claim a second image."""
    for message in request.messages:
        parts = message["content"]
        for text in [parts] if isinstance(parts, str) else [part.get("text", "") for part in parts]:
            for token in _CONTROL_TOKEN.findall(text) if "<|" in text else ():
                if token.lower() not in _tags(request.profile):
                    raise ValueError(f"the question contains {token!r}, which servers take for a control token")


class ChatFormat:
    """Writes the bodies of all requests to one model.

    ``fields`` are the same in every body; one whose value is ``None`` takes out what would stand there otherwise.
    ``marker`` stands for the image while the rest is written as JSON: a text that nobody who writes a question knows.
    """

    def __init__(self, model: str, fields: Mapping[str, Any], marker: str) -> None:
        self._model = model
        self._fields = dict(fields)
        self._marker = marker.encode()
        self._image = {"type": "image_url", "image_url": {"url": marker}}
        self._heads: dict[tuple[Sampling, int], str] = {}

    def body(self, group: Group, image_url: bytes, more: Mapping[str, Any] | None = None) -> tuple[bytes, ...]:
        """The JSON as pieces to be sent one after the other. ``image_url`` is one of them, and is not copied."""
        request = group.first
        seed = group.seed if request.sampling.temperature > 0.0 and "seed" not in self._fields else None
        return self._pieces(request.messages, image_url, request.sampling, len(group.requests), seed, more)

    def plain_question(self, sampling: Sampling, image_url: bytes) -> tuple[bytes, ...]:
        """A question that any model can answer, in the same format."""
        chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is in the image?"}]}]
        return self._pieces(chat, image_url, sampling)

    def _pieces(
        self,
        messages: Sequence[Mapping[str, Any]],
        image_url: bytes,
        sampling: Sampling,
        count: int = 1,
        seed: int | None = None,
        more: Mapping[str, Any] | None = None,
    ) -> tuple[bytes, ...]:
        head = self._heads.get((sampling, count))
        if head is None:
            head = self._heads[sampling, count] = self._head(sampling, count)
        own = "" if seed is None else f', "seed": {seed}'
        if more:
            own += f", {json.dumps(more)[1:-1]}"
        chat = json.dumps([{**message, "content": self._content(message["content"])} for message in messages])
        first, *rest = f'{head}{own}, "messages": {chat}}}'.encode().split(self._marker)
        pieces = [first]
        for piece in rest:
            pieces += [image_url, piece]
        return tuple(pieces)

    def _head(self, sampling: Sampling, count: int) -> str:
        """The JSON of what most bodies have in common, without its closing brace."""
        value: dict[str, Any] = {
            "model": self._model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "n": count if count > 1 else None,
        }
        value |= self._fields
        return json.dumps({name: item for name, item in value.items() if item is not None})[:-1]

    def _content(self, content: Any) -> Any:
        if isinstance(content, str):
            return content
        return [self._image if part["type"] == "image" else part for part in content]


@dataclass(frozen=True, slots=True)
class ReplyFormat:
    """Reads the answers of one server.

    ``keeps_special``: special tokens are in the text, and are taken out of it here. ``think_begun``: the chat template
    has written the opening thinking tag, so that the answer lacks it. ``logprobs``: token log-probabilities were asked
    for.
    """

    keeps_special: bool = False
    think_begun: bool = False
    logprobs: bool = False

    def completions(
        self, reply: Any, group: Group, image: SentImage, seconds: float | None = None
    ) -> list[Completion] | Unusable:
        """A completion per request of ``group``, or why ``reply`` (parsed JSON) gives none.

        Raises :class:`BackendError` where log-probabilities were asked for and a text comes without.
        """
        if (fault := unusable(reply, len(group.requests))) is not None:
            return fault
        usage = reply.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        spent = _shares(_count(usage.get("completion_tokens")), len(group.requests))
        completions = []
        for request, choice, tokens in zip(group.requests, _in_order(reply["choices"]), spent, strict=False):
            read = self._read(choice, request.profile)
            if isinstance(read, Unusable):
                return read
            text, reason = read
            withheld = reason == _HELD_BACK
            logprobs = self._token_logprobs(choice, text, request.profile) if self.logprobs and not withheld else None
            completions.append(
                Completion(
                    sample_id=request.sample.id,
                    n=request.n,
                    text="" if withheld else text,
                    finish_reason="error" if withheld else "length" if reason == "length" else "stop",
                    prompt_tokens=_count(usage.get("prompt_tokens")),
                    completion_tokens=tokens,
                    processed=image.processed,
                    image_sha256=image.sha256,
                    seconds=seconds,
                    error="the server held the answer back (content_filter)" if withheld else None,
                    token_logprobs=logprobs,
                )
            )
        return completions

    def _read(self, choice: Any, profile: ModelProfile) -> tuple[str, str | None] | Unusable:
        """(text, finish reason) of one choice."""
        message = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(message, dict):
            return Unusable(f"the server's answer holds a choice without a message: {_shortened(choice)}")
        reason = choice.get("finish_reason")
        reason = reason if isinstance(reason, str) else None
        if reason in _STOPPED_BY_SERVER:
            return Unusable(f"the server gave up on it (finish_reason {reason!r})")
        content, thought = _said(message)
        text = content or ""
        if thought:
            text = _joined(thought, text, profile, cut=reason == "length")
        elif self.think_begun:
            text = profile.think_tags[0] + text
        elif content is None and reason != _HELD_BACK:
            refusal = message.get("refusal")
            if not isinstance(refusal, str):
                return Unusable("the server's answer holds no text")
            text = refusal
        return self._without_control_tokens(text, profile), reason

    def _token_logprobs(self, choice: Any, text: str, profile: ModelProfile) -> TokenLogprobs | None:
        """Those of ``text``, which was read from ``choice``; of the answer alone, if the server gives no thought's."""
        content, thought = _said(choice["message"])
        if not content and not thought:
            return None if content is None else ()  # a refusal has none, and nothing needs none
        opening, tags = profile.think_tags[0], _tags(profile)
        starts = (
            0,
            len(opening) if text.startswith(opening) else 0,
            len(text) - len(self._without_control_tokens(content or "", profile)),
        )

        def is_removed(token: str) -> bool:
            return token not in text and token.lower() not in tags and _CONTROL_TOKEN.fullmatch(token) is not None

        return laid_along(text, given_in(choice), starts, is_removed)

    def _without_control_tokens(self, text: str, profile: ModelProfile) -> str:
        if not self.keeps_special or "<|" not in text:
            return text
        tags = _tags(profile)
        return _CONTROL_TOKEN.sub(lambda found: found[0] if found[0].lower() in tags else "", text)


def unusable(reply: Any, count: int = 1) -> Unusable | None:
    """Why ``reply`` does not hold ``count`` choices, or ``None``. Some servers report an error with status 200."""
    if not isinstance(reply, dict):
        return Unusable(f"the server's answer is no JSON object but {_shortened(reply)}")
    choices = reply.get("choices")
    if isinstance(choices, list) and len(choices) >= count:
        return None
    if (error := reply.get("error")) is not None:
        code = error.get("code") if isinstance(error, dict) else None
        return Unusable(said_by(reply) or "an error without words", code if isinstance(code, int) else None)
    found = len(choices) if isinstance(choices, list) else "no"
    return Unusable(f"the server's answer holds {found} choices, of {count} asked for")


def _said(message: Mapping[str, Any]) -> tuple[str | None, str]:
    """(content, thought) of a message; the first is ``None`` where there is none."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    thought = message.get("reasoning_content") or message.get("reasoning")
    return content if isinstance(content, str) else None, thought if isinstance(thought, str) else ""


def _joined(thought: str, text: str, profile: ModelProfile, *, cut: bool) -> str:
    """Thought and answer as the one text that the model wrote, before a server parted it at the thinking tags.

    A thought that the token limit ``cut`` before any answer is left open.
    """
    opening, closing = profile.think_tags
    if text.lstrip().startswith(opening):
        return text
    return f"{opening}{thought}" if cut and not text else f"{opening}{thought}{closing}{text}"


def said_by(reply: Any) -> str:
    """What an error body says, in one line: OpenAI's ``error.message``, ``message``, FastAPI's ``detail``, or all."""
    if isinstance(reply, dict):
        error = reply.get("error", reply)
        if isinstance(error, dict):
            error = error.get("message") or error.get("detail") or error
        reply = error
    return _shortened(reply)


def error_code(reply: Any) -> str | None:
    """OpenAI's word for what went wrong, such as ``insufficient_quota``."""
    error = reply.get("error") if isinstance(reply, dict) else None
    code = error.get("code") or error.get("type") if isinstance(error, dict) else None
    return code if isinstance(code, str) else None


def _shortened(value: Any, limit: int = 300) -> str:
    text = " ".join((value if isinstance(value, str) else json.dumps(value)).split())
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def _in_order(choices: list[Any]) -> list[Any]:
    """By their ``index``, which a server that answers in any order gives; as they came where it gives none."""
    if len(choices) == 1:
        return choices
    indexed = [choice.get("index") if isinstance(choice, dict) else None for choice in choices]
    if sorted(index for index in indexed if isinstance(index, int)) != list(range(len(choices))):
        return choices
    return sorted(choices, key=lambda choice: choice["index"])


def _shares(total: int | None, count: int) -> list[int | None]:
    """``total`` tokens shared out over ``count`` completions, since a server counts those drawn together as one."""
    if total is None:
        return [None] * count
    return [total // count + (index < total % count) for index in range(count)]


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None


def _tags(profile: ModelProfile) -> frozenset[str]:
    return frozenset(tag.lower() for tag in (*profile.think_tags, *ANSWER_TAGS))
