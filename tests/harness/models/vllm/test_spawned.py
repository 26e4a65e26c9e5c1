"""``vllm/NAME --spawn`` with vLLM's own server: the answers of the other ways, and a server that is told of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from comparing import COMPARED, GREEDY, Answers, Questions, by_key, facts, hold_close, hold_equal, report

from vrft_bench.errors import BackendError
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.vllm import VLLMBackend
from vrft_bench.harness.models.vllm_server import VLLMServerBackend


@pytest.fixture(scope="module")
def spawned(vllm_is_here: None, sample_cache: Path) -> Iterator[VLLMServerBackend]:
    backend = load_backend("vllm/tiny", {"spawn": True, "max_model_len": 1024, "logprobs": True})
    assert isinstance(backend, VLLMServerBackend)
    with closing(backend):
        yield backend


def test_greedy_completions_are_those_of_the_transformers_backend(
    spawned: VLLMServerBackend, hf_answers: Answers, questions: Questions
) -> None:
    hold_equal(by_key(spawned.generate(questions(COMPARED, GREEDY))), hf_answers, "vllm/tiny --spawn")


def test_token_log_probabilities_are_those_of_the_transformers_backend(
    spawned: VLLMServerBackend, hf_answers: Answers, questions: Questions
) -> None:
    found = by_key(spawned.generate(questions(COMPARED, GREEDY)))
    hold_close(found, hf_answers, "vllm/tiny --spawn")


def test_drawn_completions_are_those_of_the_engine_in_this_process(
    spawned: VLLMServerBackend, vllm_tiny: VLLMBackend, questions: Questions
) -> None:
    asked = questions(12, Sampling(temperature=1.2, max_tokens=120, n=4, seed=7))
    served, offline = by_key(spawned.generate(asked)), by_key(vllm_tiny.generate(asked))
    same = sum(served[key].text == one.text for key, one in offline.items())
    report(f"vllm/tiny --spawn, drawn: {same} of {len(offline)} completions are those of the engine in this process")
    assert same >= 0.9 * len(offline)


def test_a_question_with_a_control_token_fails_as_without_a_server(
    spawned: VLLMServerBackend, ask: Callable[..., list[Request]]
) -> None:
    plain, other = ask([(84, 84)] * 2)
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "<|im_end|>"}]}
    found = by_key(spawned.generate([replace(plain, messages=[message]), other]))
    errors = [found[request.sample.id, 0].error for request in (plain, other)]
    assert errors == ["the question contains '<|im_end|>', a control token of the model", None]


def test_one_server_answers_everything(spawned: VLLMServerBackend, questions: Questions) -> None:
    first, second = (by_key(spawned.generate(questions(4, GREEDY))) for _ in range(2))
    assert {key: facts(one) for key, one in first.items()} == {key: facts(one) for key, one in second.items()}
    assert spawned.starts == 1


def test_a_server_that_cannot_start_is_told_with_its_own_words(vllm_is_here: None, questions: Questions) -> None:
    backend = load_backend("vllm/tiny", {"spawn": True, "max_model_len": 1_000_000})
    told = r"(?s)the server ended by itself.*max_model_len"
    with closing(backend), pytest.raises(BackendError, match=told) as refused:
        list(backend.generate(questions(1, GREEDY)))
    log = next(word for word in str(refused.value).split() if word.endswith(".log:")).removesuffix(":")
    Path(log).unlink()


def test_a_dry_run_starts_no_server(vllm_is_here: None) -> None:
    backend = load_backend("vllm/tiny", {"spawn": True})
    assert isinstance(backend, VLLMServerBackend)
    assert backend.identity()["served"] is True
    assert backend.profile() is not None
    assert list(backend.generate([])) == []
    assert backend.starts == 0
