from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.leaderboards.ranks import rank_names, tail_p_value, told_apart
from vrft_bench.tasks.metrics.paired import Difference


def members(ranks: str) -> set[int]:
    """The ranks that a name stands for."""
    found: set[int] = set()
    for part in ranks.split(", "):
        first, _, last = part.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


@pytest.mark.parametrize(
    ("values", "apart", "ranks"),
    [
        ([0.5], set(), ["1"]),
        ([0.1, 0.9, 0.5], set(), ["1", "1", "1"]),
        ([0.1, 0.9, 0.5], {(0, 1), (0, 2), (1, 2)}, ["3", "1", "2"]),
        ([0.9, 0.8, 0.1], {(0, 2), (1, 2)}, ["1", "1", "2"]),
        ([0.9, 0.5, 0.1], {(0, 2)}, ["1", "1-2", "2"]),
        ([0.9, 0.8, 0.7, 0.6], {(0, 2), (0, 3), (1, 3)}, ["1", "1-2", "2-3", "3"]),
    ],
)
def test_models_share_a_rank_where_no_test_tells_them_apart(
    values: list[float], apart: set[tuple[int, int]], ranks: list[str]
) -> None:
    assert rank_names(values, apart) == ranks


@given(st.data())
def test_two_models_share_a_rank_exactly_where_they_cannot_be_told_apart(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 7))
    pairs = list(combinations(range(count), 2))
    apart = set(data.draw(st.lists(st.sampled_from(pairs), unique=True))) if pairs else set()
    values = data.draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    ranks = [members(name) for name in rank_names(values, apart)]
    for one, other in pairs:
        assert bool(ranks[one] & ranks[other]) == ((one, other) not in apart)


def difference(p_value: float | None, low: float = -0.1, high: float = 0.1) -> Difference:
    return Difference(0.5, 0.6, low, high, p_value)


def test_p_values_are_corrected_for_all_pairs() -> None:
    """.02 is below .05 alone, and not times the three pairs that are left with it."""
    found = {(0, 1): difference(0.02), (0, 2): difference(0.001), (1, 2): difference(0.03)}
    assert told_apart(found) == {(0, 1), (0, 2), (1, 2)}
    found[1, 2] = difference(0.9)
    assert told_apart(found) == {(0, 1), (0, 2)}
    found[0, 1] = difference(0.026)
    assert told_apart(found) == {(0, 2)}


def test_without_a_test_the_interval_decides() -> None:
    assert told_apart({(0, 1): difference(None, 0.01, 0.2), (0, 2): difference(None)}) == {(0, 1)}


def test_a_p_value_below_what_the_exchanges_can_tell_is_the_normal_distributions() -> None:
    """Four standard errors are 6.3e-5, and no exchange of 999 was as extreme."""
    far = Difference(0.5, 0.9, 0.3, 0.5, 0.001, 0.1, clusters=100)
    assert tail_p_value(far, 999) == pytest.approx(6.334e-5, rel=1e-3)
    near = Difference(0.5, 0.7, 0.0, 0.4, 0.04, 0.1, clusters=100)
    assert tail_p_value(near, 999) == 0.04
    few = Difference(0.5, 0.9, 0.3, 0.5, 0.001, 0.1, clusters=20)
    assert tail_p_value(few, 999) == 0.001
    always = Difference(0.0, 1.0, 1.0, 1.0, 0.001, 0.0, clusters=100)
    assert tail_p_value(always, 999) == 0.0
    assert tail_p_value(difference(None), 0) is None
    assert tail_p_value(replace(far, exact=True), 999) == 0.001


def test_twenty_models_far_apart_have_twenty_ranks() -> None:
    """190 tests: with the least p-value of a thousand exchanges, Holm's correction would tell none apart."""
    found = {
        (one, other): Difference(one / 20, other / 20, 0.0, 1.0, 1 / 1001, 0.002, clusters=500)
        for one, other in combinations(range(20), 2)
    }
    clear = {pair: replace(item, p_value=tail_p_value(item, 1000)) for pair, item in found.items()}
    assert told_apart(found) == set()
    assert rank_names([place / 20 for place in range(20)], told_apart(clear)) == [
        str(20 - place) for place in range(20)
    ]
