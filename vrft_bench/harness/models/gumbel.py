"""Sampling whose outcome belongs to the request and not to the batch that it happened to share.

``argmax(logits + Gumbel noise)`` is an exact draw from ``softmax(logits)`` (the Gumbel-max trick: Gumbel 1954;
Maddison, Tarlow and Minka, "A* Sampling", NeurIPS 2014). Drawing the noise of every row from that row's own generator
makes a completion a function of (weights, prompt, seed, sample id, n) alone: the same with any batch size, in any
order, and after a resumed run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch


def row_seed(seed: int, sample_id: str, n: int) -> int:
    """The 63-bit seed of completion ``n`` of a sample, in a run with ``seed``."""
    digest = hashlib.sha256(f"{seed}\x00{sample_id}\x00{n}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


class GumbelNoise:
    """A transformers logits processor that adds a row's own Gumbel noise at every step; take the ``argmax`` after it.

    ``seeds`` has one seed per row of the batch. Runs after temperature and top-p.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._seeds = tuple(seeds)
        self._generators: list[torch.Generator] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:  # noqa: ARG002
        import torch

        if not self._generators:
            self._generators = [torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds]
        noise = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
        for row, generator in zip(noise, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - noise.log()
