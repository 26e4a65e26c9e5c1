"""Which request is asked in which session, so that each ends as one completion whatever dies in between.

A session is one ``generate`` of one replica. Sessions share the stream of requests. What a replica that died had not
answered is asked again, apart from the stream and in halves, on whichever replica is free: a request that takes its
process down is then soon alone, fails by itself, and the others are answered.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

from vrft_bench.harness.models.base import Completion, Request

Key = tuple[str, int]
"""(sample id, n)"""

ENOUGH_DEATHS = 2
"""A request fails once it was the only one of a replica that died, and one died with it before: once may be chance."""

TOGETHER = 128
"""How many requests more than it asked for a replica may get, so that those about one image are not parted.

They share what it makes of the image. The completions of one sample are never parted: engines draw them in one go.
"""


def key_of(request: Request) -> Key:
    return request.sample.id, request.n


class _Stream:
    """Requests, of which the next can be looked at before it is taken."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self._requests = iter(requests)
        self._ahead: Request | None = None

    def peek(self) -> Request | None:
        if self._ahead is None:
            self._ahead = next(self._requests, None)
        return self._ahead

    def take(self) -> Request | None:
        request = self.peek()
        self._ahead = None
        return request

    def rest(self) -> list[Request]:
        return list(iter(self.take, None))


class Session:
    """The requests of one ``generate``: those taken, until they are answered, and where more come from.

    ``shared``: they come from the stream, and not from what a dead replica left.
    """

    def __init__(self, shards: Shards, source: _Stream, *, shared: bool) -> None:
        self.shared = shared
        self.exhausted = False
        self.unanswered: dict[Key, Request] = {}
        self._shards = shards
        self._source = source

    def take(self, count: int) -> list[Request]:
        """About ``count`` more requests, without an end in the middle of a sample or, up to ``TOGETHER``, of an image.

        The session is ``exhausted`` where there are no more.
        """
        taken: list[Request] = []
        while (request := self._source.peek()) is not None:
            if len(taken) >= count and not (taken and _belong(taken[-1], request, len(taken) - count)):
                return taken
            taken.append(request)
            self.unanswered[key_of(request)] = request
            self._source.take()
        self.exhausted = True
        return taken

    def answered(self, completion: Completion) -> None:
        self.unanswered.pop((completion.sample_id, completion.n), None)

    def end(self) -> None:
        """It is over. What its backend left without an answer is not asked again."""
        self._shards.open.remove(self)

    def lost(self, reason: str) -> list[Completion]:
        """Its replica died. Gives the completions of requests that have failed by that."""
        self.end()
        rest = [] if self.shared else self._source.rest()
        return self._shards.ask_again(list(self.unanswered.values()), rest, reason)


class Shards:
    """The requests of one ``RayBackend.generate``. They are read one ahead of what a session takes."""

    def __init__(self, requests: Iterable[Request]) -> None:
        self.open: set[Session] = set()
        self._stream = _Stream(requests)
        self._again: deque[list[Request]] = deque()
        self._deaths: Counter[Key] = Counter()

    @property
    def finished(self) -> bool:
        """Whether nothing is left to ask and no session is open."""
        return not self.open and not self._again and self._stream.peek() is None

    def begin(self, *, trusted: bool) -> Session | None:
        """A session for a replica that is free; ``None`` where there is nothing for it.

        Only one that is ``trusted`` is asked what a dead one left: else it could not be told whether such a request or
        the replica is broken.
        """
        if self._again and trusted:
            session = Session(self, _Stream(self._again.popleft()), shared=False)
        elif self._stream.peek() is not None:
            session = Session(self, self._stream, shared=True)
        else:
            return None
        self.open.add(session)
        return session

    def ask_again(self, suspects: list[Request], rest: list[Request], reason: str) -> list[Completion]:
        """A replica died over ``suspects``, before it was asked ``rest``. Gives the completions of what has failed."""
        self._deaths.update(map(key_of, suspects))
        if rest:
            self._again.append(rest)
        if len(suspects) == 1 and self._deaths[key_of(suspects[0])] >= ENOUGH_DEATHS:
            return [_failed(suspects[0], f"the model's process dies of it: {reason}")]
        half = (len(suspects) + 1) // 2
        self._again.extend(part for part in (suspects[:half], suspects[half:]) if part)
        return []


def _belong(one: Request, two: Request, extra: int) -> bool:
    if one.sample.id == two.sample.id:
        return True
    first, second = one.sample.image, two.sample.image
    return extra < TOGETHER and first.path == second.path and first.data == second.data


def _failed(request: Request, reason: str) -> Completion:
    return Completion(request.sample.id, request.n, "", finish_reason="error", error=reason)
