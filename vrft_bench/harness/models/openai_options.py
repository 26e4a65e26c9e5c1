"""What a user may say to ``openai/NAME``, read and checked in one place: address, key, patience, and how images go."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.images import SentFormat

DEFAULT_KEY = "OPENAI_API_KEY"
_HIDDEN, _SHORTEST_SECRET = "[key]", 8
"""What stands for a key, and how many characters make one a secret. Shorter are what servers without keys are given
(``EMPTY``, ``x``), and to take them out of answers would change what the model said."""
_CUT_SHORT, _TELLING = re.compile(r"\S*(?:\*{2,}|\.{3}|…)\S*"), 4
"""A word with its middle left out, and how many characters tell that it was a certain one."""
_ImageUrl = Literal["data", "file", "http"]
_Resize = Literal["profile", "none"]

OWN_FIELDS = frozenset({"model", "messages", "n", "stream"})
"""Fields of a request that are not the user's to change."""

_FLAGS = {"temperature": "--temperature", "top_p": "--top-p", "max_tokens": "--max-tokens", "seed": "--seed"}
"""Fields that ``extra_body`` may take out of a request, but not set: their flags are what ``run.json`` records."""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key from the environment, or none. Its text leaves this class only in the header of a request."""

    _text: str = field(default="", repr=False)

    @classmethod
    def from_environment(cls, name: str | None) -> ApiKey:
        """The key in variable ``name``, or in ``OPENAI_API_KEY`` if that is set. Raises :class:`UserError`."""
        text = os.environ.get(name or DEFAULT_KEY, "").strip()
        if name is not None and not text:
            raise UserError(
                "api_key_env names no variable of the environment",  # not what was given: it may be the key itself
                fix="give the variable's name, and export it in the shell that starts vrft-bench",
            )
        if not (text.isascii() and text.isprintable() and " " not in text):
            raise UserError(
                f"the variable {name or DEFAULT_KEY} holds characters that no key has", fix="set it to the key alone"
            )
        return cls(text)

    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._text}"} if self._text else {}

    @property
    def _is_secret(self) -> bool:
        return len(self._text) >= _SHORTEST_SECRET

    def hide_in(self, text: str) -> str:
        """``text`` that a server sent, without the key."""
        for spelling in (self._text, self._text.replace("/", r"\/")) if self._is_secret else ():
            text = text.replace(spelling, _HIDDEN)
        return text

    def hide_traces_in(self, text: str) -> str:
        """An error's ``text`` without the key, or what a server leaves of it that shows the beginning and the end."""
        begins, ends = self._text[:_TELLING], self._text[-_TELLING:]

        def hidden(cut: re.Match[str]) -> str:
            return _HIDDEN if self._is_secret and (begins in cut[0] or ends in cut[0]) else cut[0]

        return _CUT_SHORT.sub(hidden, self.hide_in(text))


