"""Gumbel noise before an argmax draws from the softmax, row by row, each row by its own seed."""

from __future__ import annotations

import torch

from vrft_bench.harness.models.gumbel import GumbelNoise, row_seed

NOTHING = torch.empty(0, dtype=torch.long)


def draw(seeds: list[int], logits: torch.Tensor) -> torch.Tensor:
    return GumbelNoise(seeds)(NOTHING, logits.expand(len(seeds), -1)).argmax(dim=-1)  # type: ignore[arg-type]


def test_draws_follow_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, float("-inf")])
    draws = draw([row_seed(0, str(index), 0) for index in range(20_000)], logits)
    shares = torch.bincount(draws, minlength=5) / len(draws)
    # Four standard errors of a share near one half.
    assert torch.allclose(shares, torch.softmax(logits, dim=-1), atol=4 * 0.5 / 20_000**0.5)
    assert shares[4] == 0


def test_a_row_draws_the_same_beside_any_others_at_every_step() -> None:
    logits = torch.randn(50, generator=torch.Generator().manual_seed(1))
    alone, beside = GumbelNoise([7]), GumbelNoise([3, 7, 9])
    for _ in range(5):
        one = alone(NOTHING, logits[None])  # type: ignore[arg-type]
        three = beside(NOTHING, logits.expand(3, -1))  # type: ignore[arg-type]
        assert torch.equal(one[0], three[1])
        assert not torch.equal(three[0], three[1])


def test_seeds_differ_by_run_sample_and_completion_and_are_fixed() -> None:
    seeds = {row_seed(seed, sample, n) for seed in (0, 1) for sample in ("a", "b", "a\x001") for n in (0, 1, 11)}
    assert len(seeds) == 18
    assert row_seed(0, "a", 0) == 5_377_369_291_220_743_188
    assert all(0 <= seed < 2**63 for seed in seeds)
