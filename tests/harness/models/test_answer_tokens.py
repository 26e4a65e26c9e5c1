"""The text of an answer's tokens, and the place in it where each of them ends."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from vrft_bench.harness.models.answer_tokens import Answer, AnswerReader
from vrft_bench.harness.models.token_logprobs import REPLACEMENT
from vrft_bench.tasks.profiles import QWEN2_VL

SPOKEN = "红色的圆在左上角 😀😃🎉 a red circle at [12, 34, 567, 890], Übergröße, «ça va»"


@dataclass
class Processor:
    """As much of a processor as a reader needs."""

    tokenizer: Any


def byte_level() -> Any:
    """A tokenizer of the kind that large models have, whose tokens begin and end anywhere in a character."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=320, initial_alphabet=alphabet, special_tokens=["<|im_end|>"])
    tokenizer.train_from_iterator([SPOKEN] * 3, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")


BUNDLED = AutoTokenizer.from_pretrained(str(files("vrft_bench") / "assets" / "tiny_qwen2_vl"))
BYTE_LEVEL = byte_level()
READERS = {id(tokenizer): AnswerReader(Processor(tokenizer)) for tokenizer in (BUNDLED, BYTE_LEVEL)}


def read(tokenizer: Any, tokens: list[int], begun: str = "") -> Answer:
    logprobs = [-float(token) for token in tokens]
    return READERS[id(tokenizer)].read(tokens, [tokenizer.eos_token_id], QWEN2_VL, begun=begun, logprobs=logprobs)


def bytes_of(name: str) -> int:
    """Of a token of the bundled tokenizer, whose rarer characters are tokens of one byte."""
    return 1 if name.startswith("<0x") else len(name.encode())


@pytest.mark.parametrize(("tokenizer", "size"), [(BUNDLED, bytes_of), (BYTE_LEVEL, len)], ids=["bytes", "byte-level"])
@given(st.text(max_size=40) | st.text(SPOKEN, max_size=60), st.sampled_from(["", "<think>"]))
def test_a_token_ends_after_the_last_character_whose_bytes_are_all_there(
    tokenizer: Any, size: Callable[[str], int], text: str, begun: str
) -> None:
    tokens = tokenizer(text)["input_ids"]
    answer = read(tokenizer, tokens, begun)
    assert answer.text == begun + text
    said, expected = 0, []
    for token in tokens:
        said += size(tokenizer.convert_ids_to_tokens(token))
        expected.append((len(begun) + len(text.encode()[:said].decode(errors="ignore")), -float(token)))
    assert answer.token_logprobs == tuple(expected)


@pytest.mark.parametrize("tokenizer", [BUNDLED, BYTE_LEVEL], ids=["bytes", "byte-level"])
@given(st.data())
def test_whatever_tokens_a_model_writes_their_ends_never_decrease_and_reach_the_end(
    tokenizer: Any, data: st.DataObject
) -> None:
    """Broken bytes may change what those before them said, and then the tokens' own texts do not make the answer's."""
    tokens = data.draw(st.lists(st.sampled_from(sorted(tokenizer.get_vocab().values())), max_size=40))
    answer = read(tokenizer, tokens)
    stop = tokenizer.eos_token_id
    assert (answer.ended, answer.spent) == (stop in tokens, tokens.index(stop) + 1 if stop in tokens else len(tokens))
    if answer.token_logprobs is None:
        assert REPLACEMENT in answer.text
        return
    ends = [end for end, _ in answer.token_logprobs]
    assert ends == sorted(ends)
    assert (ends[-1] if ends else 0) == len(answer.text)
    assert len(ends) <= answer.spent


class Stripping:
    """A tokenizer of the SentencePiece kind: it drops the space before its first word."""

    all_special_ids: tuple[int, ...] = ()
    all_special_tokens: tuple[str, ...] = ()
    words = (" a", " box", ":", " [", "12", ",", "]")

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        return {}

    def decode(self, tokens: list[int]) -> str:
        return "".join(self.words[token] for token in tokens).removeprefix(" ")


def test_a_tokenizer_that_says_another_thing_at_the_beginning_is_read_in_context() -> None:
    tokens = [0, 1, 2, 3, 4, 5, 4, 6]
    answer = AnswerReader(Processor(Stripping())).read(tokens, [], QWEN2_VL, logprobs=[-1.0] * 8)
    assert answer.text == "a box: [12,12]"
    assert answer.token_logprobs is not None
    assert [end for end, _ in answer.token_logprobs] == [1, 5, 6, 8, 10, 11, 13, 14]


def test_without_log_probabilities_none_are_laid_along_the_text() -> None:
    tokens = BUNDLED("No Objects")["input_ids"]
    answer = AnswerReader(Processor(BUNDLED)).read(tokens, [], QWEN2_VL)
    assert answer == Answer("No Objects", ended=False, spent=len(tokens), token_logprobs=None)
