from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.store import read_manifest
from vrft_bench.leaderboards.comparability import (
    ALLOWABLE,
    Conditions,
    conditions_of,
    difference_lines,
    differing,
    may_stand_together,
    offer,
    parse_allow,
)
from vrft_bench.tasks.profiles import ABS_ORIGINAL

Make = Callable[..., Path]
AP = {"ap": 0.5}


@pytest.fixture
def pair(make_run: Make) -> Callable[..., list[Conditions]]:
    """The conditions of a run and of another with some things changed."""

    def make(task: str = "coco_fewshot", **changes: Any) -> list[Conditions]:
        folders = [make_run("coco_fewshot", "hf/a", AP), make_run(task, "hf/b", AP, **changes)]
        return conditions_of([read_manifest(folder) for folder in folders])

    return make


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, []),
        ({"weights": "other"}, []),
        ({"profile": ABS_ORIGINAL}, []),
        ({"sampling": {"seed": 5}}, []),
        ({"version": "2"}, ["version"]),
        ({"data": "other"}, ["data"]),
        ({"samples": 9, "limit": 9}, ["data"]),
        ({"protocol": "paper"}, ["protocol", "prompt"]),
        ({"split": "test"}, ["data", "split"]),
        ({"ask": "present"}, ["ask"]),
        ({"sampling": {"temperature": 1.0}}, ["sampling"]),
        ({"sampling": {"max_tokens": 128}}, ["sampling"]),
        ({"sampling": {"n": 4}}, ["sampling"]),
        ({"task": "lvis_fewshot"}, ["task", "data"]),
        ({"kind": "sample"}, ["sample data"]),
    ],
)
def test_each_condition_is_told_by_its_name(pair: Any, changes: dict[str, Any], names: list[str]) -> None:
    one, other = pair(**changes)
    assert differing(one, other) == differing(other, one) == names
    assert len(difference_lines(one, other)) == len(names)
    assert (one.key() == other.key()) == (names == [])


def test_top_p_is_no_difference_where_nothing_is_drawn(pair: Any) -> None:
    assert differing(*pair(sampling={"top_p": 0.5})) == []


def test_differences_are_said_with_both_sides(pair: Any) -> None:
    one, other = pair(protocol="paper", samples=9)
    lines = difference_lines(one, other)
    assert lines[0] == "protocol: strict here, paper there"
    assert lines[1].startswith("data: 100 samples, ")
    assert all(len(line) < 90 for line in lines)


def test_what_is_allowed_may_differ_and_nothing_else(pair: Any) -> None:
    one, other = pair(version="2", ask="all")
    assert not may_stand_together(one, other, parse_allow(["version"]))
    assert may_stand_together(one, other, parse_allow(["version, ask"]))
    assert one.key(parse_allow(["version", "ask"])) == other.key(parse_allow(["version", "ask"]))


def test_sample_data_stand_beside_nothing_whatever_is_allowed(pair: Any) -> None:
    one, other = pair(kind="sample")
    assert not may_stand_together(one, other, parse_allow(["version,data,split,ask,prompt,sampling,plugins"]))
    with pytest.raises(UserError, match="sample data never stand beside real data"):
        parse_allow(["sample"])


def test_an_unknown_condition_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'prompt'"):
        parse_allow(["promt"])


def test_the_protocol_may_never_differ(pair: Any) -> None:
    with pytest.raises(UserError, match="never share a column"):
        parse_allow(["data,protocol"])
    one, other = pair(protocol="paper")
    assert not may_stand_together(one, other, frozenset(ALLOWABLE))
    assert offer(differing(one, other), "joins them") == ""
    assert offer(["ask", "data"], "joins them") == " (--allow ask,data joins them)"


def test_runs_of_earlier_versions_agree_by_the_hash_that_they_have(make_run: Make) -> None:
    """An old run and a new one of the same profile are the same; one of another profile cannot be told."""
    old = make_run("coco_fewshot", "hf/a", AP, content=False)
    new = make_run("coco_fewshot", "hf/b", AP)
    other = make_run("coco_fewshot", "hf/c", AP, content=False, profile=ABS_ORIGINAL)
    one, two, three = conditions_of([read_manifest(folder) for folder in (old, new, other)])
    assert differing(one, two) == []
    assert differing(one, three) == ["data", "prompt"]
