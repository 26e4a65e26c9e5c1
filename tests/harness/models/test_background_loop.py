from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from vrft_bench.harness.models.background_loop import BackgroundLoop


@pytest.fixture
def loop() -> Iterator[BackgroundLoop]:
    made = BackgroundLoop("test")
    yield made
    made.close()


async def twice(item: int) -> list[int]:
    await asyncio.sleep(0.001 * (item % 3))
    return [item, -item]


def test_every_item_is_worked_on_once_and_everything_found_is_yielded(loop: BackgroundLoop) -> None:
    found = list(loop.map(twice, range(1, 200), lambda: 10))
    assert sorted(found) == sorted([*range(1, 200), *(-item for item in range(1, 200))])
    assert list(loop.map(twice, [], lambda: 10)) == []


@pytest.mark.parametrize("room", [1, 2, 7, 64])
def test_items_are_read_by_the_caller_and_only_while_there_is_room(loop: BackgroundLoop, room: int) -> None:
    read = yielded = most = 0

    def items() -> Iterator[int]:
        nonlocal read, most
        for item in range(300):
            assert threading.current_thread() is threading.main_thread()
            read += 1
            most = max(most, read - yielded)
            yield item

    async def work(item: int) -> list[int]:
        return [item]

    for _ in loop.map(work, items(), lambda: room):
        yielded += 1
    assert read == yielded == 300
    assert most <= room + 1  # the one that is being yielded has made room already


def test_what_work_raises_is_raised_to_the_caller_and_ends_the_rest(loop: BackgroundLoop) -> None:
    ended: list[int] = []

    async def work(item: int) -> list[int]:
        if item == 3:
            raise ZeroDivisionError(item)
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(item)
        return []

    with pytest.raises(ZeroDivisionError):
        list(loop.map(work, range(10), lambda: 6))
    assert sorted(ended) == [0, 1, 2, 4, 5]


def test_an_iteration_that_is_given_up_leaves_no_work_behind(loop: BackgroundLoop) -> None:
    ended: list[int] = []

    async def work(item: int) -> list[int]:
        if item == 0:
            return [item]
        try:
            await asyncio.sleep(3600)
        finally:
            ended.append(item)
        return []

    found = loop.map(work, range(10), lambda: 5)
    assert next(found) == 0
    found.close()  # type: ignore[attr-defined]
    assert sorted(ended) == [1, 2, 3, 4]


def test_a_failure_of_the_items_reaches_the_caller(loop: BackgroundLoop) -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    with pytest.raises(KeyError):
        list(loop.map(twice, items(), lambda: 1))


def test_closing_ends_the_thread_and_may_be_repeated() -> None:
    loop = BackgroundLoop("closing")
    abandoned = loop.map(twice, range(10), lambda: 2)
    next(abandoned)
    loop.close()
    loop.close()
    assert "closing" not in {thread.name for thread in threading.enumerate()}
    abandoned.close()  # type: ignore[attr-defined]
