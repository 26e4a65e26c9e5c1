"""A model's own control tokens: no question may hold one, and no answer keeps one.

The tags that the task itself asks for (``<think>``, ``<answer>``) are the exception. Some checkpoints have made special
tokens of them, and there they are part of both the question and the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vrft_bench.tasks.base import Message
from vrft_bench.tasks.coordinates import ModelProfile

ANSWER_TAGS = ("<answer>", "</answer>")
_PLACEHOLDERS = ("image_token", "video_token", "audio_token")


@dataclass(frozen=True)
class ControlTokens:
    """``special`` maps the ids of special tokens to their text; ``placeholders`` stand for an image in a prompt."""

    special: dict[int, str]
    placeholders: tuple[str, ...]

    @classmethod
    def of(cls, processor: Any) -> ControlTokens:
        """Those that the tokenizer names, those that only its file marks as special, and the processor's own."""
        tokenizer = processor.tokenizer
        special = {index: token.content for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        special |= dict(zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True))
        found = (getattr(processor, name, None) for name in _PLACEHOLDERS)
        return cls(special, tuple(token for token in found if isinstance(token, str) and token))

    def refuse_in(self, messages: Sequence[Message], profile: ModelProfile) -> None:
        """Raise ``ValueError`` where a question to a model of ``profile`` holds one.

        The tokenizer would take it for real: an instruction could then end its turn, or claim a second image.
        """
        tags = _tags(profile)
        for token in (*self.special.values(), *self.placeholders):
            if token.lower() not in tags and any(token in text for text in _said(messages)):
                raise ValueError(f"the question contains {token!r}, a control token of the model")

    def places_without(self, tokens: Sequence[int], profile: ModelProfile) -> list[int]:
        """Where in ``tokens`` of an answer no special one stands; those that ``profile`` has tags in count as text."""
        tags = _tags(profile)
        return [
            place
            for place, token in enumerate(tokens)
            if token not in self.special or self.special[token].lower() in tags
        ]


def _tags(profile: ModelProfile) -> frozenset[str]:
    """In lower case: the parser reads tags in any case."""
    return frozenset(tag.lower() for tag in (*profile.think_tags, *ANSWER_TAGS))


def _said(messages: Sequence[Message]) -> Iterable[str]:
    for message in messages:
        parts = message["content"]
        yield from [parts] if isinstance(parts, str) else [part.get("text", "") for part in parts]
