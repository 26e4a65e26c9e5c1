"""What can go wrong between us and a server, and what that means for the request and for those after it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any

_OVERLOADED = frozenset({429, 503, 504, 529})
_TRY_AGAIN = frozenset({408, 409, 425})
_CLOSED = frozenset({401, 402})
_NO_MONEY = frozenset({"insufficient_quota", "billing_hard_limit_reached"})


class Kind(StrEnum):
    """What a failure means for the request, and for those after it."""

    OVERLOADED = "overloaded"  # later, and fewer at a time
    SILENT = "silent"  # later, and fewer at a time: no answer came in time
    UNREACHABLE = "unreachable"  # later; there is no server to speak of
    BROKEN = "broken"  # again: the exchange went wrong
    REFUSED = "refused"  # not again: the server will not answer this request
    CLOSED = "closed"  # no request at all will be answered


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an exchange gave no JSON of the kind that was asked for.

    ``retry_after``: seconds, where the server says. ``in_tls``: somebody is there, but no encrypted connection could be
    agreed on.
    """

    kind: Kind
    reason: str
    status: int | None = None
    retry_after: float | None = None
    in_tls: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered with status 200: parsed JSON, and the seconds that it took."""

    value: Any
    seconds: float


def kind_of(status: int, code: str | None = None) -> Kind:
    """What an HTTP status means. ``code`` is OpenAI's word in the body, where there is one."""
    if status in _CLOSED or code in _NO_MONEY:
        return Kind.CLOSED
    if status in _OVERLOADED:
        return Kind.OVERLOADED
    if status in _TRY_AGAIN or status >= 500 or status < 300:
        return Kind.BROKEN
    return Kind.REFUSED


def parse_retry_after(value: str | None, now: datetime | None = None) -> float | None:
    """Seconds to wait by a ``Retry-After`` header, which holds seconds or a date (RFC 9110); ``None`` for neither."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            until = parsedate_to_datetime(value)
        except (ValueError, OverflowError):  # the latter for a year or an hour beyond any C integer
            return None
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        seconds = (until - (now or datetime.now(UTC))).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None
