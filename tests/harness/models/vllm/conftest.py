"""Tests with vLLM itself, on the CPU, as `make test-vllm` runs them. Where vLLM is not installed, they are skipped.

An engine takes many seconds to start, so that tests share one wherever what they ask allows it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from types import ModuleType

import pytest

from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Completion, Request, Sampling
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.models.vllm import VLLMBackend
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.profiles import QWEN2_VL

ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # on a CPU: no worker process beside the engine's own
}


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_COMPARING = _load(Path(__file__).with_name("comparing.py"), "comparing")


@pytest.fixture(scope="session", autouse=True)
def vllm_is_here() -> Iterator[None]:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("needs vLLM, which is not installed here; `make test-vllm` builds an environment with it")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="session")
def vllm_tiny(vllm_is_here: None, sample_cache: Path) -> Iterator[VLLMBackend]:
    """The bundled model; its engine starts at the first question and serves all tests."""
    backend = load_backend("vllm/tiny", {"max_model_len": 1024})
    assert isinstance(backend, VLLMBackend)
    with closing(backend):
        yield backend


@pytest.fixture(scope="session")
def questions(sample_cache: Path) -> Callable[..., list[Request]]:
    """The first questions of a task's sample data, all of whose completions are asked."""

    def make(
        count: int, sampling: Sampling, task: str = "lvis_fewshot", profile: ModelProfile = QWEN2_VL
    ) -> list[Request]:
        asked = get_task(task)
        return [
            Request(asked, sample, n, asked.messages(sample, profile), profile, sampling)
            for sample in islice(asked.load(DataSpec()).samples(), count)
            for n in range(sampling.n)
        ]

    return make


@pytest.fixture(scope="session")
def hf_answers(questions: Callable[..., list[Request]]) -> dict[tuple[str, int], Completion]:
    """What the transformers backend answers to the questions that the others are compared on."""
    with closing(HFBackend("tiny", {"device": "cpu", "logprobs": True})) as backend:
        found: dict[tuple[str, int], Completion] = _COMPARING.by_key(
            backend.generate(questions(_COMPARING.COMPARED, _COMPARING.GREEDY))
        )
        return found
