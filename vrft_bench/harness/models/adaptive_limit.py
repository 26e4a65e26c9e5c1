"""How many requests may be in flight at once: as many as make the server faster, and fewer when it says stop.

Additive increase, multiplicative decrease, as TCP does it (Chiu and Jain, "Analysis of the Increase and Decrease
Algorithms for Congestion Avoidance in Computer Networks", 1989), with one addition: a language-model server takes
thousands of requests and lets them wait, so the limit also stops growing where more requests bring no more answers.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

START = 16
"""Requests in flight before anything is known of the server."""

WORTH = 1.05
"""A larger limit is worth keeping if it answers more per second by this factor."""

REST, LONGEST_REST = 8, 64
"""Rounds for which the limit stays as it is after growth that brought nothing; each time twice as many, up to these."""


class Ticket(NamedTuple):
    """Under which limit a request was sent: an answer says nothing about a limit that is younger than its request."""

    round: int
    cuts: int


class AdaptiveLimit:
    """Places for requests in flight, at most ``ceiling`` of them. For one event loop; not thread-safe.

    A round begins with the first answer to a request that was sent under the present limit and ends after as many
    answers as the limit allows in flight. After every round the limit doubles; after its first setback it grows by an
    eighth. Once twice as many requests as at the best limit so far bring no more answers per second (by ``WORTH``), it
    goes back to that one and rests. A request that the server turns away (:meth:`release` with ``overloaded``) halves
    it; others that were sent before the cut do not halve it again.
    """

    def __init__(self, ceiling: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.ceiling = ceiling
        self.current = min(START, ceiling)
        self.in_flight = 0
        self._clock = clock
        self._waiting: deque[asyncio.Future[Ticket]] = deque()
        self._paused_until = 0.0
        self._cuts = 0
        self._doubling = True
        self._best, self._best_rate = self.current, 0.0
        self._rounds, self._rest = 1, REST
        self._round = 0
        self._began: float | None = None
        self._answers = 0
        self._slack = False

    async def acquire(self) -> Ticket:
        """Wait for a place, and for the end of any pause. First come, first served."""
        if not self._waiting and self._open():
            return self._enter()
        place: asyncio.Future[Ticket] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._leave()
            raise

    def release(self, ticket: Ticket, *, answered: bool = False, overloaded: bool = False) -> None:
        """Give the place of ``ticket`` back. ``answered``: the server did its work; ``overloaded``: it turned it away.

        Neither says that the request failed for a reason that has nothing to do with how many there are.
        """
        self._leave()
        if overloaded and ticket.cuts == self._cuts:
            self._cut()
        elif answered:
            self._count(ticket)

    def pause(self, seconds: float) -> None:
        """Let no request begin for so long; those in flight go on."""
        until = self._clock() + seconds
        if until > self._paused_until:
            self._paused_until = until
            asyncio.get_running_loop().call_later(seconds, self._end_pause, until)

    def _end_pause(self, until: float) -> None:
        if until == self._paused_until:
            self._paused_until = 0.0
            self._wake()

    def _open(self) -> bool:
        return self.in_flight < self.current and not self._paused_until

    def _enter(self) -> Ticket:
        self.in_flight += 1
        return Ticket(self._round, self._cuts)

    def _leave(self) -> None:
        self.in_flight -= 1
        self._wake()
        self._slack = self._slack or self.in_flight < self.current

    def _wake(self) -> None:
        while self._waiting and self._open():
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(self._enter())

    def _count(self, ticket: Ticket) -> None:
        if self._began is None:
            if ticket.round == self._round:
                self._began, self._answers, self._slack = self._clock(), 0, False
            return
        self._answers += 1
        if self._answers < self.current * self._rounds:
            return
        seconds, rate = self._clock() - self._began, 0.0
        if seconds > 0.0 and not self._slack:  # a limit that was not used up cannot be judged
            rate = self._answers / seconds
        self._began, self._answers, self._slack = self._clock(), 0, False
        if rate:
            self._judge(rate)

    def _judge(self, rate: float) -> None:
        """What follows from a round of ``rate`` answers per second."""
        rested, self._rounds = self._rounds > 1, 1
        if rested or rate > self._best_rate * WORTH:
            self._best, self._best_rate = self.current, rate
            self._rest = self._rest if rested else REST
        elif self.current >= min(2 * self._best, self.ceiling):
            self._doubling = False
            self._rounds, self._rest = self._rest, min(2 * self._rest, LONGEST_REST)
            self._set(self._best)
            return
        self._set(self.current * 2 if self._doubling else self.current + max(1, self.current // 8))

    def _cut(self) -> None:
        self._cuts += 1
        self._doubling = False
        self._rounds, self._rest = 1, REST
        self._set(max(1, self.current // 2))
        self._best, self._best_rate = self.current, 0.0

    def _set(self, limit: int) -> None:
        self.current = min(limit, self.ceiling)
        self._round += 1
        self._began = None
        self._wake()
