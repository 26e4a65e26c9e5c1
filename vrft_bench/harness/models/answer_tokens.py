"""What the tokens of an answer say: its text, whether it was ended, and how far into the text each token reaches.

The backends that see tokens share this, so that one model's answer is the same text in each of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from vrft_bench.harness.models.control_tokens import ControlTokens
from vrft_bench.harness.models.token_logprobs import REPLACEMENT, TokenLogprobs, along
from vrft_bench.tasks.coordinates import ModelProfile

_LONGEST_UNREAD = 8  # tokens: a character has at most four bytes, and so as many tokens


@dataclass(frozen=True, slots=True)
class Answer:
    """``ended`` says that a stop token came, and ``spent`` counts the tokens up to and including it."""

    text: str
    ended: bool
    spent: int
    token_logprobs: TokenLogprobs | None


class AnswerReader:
    """Reads the tokens of one checkpoint, by the tokenizer of its ``processor``."""

    def __init__(self, processor: Any) -> None:
        self._processor = processor
        self._piece = lru_cache(maxsize=None)(lambda token: self._decode([token]))

    @cached_property
    def control_tokens(self) -> ControlTokens:
        return ControlTokens.of(self._processor)

    def read(
        self,
        tokens: Sequence[int],
        stops: Sequence[int],
        profile: ModelProfile,
        *,
        begun: str = "",
        logprobs: Sequence[float] | None = None,
    ) -> Answer:
        """The answer that ``tokens`` give up to the first of ``stops``, after what the chat template has ``begun``.

        ``logprobs`` are the tokens' log-probabilities, where they are known.
        """
        end = next((index for index, token in enumerate(tokens) if token in stops), None)
        places = self.control_tokens.places_without(tokens[:end], profile)
        kept = [tokens[place] for place in places]
        text = begun + self._decode(kept)
        found = None
        if logprobs is not None:
            pieces = self._pieces(kept, text[len(begun) :])
            found = along(text, pieces, [logprobs[place] for place in places], start=len(begun))
        return Answer(text, end is not None, len(tokens) if end is None else end + 1, found)

    def _pieces(self, tokens: Sequence[int], text: str) -> Sequence[str]:
        """What each token adds to ``text``: itself, where that makes the text, else what it adds to those before it."""
        alone = [self._piece(token) for token in tokens]
        return alone if "".join(alone) == text else list(self._added(tokens))

    def _added(self, tokens: Sequence[int]) -> Iterator[str]:
        """A token is read after those of the character before it: at the beginning, some say another thing."""
        begin = read = 0  # tokens[begin:read] make whole characters, and were read last
        told = 0  # characters of what tokens[begin:] say that were yielded
        for index in range(len(tokens)):
            said = self._decode(tokens[begin : index + 1])
            whole = said.rstrip(REPLACEMENT)
            if said != whole and index - read < _LONGEST_UNREAD:
                yield whole[told:] + REPLACEMENT * (len(said) - len(whole))
                told = max(told, len(whole))
            else:
                yield said[told:]
                begin, read = read, index + 1
                told = len(self._decode(tokens[begin:read]))

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._processor.tokenizer.decode(list(tokens))
        return text
