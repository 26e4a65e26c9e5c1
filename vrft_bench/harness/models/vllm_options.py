"""What a user may say to ``vllm/NAME``, read and checked in one place, and the arguments that vLLM is given for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.models.checkpoint import Checkpoint
from vrft_bench.harness.models.hf_options import dtype_name, flag, positive
from vrft_bench.harness.models.pixel_limits import EDGES

CPU_BLOCK = 32
"""Tokens per block of the KV cache on a CPU. vLLM's own 128 would keep short questions out of the prefix cache."""

_MANAGED = {
    "model": "--model",
    "generation_config": "nothing: the run alone decides how text is drawn",
    "tensor_parallel_size": "--tp",
    "data_parallel_size": "--dp",
    "mm_processor_kwargs": "-M min_pixels=N,max_pixels=M",
    "kv_cache_memory_bytes": "-M kv_cache_gb=N",
    "tokenizer_revision": "-M revision=NAME",
    "code_revision": "-M revision=NAME",
    "enable_prefix_caching": "nothing: it is always on",
    "hf_token": "the environment alone: export HF_TOKEN=...",
    "disable_log_stats": "nothing: it is always off",
}
"""Arguments of the engine that ``engine_args`` may not set, and what sets them."""


@dataclass(frozen=True, slots=True)
class VLLMOptions:
    """Options of ``vllm/NAME``; ``None`` leaves the choice to the backend or to vLLM.

    * ``tp``: GPUs that one engine is spread over; ``dp``: engines side by side.
    * ``spawn``: run a server in a process of its own, and ask that.
    * ``max_concurrent``: most completions in flight; ``None``: what the engine runs at once, and a few that wait.
    * ``dtype``: bfloat16 on GPUs, float32 on CPUs. ``quantization``, ``gpu_memory_utilization``, ``max_num_seqs``: as
      vLLM takes them.
    * ``max_model_len``: most tokens of question and answer together; by default what the longest question needs.
    * ``kv_cache_gb``: memory for the KV cache; on CPUs 1 GiB by default.
    * ``enforce_eager``: no compilation; on CPUs by default. ``block_size``: tokens per block of the KV cache.
    * ``min_pixels``, ``max_pixels``: area limits of the resized image, in place of the profile's.
    * ``revision``: branch, tag or commit of a hub model. ``trust_remote_code``: run code that comes with it.
    * ``structured``: the engine may write nothing but the answer format (``--structured on``).
    * ``logprobs``: completions come with the log-probabilities of their tokens.
    * ``engine_args``: JSON object of further arguments, by the names of vLLM's ``EngineArgs``.
    * ``start_timeout``: seconds that a server may take to start.
    """

    tp: int = 1
    dp: int = 1
    spawn: bool = False
    max_concurrent: int | None = None
    dtype: str | None = None
    quantization: str | None = None
    gpu_memory_utilization: float | None = None
    max_num_seqs: int | None = None
    max_model_len: int | None = None
    kv_cache_gb: float | None = None
    enforce_eager: bool | None = None
    block_size: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    revision: str | None = None
    trust_remote_code: bool = False
    structured: bool = False
    logprobs: bool = False
    engine_args: Mapping[str, Any] = field(default_factory=dict)
    start_timeout: float = 1800.0

    @classmethod
    def parse(cls, args: Mapping[str, object]) -> VLLMOptions:
        """Options from strings or JSON values. Raises :class:`UserError` for an unknown name or a bad value."""
        known = [item.name for item in fields(cls)]
        for name in args:
            if name not in known:
                raise UserError(
                    f"the vllm backend has no argument {name!r}{did_you_mean(name, known)}",
                    fix=f"--model-args takes: {', '.join(known)}; an argument of vLLM itself goes into engine_args",
                )
        options = cls(**{name: _READERS[name](name, value) for name, value in args.items() if value is not None})
        if options.min_pixels and options.max_pixels and options.min_pixels > options.max_pixels:
            raise UserError(
                f"min_pixels={options.min_pixels} is above max_pixels={options.max_pixels}",
                fix="give a min_pixels that is not above max_pixels",
            )
        return options


