"""The limit against simulated servers, in virtual time: the same on a busy machine as on an idle one."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from vrft_bench.harness.models.adaptive_limit import START, AdaptiveLimit


class _JumpingSelector(selectors.SelectSelector):
    """Instead of waiting, moves the clock."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


@pytest.fixture
def loop() -> Iterator[VirtualLoop]:
    with closing(VirtualLoop()) as made:
        yield made


class Load:
    """As many requests at once as the limit lets through, each of which takes ``seconds(in flight)``."""

    def __init__(self, limit: AdaptiveLimit, seconds: Callable[[int], float], capacity: int | None = None) -> None:
        self.limit = limit
        self.seconds = seconds
        self.capacity = capacity
        self.in_flight = self.most = self.turned_away = self.answered = 0
        self.limits: list[int] = []

    async def ask(self) -> None:
        ticket = await self.limit.acquire()
        self.in_flight += 1
        self.most = max(self.most, self.in_flight)
        overloaded = self.capacity is not None and self.in_flight > self.capacity
        if not overloaded:
            await asyncio.sleep(self.seconds(self.in_flight))
        self.in_flight -= 1
        self.answered += not overloaded
        self.turned_away += overloaded
        self.limit.release(ticket, answered=not overloaded, overloaded=overloaded)
        self.limits.append(self.limit.current)

    async def run(self, requests: int) -> None:
        await asyncio.gather(*(self.ask() for _ in range(requests)))


def run(loop: VirtualLoop, load: Load, requests: int) -> Load:
    loop.run_until_complete(load.run(requests))
    return load


def test_the_limit_doubles_up_to_its_ceiling_while_the_server_keeps_up(loop: VirtualLoop) -> None:
    load = run(loop, Load(AdaptiveLimit(200, loop.time), lambda _: 1.0), 4000)
    assert list(dict.fromkeys(load.limits))[:5] == [16, 32, 64, 128, 200]
    assert load.most == load.limit.current == 200


def test_the_limit_settles_where_the_server_is_not_made_faster_by_more(loop: VirtualLoop) -> None:
    """40 places; who comes later waits for one. Above 40 in flight, answers only take longer."""
    load = run(loop, Load(AdaptiveLimit(1024, loop.time), lambda flying: max(1.0, flying / 40)), 20_000)
    settled = load.limits[-10_000:]
    assert min(settled) >= 32
    assert max(settled) <= 128
    assert loop.time() < 1.3 * 20_000 / 40


def test_a_server_that_turns_requests_away_is_asked_less(loop: VirtualLoop) -> None:
    load = run(loop, Load(AdaptiveLimit(256, loop.time), lambda _: 1.0, capacity=50), 10_000)
    settled = load.limits[-5_000:]
    assert min(settled) >= 20
    assert max(settled) <= 56
    assert load.turned_away < 0.02 * load.answered


def test_requests_sent_before_a_cut_do_not_cut_again(loop: VirtualLoop) -> None:
    limit = AdaptiveLimit(64, loop.time)

    async def fail_all_at_once() -> None:
        tickets = [await limit.acquire() for _ in range(START)]
        for ticket in tickets:
            limit.release(ticket, overloaded=True)

    loop.run_until_complete(fail_all_at_once())
    assert limit.current == START // 2
    loop.run_until_complete(fail_one(limit))
    assert limit.current == START // 4


async def fail_one(limit: AdaptiveLimit) -> None:
    limit.release(await limit.acquire(), overloaded=True)


def test_the_limit_never_falls_below_one(loop: VirtualLoop) -> None:
    limit = AdaptiveLimit(64, loop.time)
    for _ in range(10):
        loop.run_until_complete(fail_one(limit))
    assert limit.current == 1


def test_a_limit_that_is_not_used_up_is_not_raised(loop: VirtualLoop) -> None:
    limit = AdaptiveLimit(64, loop.time)

    async def one_at_a_time() -> None:
        for _ in range(500):
            ticket = await limit.acquire()
            await asyncio.sleep(0.1)
            limit.release(ticket, answered=True)

    loop.run_until_complete(one_at_a_time())
    assert limit.current == START


def test_a_pause_holds_back_everybody_and_the_longest_of_several_counts(loop: VirtualLoop) -> None:
    limit = AdaptiveLimit(4, loop.time)
    began: list[float] = []

    async def begin() -> None:
        await limit.acquire()
        began.append(loop.time())

    async def pause_and_ask() -> None:
        limit.pause(2.0)
        limit.pause(5.0)
        limit.pause(1.0)
        await asyncio.gather(*(begin() for _ in range(4)))

    loop.run_until_complete(pause_and_ask())
    assert began == pytest.approx([5.0] * 4)


def test_a_pause_ends_however_the_clock_is_read(loop: VirtualLoop) -> None:
    """Event loops call a little early what is due: nobody else would wake those who wait."""
    limit = AdaptiveLimit(4, lambda: loop.time() - 1e-6 * (loop.time() > 1.0))

    async def pause_and_ask() -> None:
        limit.pause(2.0)
        await asyncio.wait_for(limit.acquire(), 100.0)

    loop.run_until_complete(pause_and_ask())
    assert loop.time() == pytest.approx(2.0)


def test_who_waits_and_is_cancelled_takes_no_place(loop: VirtualLoop) -> None:
    limit = AdaptiveLimit(1, loop.time)

    async def scenario() -> None:
        first = await limit.acquire()
        waiting = [loop.create_task(limit.acquire()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        limit.release(first)  # to the second, cancelled before it can take it
        waiting[1].cancel()
        assert await asyncio.wait_for(waiting[2], 1.0)

    loop.run_until_complete(scenario())
    assert limit.in_flight == 1
