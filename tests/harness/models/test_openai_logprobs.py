"""Token log-probabilities that a server gives lie along the text that is read from its answer, or there are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from openai_server import Asked, Pictures, Raw, Say, Status

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.base import Completion, Sampling
from vrft_bench.harness.models.groups import Group
from vrft_bench.harness.models.openai_chat import ReplyFormat, SentImage
from vrft_bench.harness.models.openai_options import OpenAIOptions
from vrft_bench.harness.models.token_logprobs import TokenLogprobs

IMAGE = SentImage(b"data:image/png;base64,AAAA", (28, 56), "0" * 64)
VLLM = {"data": [{"id": "served", "owned_by": "vllm"}]}


def given(pieces: Sequence[str | bytes]) -> dict[str, Any]:
    """``logprobs`` of a choice whose tokens say ``pieces``: -1, -2, ..."""
    content = []
    for place, piece in enumerate(pieces, start=1):
        data = piece if isinstance(piece, bytes) else piece.encode()
        content.append({"token": data.decode(errors="replace"), "logprob": -place, "bytes": list(data)})
    return {"logprobs": {"content": content}}


def read(say: Say, **options: bool) -> Completion:
    (request,) = Pictures(size=1).requests(Sampling())
    completions = ReplyFormat(logprobs=True, **options).completions(say.json(), Group((request,)), IMAGE)
    assert isinstance(completions, list)
    return completions[0]


def logprobs_of(text: str | None, pieces: Sequence[str | bytes], say: Any = None, **options: bool) -> Any:
    """(what each token covers, its log-probability), in the order of the tokens."""
    completion = read(Say(text, message=say or {}, choice=given(pieces)), **options)
    return covered(completion.text, completion.token_logprobs)


def covered(text: str, logprobs: TokenLogprobs | None) -> Any:
    if logprobs is None:
        return None
    starts = [0, *(end for end, _ in logprobs)]
    return [(text[start:end], logprob) for start, (end, logprob) in zip(starts, logprobs, strict=False)]


def test_every_token_of_a_text_has_its_own() -> None:
    assert logprobs_of("[12,34]", ["[", "12", ",", "34", "]"]) == [
        ("[", -1.0),
        ("12", -2.0),
        (",", -3.0),
        ("34", -4.0),
        ("]", -5.0),
    ]


def test_the_token_that_ended_the_answer_is_left_out_whatever_it_is_called() -> None:
    for stop in ("<|im_end|>", "</s>", ""):
        assert logprobs_of("ab", ["a", "b", stop]) == [("a", -1.0), ("b", -2.0)]
        assert logprobs_of("ab", ["a", "b", stop], keeps_special=True) == [("a", -1.0), ("b", -2.0)]


def test_control_tokens_that_are_taken_out_of_the_text_are_left_out() -> None:
    pieces = ["<|box_start|>", "(1,2)", "<|box_end|>", "b", "<|im_end|>"]
    assert logprobs_of("<|box_start|>(1,2)<|box_end|>b", pieces, keeps_special=True) == [("(1,2)", -2.0), ("b", -4.0)]
    assert logprobs_of("(1,2)b", pieces) == [("(1,2)", -2.0), ("b", -4.0)]


@pytest.mark.parametrize(
    "tokens",
    [
        ["a", b"\xf0\x9f", b"\x98", b"\x80", "b"],  # as OpenAI gives them: by their bytes
        ["a", "", "", "😀", "b"],  # vLLM: the last token has the whole character
    ],
)
def test_a_character_of_several_tokens_is_the_last_ones(tokens: list[str | bytes]) -> None:
    assert logprobs_of("a😀b", tokens) == [("a", -1.0), ("", -2.0), ("", -3.0), ("😀", -4.0), ("b", -5.0)]


@pytest.mark.parametrize("odd", [None, [999], ["x"], "ab"])
def test_tokens_without_bytes_are_read_by_their_text(odd: Any) -> None:
    choice = given(["a", "�", "�", "b"])
    for token in choice["logprobs"]["content"]:
        token["bytes"] = odd
    completion = read(Say("aéb", choice=choice))
    assert covered(completion.text, completion.token_logprobs) == [("a", -1.0), ("", -2.0), ("é", -3.0), ("b", -4.0)]


def test_a_thought_that_the_server_parted_from_the_answer_has_those_that_the_server_gives() -> None:
    thought = {"reasoning_content": "I look."}
    text = "<answer>1</answer>"
    whole = ["<think>", "I look.", "</think>", "<answer>", "1", "</answer>"]
    assert logprobs_of(text, whole, thought) == [(piece, -float(place)) for place, piece in enumerate(whole, start=1)]
    begun = [("<think>I look.", -1.0), ("</think>", -2.0), *((piece, -3.0 - i) for i, piece in enumerate(whole[3:]))]
    assert logprobs_of(text, whole[1:], thought) == begun
    answer = logprobs_of(text, whole[3:], thought)
    assert answer == [("<think>I look.</think><answer>", -1.0), ("1", -2.0), ("</answer>", -3.0)]
    assert logprobs_of("b", ["a", "</think>", "c"], thought) is None


def test_a_tag_that_the_chat_template_wrote_lies_before_the_first_token() -> None:
    found = logprobs_of("a</think>b", ["a", "</think>", "b"], think_begun=True)
    assert found == [("<think>a", -1.0), ("</think>", -2.0), ("b", -3.0)]


def test_white_space_that_the_server_trimmed_does_not_matter() -> None:
    pieces = ["<think>", " \n", "hm", " \n", "</think>", "\n\n", " [1", " ,", "2]"]
    found = logprobs_of("[1, 2]", pieces, {"reasoning_content": "hm"})
    assert [(what, logprob) for what, logprob in found if what.strip()] == [
        ("<think>", -1.0),
        ("hm", -3.0),
        ("</think>", -5.0),
        ("[1", -7.0),
        (",", -8.0),
        (" 2]", -9.0),
    ]
    assert logprobs_of("No Objects", ["No", "Objects"]) == [("No", -1.0), (" Objects", -2.0)]


def test_what_does_not_make_the_text_is_none() -> None:
    assert logprobs_of("No Objects", ["No", "Object"]) is None
    assert logprobs_of("No Objects", ["No"]) is None
    assert read(Say("ab", choice={"logprobs": {"content": [{"token": "ab", "logprob": 3}]}})).token_logprobs is None


def test_an_answer_without_text_needs_none() -> None:
    assert read(Say("")).token_logprobs == ()
    assert read(Say(None, message={"refusal": "I cannot."})).token_logprobs is None
    assert read(Say("half", finish_reason="content_filter")).token_logprobs is None


@pytest.mark.parametrize(
    "logprobs",
    [
        None,
        {"content": None},
        {"content": []},
        {"tokens": ["a"], "token_logprobs": [-1.0]},
        {"content": [{"token": "a", "logprob": None}]},
        {"content": [{"token": 5, "logprob": -1.0}]},
    ],
)
def test_a_server_that_gives_none_ends_the_run_at_its_first_answer(serve: Any, connect: Any, logprobs: Any) -> None:
    server = serve(lambda _: Say("a", choice={"logprobs": logprobs}))
    with pytest.raises(BackendError, match="answers without token log-probabilities") as refused:
        list(connect(server, logprobs=True).generate(Pictures(size=1).requests()))
    assert "leave out -M logprobs=true" in str(refused.value)
    assert len(server.asked) == 1


def test_a_server_that_refuses_the_field_ends_the_run_with_its_own_words(serve: Any, connect: Any) -> None:
    def script(asked: Asked) -> Any:
        return Status(400, "logprobs are not supported") if "logprobs" in asked.body else "fine"

    server = serve(script)
    with pytest.raises(BackendError, match="logprobs are not supported") as refused:
        list(connect(server, logprobs=True).generate(Pictures(size=1).requests()))
    assert "leave out -M logprobs=true" in str(refused.value)
    assert [one.text for one in connect(server).generate(Pictures(size=1).requests())] == ["fine"]


@pytest.mark.parametrize("models", [None, VLLM], ids=["one by one", "together"])
def test_every_completion_has_those_of_its_own_choice(serve: Any, connect: Any, models: Any) -> None:
    def script(asked: Asked) -> Any:
        assert asked.body["logprobs"] is True
        seed, count = asked.body["seed"], asked.body.get("n", 1)
        say = Say([f"text {(seed + place) % 10}" for place in range(count)]).json()
        for choice in say["choices"]:
            choice |= given(["text", f" {choice['message']['content'][-1]}"])
            choice["logprobs"]["content"][1]["logprob"] = -float(choice["message"]["content"][-1])
        return Raw(json.dumps(say))

    server = serve(script, models)
    requests = Pictures(size=4).requests(Sampling(temperature=1.0, n=3))
    found = list(connect(server, logprobs="true").generate(requests))
    assert len(found) == 12
    assert all(one.token_logprobs == ((4, -1.0), (6, -float(one.text[-1]))) for one in found)


def test_they_are_asked_for_and_are_part_of_the_identity_only_where_they_are_wanted(serve: Any, connect: Any) -> None:
    server = serve(lambda _: Say("a", choice=given(["a"])))
    plain, telling = connect(server), connect(server, logprobs=True)
    (without,), (within,) = (list(one.generate(Pictures(size=1).requests())) for one in (plain, telling))
    assert (without.token_logprobs, within.token_logprobs) == (None, ((1, -1.0),))
    assert ["logprobs" in asked.body for asked in server.asked] == [False, True]
    before, after = plain.identity(), telling.identity()
    assert "logprobs" not in before
    assert "logprobs" not in before["fields"]
    assert after == {**before, "logprobs": True, "fields": {**before["fields"], "logprobs": True}}


def test_the_option_is_true_or_false() -> None:
    with pytest.raises(UserError, match="logprobs='5' is neither true nor false"):
        OpenAIOptions.parse({"base_url": "http://localhost:8000/v1", "logprobs": "5"})
