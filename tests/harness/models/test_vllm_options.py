"""The options of the vllm backend, and the arguments that vLLM is given for them; no vLLM is needed."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import fields
from pathlib import Path

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.checkpoint import find_checkpoint
from vrft_bench.harness.models.vllm_options import VLLMOptions, as_flags, engine_arguments

TINY = find_checkpoint("tiny", backend="vllm")


def arguments(device: str = "cuda", **options: object) -> dict[str, object]:
    return engine_arguments(VLLMOptions.parse(options), TINY, device, (3136, 401_408), 2048)


def test_what_is_given_reaches_the_engine_under_its_own_names() -> None:
    found = arguments(
        tp="2", dp=4, dtype="fp16", quantization="fp8", gpu_memory_utilization="0.8", max_num_seqs=64, kv_cache_gb="0.5"
    )
    assert found["model"] == TINY.source
    assert (found["tensor_parallel_size"], found["data_parallel_size"]) == (2, 4)
    assert (found["dtype"], found["quantization"], found["gpu_memory_utilization"]) == ("float16", "fp8", 0.8)
    assert (found["max_num_seqs"], found["max_model_len"], found["kv_cache_memory_bytes"]) == (64, 2048, 2**29)
    assert found["mm_processor_kwargs"] == {"size": {"shortest_edge": 3136, "longest_edge": 401_408}}
    assert found["generation_config"] == "vllm"
    assert found["enable_prefix_caching"] is True


def test_a_gpu_and_a_cpu_have_defaults_of_their_own() -> None:
    gpu, cpu = arguments("cuda"), arguments("cpu")
    assert (gpu["dtype"], gpu["enforce_eager"]) == ("bfloat16", False)
    assert "block_size" not in gpu
    assert "kv_cache_memory_bytes" not in gpu
    assert (cpu["dtype"], cpu["enforce_eager"], cpu["block_size"]) == ("float32", True, 32)
    assert cpu["kv_cache_memory_bytes"] == 2**30
    assert "kv_cache_memory_bytes" not in arguments("cpu", gpu_memory_utilization=0.5)


def test_without_a_length_vllm_takes_what_fits() -> None:
    assert engine_arguments(VLLMOptions(), TINY, "cuda", None, None)["max_model_len"] == -1
    assert "mm_processor_kwargs" not in engine_arguments(VLLMOptions(), TINY, "cuda", None, None)


def test_further_arguments_are_passed_on_as_they_are() -> None:
    found = arguments(engine_args='{"kv_cache_dtype": "fp8", "limit_mm_per_prompt": {"image": 2}}')
    assert found["kv_cache_dtype"] == "fp8"
    assert found["limit_mm_per_prompt"] == {"image": 2}


def test_a_servers_command_line_says_the_same() -> None:
    flags = as_flags({"max_model_len": -1, "enforce_eager": True, "async_scheduling": False, "size": {"a": 1}})
    assert flags == ["--max-model-len=-1", "--enforce-eager", "--no-async-scheduling", '--size={"a": 1}']


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"temperature": 1}, "an argument of vLLM itself goes into engine_args"),
        ({"max_model_length": 1}, "did you mean 'max_model_len'"),
        ({"tp": 0}, "tp=0 is not a positive whole number"),
        ({"gpu_memory_utilization": 90}, "gpu_memory_utilization=90 is not a number above 0 and at most 1"),
        ({"kv_cache_gb": "inf"}, "kv_cache_gb='inf' is not a number above 0"),
        ({"dtype": "float23"}, "dtype='float23' is not known"),
        ({"quantization": " "}, "quantization is empty"),
        ({"spawn": "maybe"}, "spawn='maybe' is neither true nor false"),
        ({"logprobs": "maybe"}, "logprobs='maybe' is neither true nor false"),
        ({"min_pixels": 2000, "max_pixels": 1000}, "min_pixels=2000 is above max_pixels=1000"),
        ({"engine_args": "{"}, "engine_args is not JSON"),
        ({"engine_args": "[1]"}, "engine_args is no JSON object"),
        ({"engine_args": {"--seed": 1}}, "engine_args holds '--seed', which is no argument of vLLM"),
        ({"engine_args": {"model": "x"}}, "engine_args sets model, which is set by --model"),
        ({"engine_args": {"generation_config": "auto"}}, "the run alone decides how text is drawn"),
        ({"engine_args": {"hf_token": "x"}}, "engine_args sets hf_token, which is set by the environment alone"),
        ({"engine_args": {"max_num_seqs": 4}}, "engine_args sets max_num_seqs, which -M max_num_seqs=VALUE sets"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as refused:
        VLLMOptions.parse(given)
    assert said in str(refused.value)
    assert refused.value.fix


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed here")
def test_without_vllm_the_backend_says_what_to_install() -> None:
    with pytest.raises(UserError, match=r"needs vllm.*not installed here") as refused:
        load_backend("vllm/tiny")
    assert "vrft-bench[vllm]" in str(refused.value)


def test_the_page_names_every_argument_and_no_other() -> None:
    page = (Path(__file__).parents[3] / "docs" / "backends" / "vllm.md").read_text()
    named = [name for row in re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted(item.name for item in fields(VLLMOptions))
