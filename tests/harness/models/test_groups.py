"""Which completions are drawn together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from openai_server import Pictures

from vrft_bench.harness.models.base import Sampling
from vrft_bench.harness.models.groups import in_groups

DRAWN = Sampling(temperature=0.8, n=4)


def test_greedy_completions_are_never_asked_together() -> None:
    requests = Pictures(size=2).requests(Sampling(n=3))
    assert [len(group.requests) for group in in_groups(requests, True)] == [1] * 6


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), unique=True).map(sorted))
def test_groups_hold_every_request_once_and_only_such_as_follow_each_other(asked: list[tuple[int, int]]) -> None:
    requests = Pictures(size=3).requests(DRAWN)
    chosen = [requests[4 * sample + n] for sample, n in asked]
    groups = list(in_groups(iter(chosen), True))
    assert [request for group in groups for request in group.requests] == chosen
    for group in groups:
        assert len({request.sample.id for request in group.requests}) == 1
        ns = [request.n for request in group.requests]
        assert ns == list(range(ns[0], ns[0] + len(ns)))
