"""An event loop in a thread of its own, for backends that wait on many answers at once behind a plain iterator."""

from __future__ import annotations

import asyncio
import itertools
import queue
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")

_SHARE, _LANDING_SECONDS = 4, 0.005
"""Results wait for each other, until they are a quarter of what is still being worked on or for so long; and items are
read once there is room for as large a share: waking another thread costs more than most results."""


class BackgroundLoop:
    """Runs coroutines while the calling thread does other work. :meth:`close` it."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """What ``work`` gives. An interrupt while waiting cancels it."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def map(
        self, work: Callable[[T], Awaitable[Iterable[R]]], items: Iterable[T], room: Callable[[], int]
    ) -> Iterator[R]:
        """Everything that ``work`` gives for all ``items``, in the order in which it comes.

        Items are read by the calling thread, and only while fewer than ``room()`` of them are being worked on or wait
        to be yielded. What ``work`` raises is raised here. However the iteration ends, no work is left behind.
        """
        flight: _Flight[T, R] = _Flight(self._loop, work)
        stream = iter(items)
        flying, exhausted = 0, False
        try:
            while True:
                free = room() - flying
                if not exhausted and free >= max(1, flying // _SHARE):
                    batch = list(itertools.islice(stream, free))
                    exhausted = len(batch) < free
                    flying += len(batch)
                    flight.begin(batch)
                if not flying:
                    return
                for found in flight.landed.get():
                    flying -= 1
                    if isinstance(found, BaseException):
                        raise found
                    yield from found
        finally:
            if not self._loop.is_closed():
                self.run(flight.cancel())

    def close(self) -> None:
        """End all work, the loop and its thread."""
        if self._loop.is_closed():
            return
        self.run(_end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class _Flight(Generic[T, R]):
    """The work of one :meth:`BackgroundLoop.map`. Threads wake each other once per batch, not once per item."""

    def __init__(self, loop: asyncio.AbstractEventLoop, work: Callable[[T], Awaitable[Iterable[R]]]) -> None:
        self.landed: queue.SimpleQueue[list[Iterable[R] | BaseException]] = queue.SimpleQueue()
        self._loop = loop
        self._work = work
        self._tasks: set[asyncio.Future[Iterable[R]]] = set()
        self._ready: list[Iterable[R] | BaseException] = []

    def begin(self, items: Sequence[T]) -> None:
        if items:
            self._loop.call_soon_threadsafe(self._start, items)

    async def cancel(self) -> None:
        await _end(self._tasks)

    def _start(self, items: Sequence[T]) -> None:
        for item in items:
            task = asyncio.ensure_future(self._work(item), loop=self._loop)
            self._tasks.add(task)
            task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Future[Iterable[R]]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        self._ready.append(task.exception() or task.result())
        if _SHARE * len(self._ready) >= len(self._tasks):
            self._land()
        elif len(self._ready) == 1:
            self._loop.call_later(_LANDING_SECONDS, self._land)

    def _land(self) -> None:
        if self._ready:
            self.landed.put(self._ready)
            self._ready = []


async def _end_all() -> None:
    await _end(asyncio.all_tasks() - {asyncio.current_task()})


async def _end(tasks: Iterable[asyncio.Future[Any]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
