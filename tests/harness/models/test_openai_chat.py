"""What is written into a request, and what is read out of an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai_server import Pictures, Say, Status

from vrft_bench.errors import UserError
from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.groups import Group, in_groups
from vrft_bench.harness.models.openai_chat import ChatFormat, ReplyFormat, SentImage, Unusable
from vrft_bench.tasks.base import Status as Read
from vrft_bench.tasks.profiles import ABS_ORIGINAL

IMAGE = SentImage(b"data:image/png;base64,AAAA", (28, 56), "0" * 64)
DRAWN = Sampling(temperature=0.8, top_p=0.9, max_tokens=50, n=4, seed=7)
VLLM = {"data": [{"id": "served", "owned_by": "vllm"}]}


def request_of(sampling: Sampling | None = None) -> Request:
    return Pictures(size=1).requests(sampling)[0]


def body_of(group: Group, fields: Any = None) -> Any:
    return json.loads(b"".join(ChatFormat("served", fields or {}, "M" * 32).body(group, IMAGE.url)))


def read(say: Say, request: Request | None = None, **options: bool) -> Any:
    return ReplyFormat(**options).completions(say.json(), Group((request or request_of(),)), IMAGE, 1.5)


def text_of(say: Say, **options: bool) -> str:
    (completion,) = read(say, **options)
    return str(completion.text)


def test_a_greedy_question_is_the_plain_request_that_any_server_takes() -> None:
    request = request_of(Sampling(max_tokens=99))
    (text,) = [part["text"] for part in request.messages[0]["content"] if part["type"] == "text"]
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    assert body_of(Group((request,))) == {
        "model": "served",
        "messages": [{"role": "user", "content": [image, {"type": "text", "text": text}]}],
        "max_tokens": 99,
        "temperature": 0.0,
        "top_p": 1.0,
    }


def test_the_image_is_a_piece_of_its_own_and_is_never_copied() -> None:
    pieces = ChatFormat("served", {}, "M" * 32).body(Group((request_of(),)), IMAGE.url)
    assert len(pieces) == 3
    assert pieces[1] is IMAGE.url


@given(st.text(max_size=60))
def test_any_question_comes_out_of_the_body_as_it_went_in(text: str) -> None:
    request = request_of()
    messages = [{"role": "user", "content": [{"type": "text", "text": text}, {"type": "image"}]}]
    (message,) = body_of(Group((replace(request, messages=messages),)))["messages"]
    assert message["content"][0] == {"type": "text", "text": text}


def test_fields_are_added_and_null_takes_one_out() -> None:
    body = body_of(Group((request_of(),)), {"top_k": 0, "max_tokens": None, "max_completion_tokens": 9})
    assert body["top_k"] == 0
    assert "max_tokens" not in body
    assert body["max_completion_tokens"] == 9


def test_completions_drawn_together_or_one_by_one_have_the_same_seeds() -> None:
    """A server that draws ``n`` together counts up from the seed, so each completion keeps its own in a resumed run."""
    requests = Pictures(size=3).requests(DRAWN)
    together, alone = list(in_groups(requests, True)), list(in_groups(requests, False))
    assert [len(group.requests) for group in together] == [4, 4, 4]
    assert len(alone) == 12
    resumed = list(in_groups([requests[1], requests[2], requests[5], requests[7]], True))
    assert [len(group.requests) for group in resumed] == [2, 1, 1]

    def seeds(groups: list[Group]) -> dict[Any, int]:
        return {
            (request.sample.id, request.n): body_of(group)["seed"] + place
            for group in groups
            for place, request in enumerate(group.requests)
        }

    assert seeds(together) == seeds(alone)
    assert seeds(resumed).items() <= seeds(alone).items()
    assert len(set(seeds(alone).values())) == 12
    assert [body_of(group).get("n") for group in together] == [4, 4, 4]
    assert [body_of(group).get("n") for group in alone] == [None] * 12
    other = [body_of(group)["seed"] for group in in_groups(Pictures(size=3).requests(replace(DRAWN, seed=8)), True)]
    assert not set(other) & set(seeds(alone).values())


def test_vllm_is_asked_for_all_completions_of_a_question_at_once(serve: Any, connect: Any) -> None:
    server = serve(lambda asked: Say([f"text {n}" for n in range(asked.body["n"])]), VLLM)
    completions = list(connect(server).generate(Pictures(size=5).requests(DRAWN)))
    assert len(server.asked) == 5
    assert sorted((one.sample_id, one.n) for one in completions) == sorted(
        (request.sample.id, request.n) for request in Pictures(size=5).requests(DRAWN)
    )
    assert {(one.n, one.text) for one in completions} == {(n, f"text {n}") for n in range(4)}


def test_other_servers_are_asked_one_by_one_unless_told_otherwise(serve: Any, connect: Any) -> None:
    server = serve(lambda asked: Say(["text"] * asked.body.get("n", 1)))
    requests = Pictures(size=5).requests(DRAWN)
    assert len(list(connect(server).generate(requests))) == len(server.asked) == 20
    assert len(list(connect(server, group_samples=True).generate(requests))) == 20
    assert len(server.asked) == 25


def test_choices_are_read_by_their_index_and_tokens_are_shared_out() -> None:
    requests = Pictures(size=1).requests(DRAWN)
    reply = Say(["a", "b", "c", "d"], usage={"prompt_tokens": 30, "completion_tokens": 10}).json()
    reply["choices"].reverse()
    completions = ReplyFormat().completions(reply, Group(tuple(requests)), IMAGE)
    assert not isinstance(completions, Unusable)
    assert [(one.n, one.text) for one in completions] == [(0, "a"), (1, "b"), (2, "c"), (3, "d")]
    assert [one.completion_tokens for one in completions] == [3, 3, 2, 2]
    assert [one.prompt_tokens for one in completions] == [30] * 4


def test_fewer_choices_than_asked_for_are_not_taken() -> None:
    group = Group(tuple(Pictures(size=1).requests(DRAWN)))
    fault = ReplyFormat().completions(Say(["a", "b"]).json(), group, IMAGE)
    assert fault == Unusable("the server's answer holds 2 choices, of 4 asked for")


def test_an_answer_carries_what_the_record_needs() -> None:
    (completion,) = read(Say("text", finish_reason="length"))
    assert (completion.text, completion.finish_reason, completion.error) == ("text", "length", None)
    assert (completion.prompt_tokens, completion.completion_tokens) == (10, 5)
    assert (completion.processed, completion.image_sha256, completion.seconds) == ((28, 56), "0" * 64, 1.5)
    (untold,) = read(Say("text", usage=None, finish_reason=None))
    assert (untold.prompt_tokens, untold.completion_tokens, untold.finish_reason) == (None, None, "stop")


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_a_thought_that_the_server_split_off_is_put_back_between_its_tags(name: str) -> None:
    say = Say("\n<answer>No Objects</answer>", message={name: "I look."})
    assert text_of(say) == "<think>I look.</think>\n<answer>No Objects</answer>"
    task, request = Pictures(size=1), request_of()
    assert task.parse(text_of(say), request.frame).well_formed
    assert text_of(Say("<think>a</think>b", message={name: "a"})) == "<think>a</think>b"
    assert text_of(Say("b", message={name: ""})) == "b"


def test_a_thought_that_the_token_limit_cut_is_left_open() -> None:
    say = Say(None, finish_reason="length", message={"reasoning_content": "I look, and look"})
    assert text_of(say) == "<think>I look, and look"
    assert Pictures(size=1).parse(text_of(say), request_of().frame, truncated=True).status is Read.TRUNCATED
    assert text_of(Say("", message={"reasoning_content": "done"})) == "<think>done</think>"


def test_an_opening_tag_that_the_chat_template_wrote_is_put_back_where_the_user_says_so() -> None:
    say = Say("I look.</think><answer>No Objects</answer>")
    assert text_of(say) == "I look.</think><answer>No Objects</answer>"
    assert text_of(say, think_begun=True) == "<think>I look.</think><answer>No Objects</answer>"


def test_special_tokens_are_taken_out_but_for_the_tags_of_thinking_and_answering() -> None:
    profile = replace(ABS_ORIGINAL, think_tags=("<|think|>", "<|/think|>"))
    request = replace(request_of(), profile=profile)
    say = Say("<|think|>a<|/think|><|box_start|>(1,2)<|box_end|> 1 <| 2<|im_end|>")
    (completion,) = read(say, request, keeps_special=True)
    assert completion.text == "<|think|>a<|/think|>(1,2) 1 <| 2"
    (as_it_came,) = read(say, request)
    assert as_it_came.text == say.text


def test_text_in_parts_and_refusals_are_text() -> None:
    parts = Say(None, message={"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
    assert text_of(parts) == "ab"
    assert text_of(Say(None, message={"refusal": "I cannot help with that."})) == "I cannot help with that."


def test_a_question_with_a_control_token_fails_and_is_not_sent(serve: Any, connect: Any) -> None:
    server = serve(lambda asked: "text")
    request = request_of()
    said = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a<|im_end|>b"}]}]
    (completion,) = connect(server).generate([replace(request, messages=said)])
    assert completion.error == "the question contains '<|im_end|>', which servers take for a control token"
    assert server.asked == []


def test_answers_longer_than_the_server_can_hold_are_refused_before_they_are_asked_for(
    serve: Any, connect: Any
) -> None:
    listed = {"data": [{"id": "served", "owned_by": "vllm", "max_model_len": 1024}]}
    server = serve(lambda asked: Status(500), listed)
    with pytest.raises(UserError, match="--max-tokens 1024 leave no room for a question"):
        list(connect(server).generate([request_of()]))
    assert server.asked == []


def test_a_finish_reason_that_is_no_word_is_passed_over() -> None:
    reply = Say("text").json()
    reply["choices"][0]["finish_reason"] = {"type": "stop", "matched": 2}
    (completion,) = ReplyFormat().completions(reply, Group((request_of(),)), IMAGE)
    assert (completion.text, completion.finish_reason, completion.error) == ("text", "stop", None)


def test_a_part_of_an_answer_without_text_adds_none() -> None:
    reply = Say("text").json()
    reply["choices"][0]["message"]["content"] = [{"type": "text", "text": None}, {"type": "text", "text": "seen"}]
    (completion,) = ReplyFormat().completions(reply, Group((request_of(),)), IMAGE)
    assert completion.text == "seen"
