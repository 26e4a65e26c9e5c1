"""Which greedy questions all ways of running vLLM are compared on, and when two completions are the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vrft_bench.harness.models.base import Completion, Request, Sampling

COMPARED = 120
"""Questions that are compared."""

DIFFERENT = 0.02
"""Largest share of greedy completions that may differ: engines add up the same numbers in other orders."""

GREEDY = Sampling(max_tokens=200)

Questions = Callable[..., list[Request]]
Answers = dict[tuple[str, int], Completion]
"""Completions by (sample id, n)."""


def by_key(completions: Iterable[Completion]) -> Answers:
    """The completions, each of which came once."""
    found = list(completions)
    keyed = {(one.sample_id, one.n): one for one in found}
    assert len(keyed) == len(found)
    return keyed


def facts(one: Completion) -> tuple[object, ...]:
    """All of a completion but how long it took."""
    return (
        one.text,
        one.finish_reason,
        one.prompt_tokens,
        one.completion_tokens,
        one.processed,
        one.image_sha256,
        one.error,
    )


def hold_equal(found: Answers, wanted: Answers, who: str) -> None:
    """Assert that ``found`` are the answers of the transformers backend, but for a bounded share."""
    assert found.keys() == wanted.keys()
    different = [key for key, one in found.items() if facts(one) != facts(wanted[key])]
    report(f"{who}: {len(different)} of {len(found)} greedy completions differ from hf's")
    assert len(different) <= DIFFERENT * len(found)
    for key, one in found.items():
        assert one.error is None
        assert (one.prompt_tokens, one.processed) == (wanted[key].prompt_tokens, wanted[key].processed)


def hold_close(found: Answers, wanted: Answers, who: str) -> None:
    """Assert that where texts are equal, their tokens end in the same places and are as likely."""
    same = [key for key, one in found.items() if one.text == wanted[key].text]
    assert len(same) >= (1 - DIFFERENT) * len(found)
    furthest = 0.0
    for key in same:
        one, other = found[key].token_logprobs, wanted[key].token_logprobs
        assert one is not None
        assert other is not None
        assert [end for end, _ in one] == [end for end, _ in other]
        furthest = max([furthest, *(abs(mine - its) for (_, mine), (_, its) in zip(one, other, strict=True))])
    report(f"{who}: log-probabilities of tokens differ from hf's by at most {furthest:.1e}")
    assert furthest < 1e-3


def report(line: str) -> None:
    """Show a figure that was measured, with ``pytest -s``."""
    print(line)  # noqa: T201
