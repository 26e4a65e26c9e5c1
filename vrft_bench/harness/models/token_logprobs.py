"""Log-probabilities of an answer's tokens: taken while they are chosen, and laid along the answer's text.

They are those of the model itself: natural logarithms, before temperature and top-p.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import LogitsProcessorList

TokenLogprobs = tuple[tuple[int, float], ...]
"""(end, logprob) per token of a text: how many characters there are up to and including it, and how likely it was."""

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""What stands where bytes make no character (yet)."""


_ROUNDING = 1e-3
"""How far above 0 a log-probability may come out by rounding."""


class ChoiceRecorder:
    """A transformers logits processor: ``processors``, and the log-probability of what an argmax after them chooses.

    Of every step it keeps one number per row of the batch. ``output_logits`` of transformers would keep steps x batch x
    vocabulary: 39 GB for 1,024 tokens, 64 rows and 152,000 words.
    """

    def __init__(self, processors: LogitsProcessorList) -> None:
        self._processors = processors
        self._steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.Tensor:
        processed: torch.Tensor = self._processors(input_ids, scores)
        chosen = processed.argmax(dim=-1, keepdim=True)
        self._steps.append(scores.gather(-1, chosen).squeeze(-1) - scores.logsumexp(dim=-1))
        return processed

    def rows(self) -> list[list[float]]:
        """Per row of the batch, the log-probability of each step's choice."""
        import torch

        rows: list[list[float]] = torch.stack(self._steps, dim=1).tolist()
        return rows


def along(text: str, pieces: Iterable[str], logprobs: Sequence[float], start: int = 0) -> TokenLogprobs | None:
    """``logprobs`` of the tokens that say ``pieces``, which together are ``text`` from character ``start`` on.

    A character that several tokens write is the last one's: the pieces of the others are empty or end in
    ``REPLACEMENT``. Tokens after the end of the text are left out. ``None`` where the pieces do not make the text, and
    where a log-probability is none.
    """
    found: list[tuple[int, float]] = []
    offset, unread = start, 0  # up to `unread` characters from `offset` on are those of bytes that were no character
    for piece, logprob in zip(pieces, logprobs, strict=True):
        if offset == len(text):
            break
        if not (math.isfinite(logprob) and logprob < _ROUNDING):
            return None
        unread += not piece
        for place, part in enumerate(piece.split(REPLACEMENT)):
            unread += place > 0
            if not part:
                continue
            at = text.find(part, offset, offset + unread + len(part))
            if at < 0:
                return None
            if found and place == 0:
                found[-1] = (at, found[-1][1])
            offset, unread = at + len(part), 0
        found.append((offset, min(logprob, 0.0)))
    if len(text) - offset > unread:
        return None
    if found:
        found[-1] = (len(text), found[-1][1])
    return tuple(found)
