"""Token log-probabilities as a chat server gives them, laid along the completion that was read from the same choice.

A server's tokens are those that it drew: they may hold the tags of a thought that it parted from the answer, control
tokens that are not part of the text, and the token that ended it. Whose probabilities they are at a temperature above
0 (the model's own, or those that were drawn from) is the server's choice.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vrft_bench.errors import BackendError
from vrft_bench.harness.models.token_logprobs import TokenLogprobs, along

Given = Sequence[tuple[str, float]]
"""(text, logprob) of every token of a choice."""


def given_in(choice: Mapping[str, Any]) -> Given:
    """What ``logprobs.content`` of a choice with text holds. Raises :class:`BackendError` where it holds no tokens."""
    logprobs = choice.get("logprobs")
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not (isinstance(content, list) and content and all(map(_is_token, content))):
        raise BackendError(
            "the server answers without token log-probabilities: there is no list of tokens in its "
            "choices[].logprobs.content",
            fix="leave out -M logprobs=true, or use a server that gives them (vLLM, SGLang, llama.cpp, ...)",
        )
    return list(zip(_texts(content), (float(token["logprob"]) for token in content), strict=True))


def laid_along(
    text: str, given: Given, starts: Sequence[int], is_removed: Callable[[str], bool]
) -> TokenLogprobs | None:
    """``given`` along ``text`` from the first of ``starts`` from where on they make it; ``None`` if there is none.

    ``is_removed`` says which tokens are no part of the text. Where they make it but for white space, which servers trim
    from a thought and an answer that they part, that will do.
    """
    kept = [(piece, logprob) for piece, logprob in given if not is_removed(piece)]
    pieces, logprobs = [piece for piece, _ in kept], [logprob for _, logprob in kept]
    begins = [start for start in starts if start < len(text)]
    places = [place for place, sign in enumerate(text) if not sign.isspace()]
    letters, bare = "".join(text.split()), ["".join(piece.split()) for piece in pieces]
    for start in begins:
        if (exact := along(text, pieces, logprobs, start)) is not None:
            return exact
    for start in begins:
        found = along(letters, bare, logprobs, bisect_left(places, start))
        if found:
            return tuple((places[end - 1] + 1 if end else 0, logprob) for end, logprob in found)
    return None


def _is_token(token: Any) -> bool:
    return (
        isinstance(token, dict) and isinstance(token.get("token"), str) and type(token.get("logprob")) in (int, float)
    )


def _texts(content: Sequence[Any]) -> Iterator[str]:
    """By the tokens' bytes where they are there, since a token may end inside a character."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in content:
        value = token.get("bytes")
        try:
            yield decoder.decode(bytes(value)) if isinstance(value, list) else token["token"]
        except (TypeError, ValueError):  # numbers that are no bytes
            yield token["token"]
