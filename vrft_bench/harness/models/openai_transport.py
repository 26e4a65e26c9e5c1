"""One HTTP exchange with an OpenAI-compatible server, and what kind of failure it was if it failed.

Nothing is tried twice here. Whatever a server says is shown without the key.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from aiohttp import payload

from vrft_bench import __version__
from vrft_bench.errors import UserError
from vrft_bench.harness.models.openai_chat import error_code, said_by
from vrft_bench.harness.models.openai_faults import Answer, Fault, Kind, kind_of, parse_retry_after
from vrft_bench.harness.models.openai_options import ApiKey
from vrft_bench.harness.models.openai_servers import is_this_machine

KEPT_ALIVE = 4.0
"""Seconds that an idle connection is kept: uvicorn, which most servers run on, closes it after 5."""

CONNECT_SECONDS = LOOK_UP_SECONDS = 30.0
LONGEST_ANSWER = 64 << 20
"""Bytes. A longer body is no completion."""

_AT_ONCE = 1 << 18
"""Bodies up to this size are sent at once. Larger ones are in parts of this size, and their image is not copied."""

_CREDENTIALS = re.compile(r"//[^/@\s]+@")


class Transport:
    """The connections to one server. Made and used inside a running event loop; :meth:`close` it there."""

    def __init__(self, base_url: str, key: ApiKey, timeout: float) -> None:
        self.base_url = base_url
        self._key = key
        self._timeout = timeout
        self._proxy = proxy_for(base_url)
        self._patience = aiohttp.ClientTimeout(total=timeout, sock_connect=min(CONNECT_SECONDS, timeout))
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT_ALIVE),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"vrft-bench/{__version__}", **key.headers()},
        )

    async def close(self) -> None:
        await self._session.close()

    async def post(self, path: str, pieces: Sequence[bytes]) -> Answer | Fault:
        """Send the JSON that ``pieces`` make up."""
        return await self._exchange("POST", path, _Pieces(pieces))

    async def get(self, path: str) -> Answer | Fault:
        """Ask for something that a server has at hand, with less patience than for a completion."""
        return await self._exchange("GET", path, None, timeout=min(LOOK_UP_SECONDS, self._timeout))

    async def _exchange(
        self, method: str, path: str, body: payload.Payload | None, timeout: float | None = None
    ) -> Answer | Fault:
        began = time.perf_counter()
        try:
            async with self._session.request(
                method,
                self.base_url + path,
                data=body,
                proxy=self._proxy,
                allow_redirects=False,
                timeout=self._patience if timeout is None else aiohttp.ClientTimeout(total=timeout),
            ) as response:
                text = await _read(response)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                return Fault(Kind.UNREACHABLE, f"no connection within {min(CONNECT_SECONDS, self._timeout):g} seconds")
            return Fault(Kind.SILENT, f"no answer within {timeout or self._timeout:g} seconds (timeout)")
        except aiohttp.ClientSSLError as error:
            return Fault(Kind.UNREACHABLE, f"no TLS connection: {_words(error.os_error)}", in_tls=True)
        except aiohttp.ClientConnectorError as error:
            return Fault(Kind.UNREACHABLE, f"no connection: {_words(error.os_error)}")
        except (aiohttp.ClientError, OSError) as error:
            return Fault(Kind.BROKEN, f"the connection broke: {_words(error)}")
        return self._judge(response, text, time.perf_counter() - began)

    def _judge(self, response: aiohttp.ClientResponse, text: bytes | None, seconds: float) -> Answer | Fault:
        status = response.status
        if text is None:
            return Fault(Kind.BROKEN, f"the server's answer is longer than {LONGEST_ANSWER >> 20} MiB", status)
        said = self._key.hide_in(text.decode(errors="replace"))
        try:
            value = json.loads(said)
        except (ValueError, RecursionError):
            if status == 200:
                return Fault(Kind.BROKEN, f"the server's answer is no JSON but {_shown(said)}", status)
            value = said
        if status == 200:
            return Answer(value, seconds)
        if 300 <= status < 400:
            to = self._key.hide_in(response.headers.get("Location", "nowhere"))
            return Fault(Kind.CLOSED, f"HTTP {status}: it redirects to {to}", status)
        reason = f"HTTP {status}: {self._key.hide_traces_in(said_by(value)) or response.reason or 'no reason given'}"
        retry_after = parse_retry_after(response.headers.get("Retry-After"))
        return Fault(kind_of(status, error_code(value)), reason, status, retry_after)


def proxy_for(base_url: str) -> str | None:
    """The proxy that the environment (``HTTPS_PROXY``, ``NO_PROXY``, ...) names for ``base_url``.

    Raises :class:`UserError` for one that is no address, without its text, which may hold a password.
    """
    parts = urlsplit(base_url)
    if is_this_machine(base_url) or proxy_bypass(parts.hostname or ""):
        return None
    proxy = getproxies().get(parts.scheme)
    if not proxy:
        return None
    proxy = proxy if "://" in proxy else f"http://{proxy}"  # as curl reads it
    try:
        there = urlsplit(proxy)
        is_address = there.scheme in ("http", "https") and bool(there.hostname) and (there.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address:
        raise UserError(
            f"the proxy that the environment names for {parts.scheme} is no http address",
            fix=f"export {parts.scheme.upper()}_PROXY=http://HOST:PORT, with / as %2F and @ as %40 in a password",
        )
    return proxy


async def _read(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; ``None`` for one that is too long to be read."""
    expected = response.content_length
    if expected is not None and "Content-Encoding" not in response.headers:  # a few compressed bytes may be gigabytes
        return await response.read() if expected <= LONGEST_ANSWER else None
    parts, length = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        length += len(part)
        if length > LONGEST_ANSWER:
            return None
    return b"".join(parts)


def _words(error: Exception) -> str:
    """What ``error`` says in one line, without the user and the password of a proxy."""
    return _CREDENTIALS.sub("//", " ".join(str(error).split())) or type(error).__name__


def _shown(text: str, limit: int = 80) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= limit else f"{text[: limit - 3]}...")


class _Pieces(payload.Payload):
    """A JSON body in pieces that requests share: the image in the middle is in memory once, however many send it."""

    def __init__(self, pieces: Sequence[bytes]) -> None:
        super().__init__(pieces, content_type="application/json")
        self._size = self._length = sum(map(len, pieces))

    async def write(self, writer: Any) -> None:
        if self._length <= _AT_ONCE:
            await writer.write(b"".join(self._value))
            return
        for piece in self._value:
            view = memoryview(piece)
            for start in range(0, len(view), _AT_ONCE):
                await writer.write(view[start : start + _AT_ONCE])

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return b"".join(self._value).decode(encoding, errors)
