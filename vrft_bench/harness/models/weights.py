"""The weights of a checkpoint, ready to generate under settings that only the run decides."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.checkpoint import Checkpoint
from vrft_bench.harness.models.hf_options import HFOptions
from vrft_bench.registry import failure_reason

NEUTRAL = {"do_sample": False, "num_beams": 1, "repetition_penalty": 1.0, "use_cache": True}
"""Generation settings of every run; sampling is done by our own noise before an argmax (see ``gumbel.py``)."""


def load_model(checkpoint: Checkpoint, options: HFOptions, dtype: str, device: str, tokenizer: Any) -> Any:
    """The model of ``checkpoint`` on ``device``, in evaluation mode, with a neutral generation config.

    Raises :class:`BackendError` for a config that describes no model, for weights that are absent, corrupt or
    incomplete, and for a model that does not fit the device.
    """
    from transformers import GenerationConfig

    try:
        model, missing = _read_weights(checkpoint, options, dtype, device)
        if missing:
            raise BackendError(
                f"hf/{checkpoint.name}: the weights lack {len(missing)} tensors of the model "
                f"({', '.join(missing[:3])}, ...), which transformers would fill with random numbers",
                fix="save the whole model, not a part of it, and check that config.json belongs to these weights",
            )
        model.generation_config = GenerationConfig(
            **NEUTRAL,
            eos_token_id=stop_tokens(model.generation_config.eos_token_id, tokenizer),
            pad_token_id=tokenizer.pad_token_id,
        )
        model.config.use_cache = True
        return model.eval()
    except UserError:
        raise
    except Exception as error:
        raise BackendError(
            f"hf/{checkpoint.name} cannot be loaded: {failure_reason(error)}",
            fix="check the folder's weights, config.json and generation_config.json; code that comes with a model "
            "needs --model-args trust_remote_code=true",
        ) from error


def _read_weights(checkpoint: Checkpoint, options: HFOptions, dtype: str, device: str) -> tuple[Any, list[str]]:
    """The model, and the names of the tensors that its files lack."""
    import torch
    from transformers import AutoModelForImageTextToText

    extra: dict[str, Any] = {}
    if options.attn_implementation:
        extra["attn_implementation"] = options.attn_implementation
    if device == "auto":
        extra["device_map"] = "auto"
    with no_progress_bars():
        model, info = AutoModelForImageTextToText.from_pretrained(
            checkpoint.source,
            revision=checkpoint.revision,
            dtype=getattr(torch, dtype),
            trust_remote_code=options.trust_remote_code,
            output_loading_info=True,
            **extra,
        )
    return model if device == "auto" else model.to(device), sorted(info["missing_keys"])


@contextlib.contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without transformers' bars for parts of a second."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def stop_tokens(declared: Any, tokenizer: Any) -> list[int]:
    """The end tokens that a checkpoint ``declared``, and the tokenizer's, which fine-tuned ones often forget to list.

    Raises :class:`BackendError` where one is no token id.
    """
    tokens = list(declared) if isinstance(declared, list | tuple) else [declared]
    tokens = [token for token in (*tokens, tokenizer.eos_token_id) if token is not None]
    for token in tokens:
        if type(token) is not int:
            raise BackendError(
                f"generation_config.json names the end token {token!r}, which is no token id",
                fix="write eos_token_id as a number or a list of numbers, as in the base model's file",
            )
    return list(dict.fromkeys(tokens))