@dataclass(frozen=True, slots=True)
class OpenAIOptions:
    """Options of ``openai/NAME``.

    * ``base_url``: where the server's API begins, such as ``http://host:8000/v1``.
    * ``max_concurrent``: most requests in flight; how many really are follows the server.
    * ``timeout``: seconds for one attempt, from connecting to the last byte of the answer.
    * ``retries``: how often a request is tried again that failed for no fault of its own.
    * ``backoff``: seconds that the first wait between two attempts may last at most; it doubles with every attempt.
    * ``api_key_env``: the environment variable that holds the key; by default ``OPENAI_API_KEY``, if it is set.
    * ``image_format``: how images are written that cannot go as they are stored.
    * ``image_url``: ``data`` sends the image itself. ``file`` and ``http`` send a reference for servers that can read
      it: ``image_root`` is the folder of the images here, ``image_base_url`` what the server calls that folder.
    * ``resize``: ``profile`` brings images to the profile's pixel limits before they are sent; ``none`` leaves that to
      the server.
    * ``min_pixels``, ``max_pixels``: area limits of the resized image, in place of the profile's.
    * ``group_samples``: whether the ``n`` completions of a question are asked in one request; by default with vLLM.
    * ``think_begun``: the server's chat template writes the opening thinking tag; completions begin with it here.
    * ``extra_body``: JSON object of further fields of every request; ``null`` takes a field out.
    * ``structured``: the server may write nothing but the answer format (``--structured on``).
    * ``logprobs``: completions come with the log-probabilities of their tokens, which the server must give.
    """

    base_url: str = ""
    max_concurrent: int = 256
    timeout: float = 600.0
    retries: int = 8
    backoff: float = 0.5
    api_key_env: str | None = None
    image_format: SentFormat = "png"
    image_url: _ImageUrl = "data"
    image_root: Path | None = None
    image_base_url: str | None = None
    resize: _Resize = "profile"
    min_pixels: int | None = None
    max_pixels: int | None = None
    group_samples: bool | None = None
    think_begun: bool = False
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    structured: bool = False
    logprobs: bool = False

    @classmethod
    def parse(cls, args: Mapping[str, object]) -> OpenAIOptions:
        """Options from strings or JSON values. Raises :class:`UserError` for an unknown name or a bad value."""
        known = [item.name for item in fields(cls)]
        for name in args:
            if name in ("api_key", "key", "token"):
                raise UserError(
                    f"{name} is no argument: a key is read from the environment alone, so that no file ever holds it",
                    fix=f"export {DEFAULT_KEY}=..., or name another variable: -M api_key_env=NAME",
                )
            if name not in known:
                raise UserError(
                    f"the openai backend has no argument {name!r}{did_you_mean(name, known)}",
                    fix=f"--model-args takes: {', '.join(known)}",
                )
        return cls(**{name: _READERS[name](name, value) for name, value in args.items() if value is not None}).checked()

    def checked(self) -> OpenAIOptions:
        """This, if its parts fit together. Raises :class:`UserError` otherwise."""
        if not self.base_url:
            raise UserError(
                "the openai backend needs the address of a server",
                fix="--base-url http://HOST:8000/v1 (https://api.openai.com/v1 for OpenAI itself)",
            )
        if self.min_pixels and self.max_pixels and self.min_pixels > self.max_pixels:
            raise UserError(
                f"min_pixels={self.min_pixels} is above max_pixels={self.max_pixels}",
                fix="give a min_pixels that is not above max_pixels",
            )
        if self.resize == "none" and (self.min_pixels or self.max_pixels):
            raise UserError(
                "pixel limits are given, and resize=none says that images are sent as they are",
                fix="leave out resize=none, or min_pixels and max_pixels",
            )
        mapped = (self.image_root is not None, self.image_base_url is not None)
        if self.image_url == "data" and any(mapped):
            raise UserError(
                "image_root and image_base_url are for images that are sent as references",
                fix="add image_url=http (or file), or leave them out",
            )
        if any(mapped) != all(mapped) or (self.image_url == "http" and not all(mapped)):
            raise UserError(
                f"image_url={self.image_url} needs both image_root and image_base_url: where the images are here, and "
                "what the server calls that place",
                fix="-M image_url=http,image_root=/data/coco,image_base_url=http://files:9000/coco",
            )
        return self


def _text(name: str, value: object) -> str:
    text = str(value).strip()
    if not text:
        raise UserError(f"{name} is empty", fix=f"write {name}=VALUE, or leave it out")
    return text


