"""Replicas on a Ray cluster that each hold a vLLM engine answer as an engine in this process does."""

from __future__ import annotations

import importlib.util
from contextlib import closing
from pathlib import Path

import pytest
from comparing import COMPARED, GREEDY, Answers, Questions, by_key, hold_equal

from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Workload
from vrft_bench.harness.models.ray_replicas import RayBackend

pytestmark = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra [ray]")


def test_a_replica_with_an_engine_gives_the_answers_of_the_transformers_backend(
    vllm_is_here: None, sample_cache: Path, hf_answers: Answers, questions: Questions
) -> None:
    with closing(RayBackend("vllm/tiny", {}, replicas=1)) as backend:
        backend.anticipate(Workload(700, 20, GREEDY.max_tokens))
        assert backend.identity() == load_backend("vllm/tiny").identity()
        hold_equal(by_key(backend.generate(questions(COMPARED, GREEDY))), hf_answers, "vllm/tiny --executor ray")