def engine_arguments(
    options: VLLMOptions, checkpoint: Checkpoint, device: str, limits: tuple[int, int] | None, max_model_len: int | None
) -> dict[str, Any]:
    """Arguments by the names of vLLM's ``EngineArgs``, for an engine in this process or a server's command line.

    ``device`` is ``cpu`` or ``cuda``, ``limits`` are the smallest and the largest area of an image. Without a
    ``max_model_len`` vLLM takes the longest that fits into memory.
    """
    on_cpu = device == "cpu"
    kv_cache_gb = options.kv_cache_gb or (1.0 if on_cpu and options.gpu_memory_utilization is None else None)
    arguments = {
        "model": checkpoint.source,
        "revision": checkpoint.revision,
        "tokenizer_revision": checkpoint.revision,
        "code_revision": checkpoint.revision,
        "trust_remote_code": options.trust_remote_code or None,
        "dtype": engine_dtype(options, device),
        "quantization": options.quantization,
        "generation_config": "vllm",  # neutral: what the checkpoint's own file says about sampling is set aside
        "tensor_parallel_size": options.tp,
        "data_parallel_size": options.dp,
        "gpu_memory_utilization": options.gpu_memory_utilization,
        "kv_cache_memory_bytes": None if kv_cache_gb is None else int(kv_cache_gb * 2**30),
        "max_num_seqs": options.max_num_seqs,
        "max_model_len": max_model_len or -1,
        "enforce_eager": on_cpu if options.enforce_eager is None else options.enforce_eager,
        "block_size": options.block_size or (CPU_BLOCK if on_cpu else None),
        "enable_prefix_caching": True,
        "limit_mm_per_prompt": {"image": 1, "video": 0},
        "mm_processor_kwargs": None if limits is None else {"size": dict(zip(EDGES, limits, strict=True))},
        "disable_log_stats": True,
    }
    return {name: value for name, value in arguments.items() if value is not None} | dict(options.engine_args)


def engine_dtype(options: VLLMOptions, device: str) -> str:
    return options.dtype or ("float32" if device == "cpu" else "bfloat16")


def as_flags(arguments: Mapping[str, Any]) -> list[str]:
    """``arguments`` as a server's command line takes them: ``--max-model-len=4096 --enforce-eager``."""
    flags = []
    for name, value in arguments.items():
        words = name.replace("_", "-")
        if isinstance(value, bool):
            flags.append(f"--{words}" if value else f"--no-{words}")
        else:
            flags.append(f"--{words}={json.dumps(value) if isinstance(value, dict | list) else value}")
    return flags


def _text(name: str, value: object) -> str:
    text = str(value).strip()
    if not text:
        raise UserError(f"{name} is empty", fix=f"write {name}=VALUE, or leave it out")
    return text


def _above_zero(name: str, value: object, most: float = float("inf")) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = 0.0
    if not 0.0 < number <= most or number == float("inf"):
        limit = "" if most == float("inf") else f" and at most {most:g}"
        raise UserError(f"{name}={value!r} is not a number above 0{limit}", fix=f"write {name}=NUMBER")
    return number


def _share(name: str, value: object) -> float:
    return _above_zero(name, value, 1.0)


def _engine_args(name: str, value: object) -> Mapping[str, Any]:
    example = """write, say, -M 'engine_args={"kv_cache_dtype": "fp8"}'"""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError as error:
            raise UserError(f"{name} is not JSON: {error}", fix=example) from None
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise UserError(f"{name} is no JSON object", fix=example)
    own = {item.name for item in fields(VLLMOptions)}
    for key in value:
        if key in _MANAGED:
            raise UserError(f"{name} sets {key}, which is set by {_MANAGED[key]}", fix=f"leave {key} out of {name}")
        if key in own:
            raise UserError(f"{name} sets {key}, which -M {key}=VALUE sets", fix=f"write -M {key}={value[key]}")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", key):
            raise UserError(f"{name} holds {key!r}, which is no argument of vLLM", fix=example)
    return dict(value)


_READERS: dict[str, Any] = {
    "tp": positive,
    "dp": positive,
    "spawn": flag,
    "max_concurrent": positive,
    "dtype": lambda _, value: dtype_name(value),
    "quantization": _text,
    "gpu_memory_utilization": _share,
    "max_num_seqs": positive,
    "max_model_len": positive,
    "kv_cache_gb": _above_zero,
    "enforce_eager": flag,
    "block_size": positive,
    "min_pixels": positive,
    "max_pixels": positive,
    "revision": _text,
    "trust_remote_code": flag,
    "structured": flag,
    "logprobs": flag,
    "engine_args": _engine_args,
    "start_timeout": _above_zero,
}
