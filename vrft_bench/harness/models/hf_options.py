"""The ``--model-args`` of the transformers backend, read and checked in one place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from vrft_bench.errors import UserError, did_you_mean

DTYPES = ("bfloat16", "float16", "float32")
_SHORT_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "half": "float16", "fp32": "float32", "float": "float32"}


@dataclass(frozen=True, slots=True)
class HFOptions:
    """Options of ``hf/NAME``; ``None`` leaves the choice to the backend.

    ``batch_size``: requests per forward pass (16 on CPU, 64 on GPU, halved when memory runs out). ``dtype``: bfloat16
    on GPU, float32 on CPU. ``device``: ``cuda`` where there is one, else ``cpu``; ``auto`` spreads a large model over
    all GPUs, and is ``cpu`` where there is none. ``attn_implementation``: as transformers takes it. ``min_pixels`` and
    ``max_pixels``: area limits of the resized image, in place of the profile's. ``revision``: branch, tag or commit of
    a hub model. ``logprobs``: completions come with the log-probabilities of their tokens.
    """

    batch_size: int | None = None
    dtype: str | None = None
    device: str | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False
    min_pixels: int | None = None
    max_pixels: int | None = None
    revision: str | None = None
    logprobs: bool = False

    @classmethod
    def parse(cls, args: Mapping[str, object]) -> HFOptions:
        """Options from strings or JSON values. Raises :class:`UserError` for an unknown name or a bad value."""
        known = [field.name for field in fields(cls)]
        for name in args:
            if name not in known:
                raise UserError(
                    f"the hf backend has no argument {name!r}{did_you_mean(name, known)}",
                    fix=f"--model-args takes: {', '.join(known)}",
                )
        values: dict[str, Any] = {name: value for name, value in args.items() if value is not None}
        for name in ("batch_size", "min_pixels", "max_pixels"):
            if name in values:
                values[name] = positive(name, values[name])
        for name in ("trust_remote_code", "logprobs"):
            if name in values:
                values[name] = flag(name, values[name])
        if "dtype" in values:
            values["dtype"] = dtype_name(values["dtype"])
        for name in ("device", "attn_implementation", "revision"):
            if name in values:
                values[name] = str(values[name])
        options = cls(**values)
        if options.min_pixels and options.max_pixels and options.min_pixels > options.max_pixels:
            raise UserError(
                f"min_pixels={options.min_pixels} is above max_pixels={options.max_pixels}",
                fix="give a min_pixels that is not above max_pixels",
            )
        return options


def resolve_device(given: str | None) -> str:
    """Where a model runs: ``cpu``, ``cuda``, ``cuda:1``, ..., or ``auto`` for all GPUs of a machine that has some.

    Raises :class:`UserError` for a device that torch does not know, and for one that is not here.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if given is None or given == "auto":
        return (given or "cuda") if gpus else "cpu"
    try:
        device = torch.device(given)
    except RuntimeError:
        raise UserError(
            f"device={given!r} is not a device of torch", fix="write device=cpu, cuda, cuda:0, or auto for all GPUs"
        ) from None
    if device.type == "cuda" and (device.index or 0) >= gpus:
        there = f"only {gpus} CUDA GPU(s)" if gpus else "no CUDA GPU"
        why = "" if torch.version.cuda else " (it is a build without CUDA)"
        raise UserError(
            f"device={given!r}: torch {torch.__version__} finds {there} here{why}",
            fix="leave device out to take what there is, or install a torch build for this machine's CUDA driver",
        )
    return given


def device_type(device: str) -> str:
    """``cpu``, ``cuda``, ... of what :func:`resolve_device` gave."""
    import torch

    return "cuda" if device == "auto" else torch.device(device).type


def positive(name: str, value: object) -> int:
    """``value`` as a whole number above 0. Raises :class:`UserError`."""
    try:
        number = int(str(value).replace("_", ""))
    except ValueError:
        number = 0
    if number < 1:
        raise UserError(
            f"{name}={value!r} is not a positive whole number", fix=f"write {name}=NUMBER, such as {name}=16"
        )
    return number


def flag(name: str, value: object) -> bool:
    """``value`` as true or false. Raises :class:`UserError`."""
    match str(value).lower():
        case "true" | "1" | "yes":
            return True
        case "false" | "0" | "no":
            return False
    raise UserError(f"{name}={value!r} is neither true nor false", fix=f"write {name}=true or {name}=false")


def dtype_name(value: object) -> str:
    """``value`` as one of ``DTYPES``. Raises :class:`UserError`."""
    name = str(value).removeprefix("torch.").lower()
    name = _SHORT_DTYPES.get(name, name)
    if name not in DTYPES:
        raise UserError(f"dtype={value!r} is not known{did_you_mean(name, DTYPES)}", fix=f"use {', '.join(DTYPES)}")
    return name
