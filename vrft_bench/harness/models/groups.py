"""Completions of one question that an engine draws together, and the seeds that they are drawn with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.gumbel import row_seed

_SEEDS = 1 << 30
"""Seeds are below it: some servers keep them in 32 bits, and completion ``n`` adds ``n``."""


@dataclass(frozen=True, slots=True)
class Group:
    """One question and the completions that are asked of it at once, whose ``n`` follow each other."""

    requests: tuple[Request, ...]

    @property
    def first(self) -> Request:
        return self.requests[0]

    @property
    def seed(self) -> int:
        """The seed of the first completion: the sample's own, plus ``n``, as engines count up for those that follow."""
        request = self.first
        return row_seed(request.sampling.seed, request.sample.id, 0) % _SEEDS + request.n

    def failed(self, reason: str) -> list[Completion]:
        """Every completion of the group, failed."""
        return [Completion(one.sample.id, one.n, "", "error", error=reason) for one in self.requests]


def in_groups(requests: Iterable[Request], together: bool) -> Iterator[Group]:
    """``requests`` one by one; where ``together``, drawn completions of one sample that follow each other in one group.

    Greedy completions stay alone: engines refuse ``n`` without a temperature.
    """
    held: list[Request] = []
    for request in requests:
        if held and not (together and _continues(held[-1], request)):
            yield Group(tuple(held))
            held = []
        held.append(request)
        if not (together and request.sampling.temperature > 0.0 and request.n + 1 < request.sampling.n):
            yield Group(tuple(held))
            held = []
    if held:
        yield Group(tuple(held))


def _continues(last: Request, request: Request) -> bool:
    return (last.sample.id, last.n + 1, last.sampling) == (request.sample.id, request.n, request.sampling)