def _base_url(name: str, value: object) -> str:
    """``value`` without a slash at its end. Says nothing of a URL that may hold a password."""
    text = _text(name, value).rstrip("/")
    try:
        parts = urlsplit(text)
        port_is_number = parts.port is None or parts.port >= 0
    except ValueError:
        parts, port_is_number = urlsplit(""), False
    if "@" in (parts.netloc or text):
        raise UserError(
            "--base-url holds a user name or a password, which would be written into run.json",
            fix=f"leave them out; a key is read from the environment: export {DEFAULT_KEY}=...",
        )
    if not (port_is_number and parts.scheme in ("http", "https") and parts.hostname):
        raise UserError(
            f"--base-url {text!r} is no http address", fix="write, say, --base-url http://localhost:8000/v1"
        )
    if parts.query or parts.fragment:
        raise UserError(
            f"--base-url {text.partition('?')[0]!r} goes on with a query or a fragment",
            fix="give the address that the paths of the API are added to, such as http://localhost:8000/v1",
        )
    if text.endswith("/chat/completions"):
        raise UserError(
            f"--base-url {text!r} is the address of one endpoint",
            fix=f"--base-url {text.removesuffix('/chat/completions')}",
        )
    return text


def _image_base_url(name: str, value: object) -> str:
    text = _text(name, value).rstrip("/")
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if "@" in (parts.netloc or text.partition("://")[2].partition("/")[0]):
        raise UserError(
            f"{name} holds a user name or a password, which would be written into run.json", fix="leave it out"
        )
    if parts.scheme not in ("http", "https", "file"):
        raise UserError(
            f"{name}={text!r} is neither an http nor a file address",
            fix=f"write {name}=http://HOST/PATH or file:///PATH",
        )
    return text


def _root(name: str, value: object) -> Path:
    path = Path(_text(name, value)).expanduser()
    if not path.is_dir():
        raise UserError(f"{name}={str(value)!r}: no such folder", fix=f"give the folder of the images as {name}")
    return path.resolve()


def _count(name: str, value: object) -> int:
    try:
        number = int(str(value).replace("_", ""))
    except ValueError:
        number = -1
    least = 0 if name == "retries" else 1
    if number < least:
        raise UserError(f"{name}={value!r} is not a whole number of at least {least}", fix=f"write, say, {name}=8")
    return number


def _seconds(name: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if not 0.0 < number <= 86_400.0:
        raise UserError(f"{name}={value!r} is not a number of seconds up to a day", fix=f"write, say, {name}=60")
    return number


def _flag(name: str, value: object) -> bool:
    match str(value).lower():
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
    raise UserError(f"{name}={value!r} is neither true nor false", fix=f"write {name}=true or {name}=false")


def _one_of(kind: Any) -> Any:
    valid = get_args(kind)

    def read(name: str, value: object) -> str:
        text = str(value).lower()
        if text not in valid:
            raise UserError(
                f"{name}={value!r} is not known{did_you_mean(text, valid)}", fix=f"use {' or '.join(valid)}"
            )
        return text

    return read


def _extra_body(name: str, value: object) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(
                f"{name} is not JSON: {error}", fix="""write, say, -M 'extra_body={"top_k": 1}'"""
            ) from None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{name} is no JSON object", fix="""write, say, -M 'extra_body={"top_k": 1}'""")
    if taken := sorted(OWN_FIELDS & set(value)):
        raise UserError(f"{name} sets {', '.join(taken)}, which the run itself sets", fix=f"leave it out of {name}")
    for key, flag in _FLAGS.items():
        if value.get(key) is not None:
            raise UserError(f"{name} sets {key}, which {flag} sets", fix=f"use {flag}; null in {name} takes it out")
    return dict(value)


_READERS: dict[str, Any] = {
    "base_url": _base_url,
    "max_concurrent": _count,
    "timeout": _seconds,
    "retries": _count,
    "backoff": _seconds,
    "api_key_env": _text,
    "image_format": _one_of(SentFormat),
    "image_url": _one_of(_ImageUrl),
    "image_root": _root,
    "image_base_url": _image_base_url,
    "resize": _one_of(_Resize),
    "min_pixels": _count,
    "max_pixels": _count,
    "group_samples": _flag,
    "think_begun": _flag,
    "extra_body": _extra_body,
    "structured": _flag,
    "logprobs": _flag,
}
