"""Asking a server until it has answered: how often, how many at once, how long between attempts, and when to give up.

Failures are of three ranks. One that may pass is tried again. One that is the request's own fault fails its samples.
One that no request can escape ends the run, and says what the server said.
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.adaptive_limit import AdaptiveLimit
from vrft_bench.harness.models.openai_chat import Unusable, unusable
from vrft_bench.harness.models.openai_faults import Answer, Fault, Kind, kind_of
from vrft_bench.harness.models.openai_options import OpenAIOptions

if TYPE_CHECKING:
    from vrft_bench.harness.models.openai_transport import Transport

T = TypeVar("T")

CHAT = "/chat/completions"
LONGEST_BACKOFF = 60.0
LONGEST_PAUSE = 600.0
"""Seconds. A server that asks for a longer pause (a daily quota is spent) is not waited for."""

LONGEST_SILENCE = 1800.0
"""Seconds that one request waits in vain, over all its attempts, before it is given up; two attempts at least."""

LOOK_UPS = 3
MOST_ROUNDS = 3
"""Times that all retries of a request may find nobody, while the server speaks to others, before it is given up."""


class PatientClient:
    """Requests to one server, in one event loop."""

    def __init__(self, transport: Transport, options: OpenAIOptions) -> None:
        self.limit = AdaptiveLimit(options.max_concurrent)
        self.sleeping = 0
        """Requests between two attempts; they hold no place in flight."""
        self._transport = transport
        self._options = options
        self._most_timeouts = max(2, math.ceil(LONGEST_SILENCE / options.timeout))
        self._plain: asyncio.Task[Answer | Fault] | None = None
        self._sign: asyncio.Task[Fault | None] | None = None
        """While a question is out that tells a server that has fallen silent from a slow one, and after its silence."""
        self._answered = False
        self._contacts = 0
        """How often the server said anything at all."""

    async def close(self) -> None:
        for question in (self._plain, self._sign):
            if question is not None:
                question.cancel()
        await self._transport.close()

    async def ask(
        self,
        pieces: Sequence[bytes],
        read: Callable[[Answer], T | Unusable],
        plain_question: Callable[[], Sequence[bytes]],
    ) -> T | Fault:
        """What ``read`` makes of the answer to the body in ``pieces``, or the fault that is this request's own.

        ``plain_question`` makes the body of a question that any model can answer. It is asked once, if the server
        refuses something before it has answered anything: what refuses that too refuses everything. It is also asked
        after an attempt that timed out while the server said nothing to any other request. Raises
        :class:`BackendError` where no other request can do better.
        """
        outcome = await self._persist(pieces, read, plain_question)
        if isinstance(outcome, Fault) and outcome.kind is Kind.REFUSED and not self._answered:
            await self._ask_plainly(plain_question)
        return outcome

    async def list_models(self) -> Any:
        """The JSON of ``GET /models``, or ``None`` from a server that has no such list.

        Raises :class:`BackendError` where there is no server, or none that lets us in.
        """
        attempt = 0
        while True:
            outcome = await self._transport.get("/models")
            if isinstance(outcome, Answer):
                return outcome.value
            if outcome.kind is Kind.REFUSED or outcome.status in (200, 501):
                return None
            attempt += 1
            if attempt == LOOK_UPS or outcome.kind in (Kind.UNREACHABLE, Kind.CLOSED):
                raise self._fatal(outcome, "does not answer")
            await asyncio.sleep(self._options.backoff * 2.0**attempt)

    async def _ask_plainly(self, plain_question: Callable[[], Sequence[bytes]]) -> None:
        if self._plain is None:
            question = self._persist(plain_question(), lambda answer: unusable(answer.value) or answer, plain_question)
            self._plain = asyncio.get_running_loop().create_task(question)
        outcome = await asyncio.shield(self._plain)
        if isinstance(outcome, Fault):
            raise self._fatal(outcome, "refuses even a plain question about a small image")

    async def _expect_a_sign(self, plain_question: Callable[[], Sequence[bytes]]) -> None:
        """Raise :class:`BackendError` if a plain question, asked once, brings nothing out of the server either."""
        if self._sign is None:
            self._sign = asyncio.get_running_loop().create_task(self._listen(plain_question()))
        silence = await asyncio.shield(self._sign)
        if silence is not None:
            raise BackendError(
                f"the server {self._transport.base_url} takes requests and answers none, "
                f"not even a plain question about a small image: {silence.reason}",
                fix="look into the server's own log; if it is at work and slow, give it more than "
                f"-M timeout={self._options.timeout:g}. Then repeat the command: it resumes",
            )

    async def _listen(self, question: Sequence[bytes]) -> Fault | None:
        """The timeout of ``question``, which then stands; ``None`` if the server said anything, to it or another."""
        contacts = self._contacts
        outcome = await self._transport.post(CHAT, question)
        self._contacts += isinstance(outcome, Answer) or outcome.status is not None
        if isinstance(outcome, Fault) and outcome.kind is Kind.SILENT and self._contacts == contacts:
            return outcome
        self._sign = None
        return None

    async def _persist(
        self,
        pieces: Sequence[bytes],
        read: Callable[[Answer], T | Unusable],
        plain_question: Callable[[], Sequence[bytes]],
    ) -> T | Fault:
        contacts, attempt, timeouts = self._contacts, 0, 0
        patience = self._options.retries
        while True:
            outcome = await self._attempt(pieces, read, plain_question)
            if not isinstance(outcome, Fault) or outcome.kind is Kind.REFUSED:
                return outcome
            if outcome.kind is Kind.CLOSED:
                raise self._fatal(outcome, "answers no request")
            timeouts += outcome.kind is Kind.SILENT
            if attempt >= patience or timeouts >= self._most_timeouts:
                unreachable = outcome.kind is Kind.UNREACHABLE
                if unreachable and self._contacts == contacts:
                    raise self._fatal(outcome, "is not there (any more)")
                if not unreachable or patience >= MOST_ROUNDS * self._options.retries:
                    return Fault(outcome.kind, f"{outcome.reason} (after {attempt + 1} attempts)", outcome.status)
                contacts, patience = self._contacts, patience + self._options.retries
            await self._wait(attempt, outcome)
            attempt += 1

    async def _attempt(
        self,
        pieces: Sequence[bytes],
        read: Callable[[Answer], T | Unusable],
        plain_question: Callable[[], Sequence[bytes]],
    ) -> T | Fault:
        ticket = await self.limit.acquire()
        answered = overloaded = False
        try:
            if self._sign is not None:  # a server that a crowd has silenced may still answer a question on its own
                await self._expect_a_sign(plain_question)
            contacts = self._contacts
            outcome: T | Fault = _understood(await self._transport.post(CHAT, pieces), read)
            if not isinstance(outcome, Fault):
                answered = self._answered = True
                self._contacts += 1
                return outcome
            overloaded = outcome.kind in (Kind.OVERLOADED, Kind.SILENT, Kind.UNREACHABLE)
            self._contacts += outcome.status is not None
            if outcome.retry_after is not None:
                if outcome.retry_after > LONGEST_PAUSE:
                    raise self._fatal(outcome, f"asks for a pause of {outcome.retry_after:,.0f} seconds")
                self.limit.pause(outcome.retry_after)  # for all: requests that it has not yet turned away would be
        finally:
            self.limit.release(ticket, answered=answered, overloaded=overloaded)
        if outcome.kind is Kind.SILENT and self._contacts == contacts:
            await self._expect_a_sign(plain_question)
        return outcome

    async def _wait(self, attempt: int, fault: Fault) -> None:
        """Sleep before the next attempt: what the server asks for, and a random part of a time that doubles."""
        longest = min(LONGEST_BACKOFF, self._options.backoff * 2.0**attempt)
        seconds = (fault.retry_after or 0.0) + random.uniform(0.0, longest)
        self.sleeping += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self.sleeping -= 1

    def _fatal(self, fault: Fault, what: str) -> BackendError:
        """The error that ends a run: which server, what it does, what it said, and what can be done about it."""
        match fault:
            case Fault(in_tls=True):
                fix = "for a server that speaks plain HTTP, write http:// in --base-url; for a certificate that an "
                fix += "authority of your own signed: export SSL_CERT_FILE=AUTHORITY.pem"
            case Fault(kind=Kind.UNREACHABLE):
                fix = "start one (`vllm serve MODEL`), or correct --base-url"
            case Fault(status=401 | 403):
                fix = "export OPENAI_API_KEY with a key that it takes, or name another variable: -M api_key_env=NAME"
            case Fault(status=int(status)) if 300 <= status < 400:
                fix = "give the address that it redirects to as --base-url"
            case Fault(status=402) | Fault(kind=Kind.CLOSED) | Fault(retry_after=float()):
                fix = "look at the limits of your account, and repeat the command later: it resumes"
            case Fault(status=404 | 405):
                fix = "--base-url usually ends in /v1, and the model's name is what the server calls it"
            case Fault(kind=Kind.REFUSED):
                fix = "if it does not know a field, take that out: -M 'extra_body={\"FIELD\": null}'"
                if self._options.logprobs:
                    fix += "; if that is logprobs, leave out -M logprobs=true"
            case _:
                fix = "look into the server's own log, and repeat the command: it resumes"
        return BackendError(f"the server {self._transport.base_url} {what}: {fault.reason}", fix=fix)


def _understood(outcome: Answer | Fault, read: Callable[[Answer], T | Unusable]) -> T | Fault:
    if isinstance(outcome, Fault):
        return outcome
    found: Any = read(outcome)
    if not isinstance(found, Unusable):
        return found  # type: ignore[no-any-return]
    if found.code is None:
        return Fault(Kind.BROKEN, found.reason, 200)
    return Fault(kind_of(found.code), f"error {found.code}: {found.reason}", 200)
