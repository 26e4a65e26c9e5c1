"""The checkpoint that a training starts from: found, profiled, loaded to learn, and what of it may learn."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.models.checkpoint import Checkpoint, find_checkpoint, hub_config, select_profile
from vrft_bench.harness.models.control_tokens import ANSWER_TAGS, ControlTokens
from vrft_bench.harness.models.hf_options import HFOptions
from vrft_bench.harness.models.pixel_limits import set_pixel_limits
from vrft_bench.harness.models.processor import build_processor
from vrft_bench.harness.models.weights import load_model
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.trainers.base import TrainConfig

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
_VISION = ("visual", "vision_tower", "vision_model")
"""Under one of these names transformers' vision-language models keep their image encoder."""


@dataclass(frozen=True)
class Base:
    """The checkpoint that a training starts from, and the profile that its boxes are written in.

    ``precision`` is that of the arithmetic. What learns in bf16 or fp16 is kept in 32 bits, or small steps would be
    rounded away; DeepSpeed does that itself. ``asked_pixels`` are the area limits that the user gave.
    """

    checkpoint: Checkpoint
    profile: ModelProfile
    precision: str
    asked_pixels: tuple[int | None, int | None] = (None, None)

    @property
    def folder(self) -> Path:
        """Where its files are; of a hub model, the local copy of the commit."""
        if self.checkpoint.is_folder:
            return Path(self.checkpoint.source)
        return hub_config(self.checkpoint.source, self.checkpoint.revision).parent

    @property
    def stated_limits(self) -> tuple[int, int] | None:
        """The area limits that checkpoints are to state: those of the profile, where the user gave one of them."""
        return None if self.asked_pixels == (None, None) else (self.profile.min_pixels, self.profile.max_pixels)

    def processor(self) -> Any:
        """A fresh processor that resizes within the profile's limits, and whose tokenizer hides no tag of an answer.

        Raises :class:`UserError` for a tokenizer that does: engines strip special tokens from completions before they
        are rewarded.
        """
        processor = build_processor(
            self.checkpoint.source, self.checkpoint.model_type, revision=self.checkpoint.revision
        )
        limits = (self.profile.min_pixels, self.profile.max_pixels)
        by_area = hasattr(processor.image_processor, "get_number_of_image_patches")
        set_pixel_limits(processor.image_processor, limits, given=limits if by_area else self.asked_pixels)
        special = set(ControlTokens.of(processor).special.values())
        if hidden := special & {*self.profile.think_tags, *ANSWER_TAGS}:
            raise UserError(
                f"the tokenizer of {self.checkpoint.name!r} marks {', '.join(sorted(hidden))} as special, so they are "
                "cut out of completions",
                fix="in tokenizer.json, set `special` of these added tokens to false",
            )
        return processor

    def opening(self, processor: Any) -> str:
        """The opening thinking tag, where the chat template writes it itself: completions then lack it."""
        text = processor.apply_chat_template(
            [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}],
            tokenize=False,
            add_generation_prompt=True,
        )
        tag = self.profile.think_tags[0]
        return tag if text.rstrip().endswith(tag) else ""

    def load(self, tokenizer: Any, *, adapters: bool, weights: Path | None = None) -> Any:
        """The model to train, on the CPU: the engine places it.

        With ``adapters`` the weights themselves do not learn. ``weights`` is a later checkpoint of the same
        architecture, to be gone on from.
        """
        whole = adapters or _keeps_own_masters()
        source = self.checkpoint if weights is None else Checkpoint(weights.name, str(weights))
        dtype = DTYPES[self.precision] if whole else "float32"
        model = load_model(source, HFOptions(), dtype, "cpu", tokenizer)
        # The reference model of a KL term is loaded from here, and adapters name what they belong to.
        model.config._name_or_path = self.checkpoint.source if adapters else str(self.folder)
        return model


def find_base(model: str, config: TrainConfig) -> Base:
    """The checkpoint ``model`` and its profile. Raises :class:`UserError` where no profile is known for it."""
    import torch

    checkpoint = find_checkpoint(model)
    if config.profile is not None:
        profile: ModelProfile | None = PROFILES.get(config.profile)
    else:
        profile = select_profile(checkpoint.model_type)
    if profile is None:
        raise UserError(
            f"no coordinate profile is known for model {model!r}: its truth cannot be written without one",
            fix=f"say which convention it speaks: --profile {' | '.join(PROFILES.names())}",
        )
    profile = replace(
        profile,
        min_pixels=config.min_pixels or profile.min_pixels,
        max_pixels=config.max_pixels or profile.max_pixels,
    )
    if profile.min_pixels > profile.max_pixels:
        raise UserError(
            f"min_pixels {profile.min_pixels} is above max_pixels {profile.max_pixels}",
            fix="give a --max-pixels of at least that, or a smaller min_pixels",
        )
    precision = config.precision or ("bf16" if torch.cuda.is_available() else "fp32")
    return Base(checkpoint, profile, precision, (config.min_pixels, config.max_pixels))


def freeze_vision(model: Any) -> None:
    """Leave the image encoder as it is. Raises :class:`UserError` for a model that has none under a known name."""
    for holder in (model, getattr(model, "model", None)):
        for name in _VISION:
            encoder = getattr(holder, name, None)
            if encoder is not None:
                encoder.requires_grad_(False)
                return
    raise UserError(
        f"--freeze-vision: {type(model).__name__} has no part called {' or '.join(_VISION)}",
        fix="leave the option out, or freeze it in a trainer of your own",
    )


def refuse_adapters_without_rank(config: TrainConfig) -> None:
    """Raise :class:`UserError` where something is said about adapters and there are none."""
    for name in ("lora_alpha", "lora_targets"):
        if config.lora_rank is None and getattr(config, name) is not None:
            raise UserError(f"{name} is given without lora_rank", fix="give --lora-rank too, say 64")


def lora_config(model: Any, config: TrainConfig) -> Any:
    """PEFT's configuration; ``None`` without a rank. Raises :class:`UserError` for names that match nothing.

    By default every linear layer of the language model gets adapters but the last one (``lm_head``), whose
    probabilities TRL computes by itself.
    """
    if config.lora_rank is None:
        return None
    import torch
    from peft import LoraConfig

    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    able = [name for name in linear if not name.endswith("lm_head")]
    if config.lora_targets is None:
        names = [name for name in able if not _in_vision(name)]
    else:
        names = [name for name in able if any(f".{name}".endswith(f".{target}") for target in config.lora_targets)]
        known = sorted({name.rsplit(".", 1)[-1] for name in able})
        for target in config.lora_targets:
            if not any(f".{name}".endswith(f".{target}") for name in able):
                raise UserError(
                    f"lora_targets: {target!r} names no linear layer that can have adapters"
                    f"{did_you_mean(target, known)}",
                    fix=f"name some of {', '.join(known)}",
                )
        if config.freeze_vision:
            names = [name for name in names if not _in_vision(name)]
    return LoraConfig(
        r=config.lora_rank,
        lora_alpha=config.lora_scale,
        target_modules=names,
    )


def checkpoint_bytes(model: Any) -> int:
    """What a checkpoint of ``model`` takes, ready to be trained: what learns, and AdamW's two moments of it.

    Weights and moments are counted with 4 bytes, as they are written. Without adapters, weights that do not learn are
    written too.
    """
    learning = sum(_numbers(parameter) for parameter in model.parameters() if parameter.requires_grad)
    written = learning if hasattr(model, "peft_config") else model_parameters(model)
    return 4 * (written + 2 * learning)


def model_parameters(model: Any) -> int:
    """How many numbers the model has, adapters included."""
    return sum(_numbers(parameter) for parameter in model.parameters())


def _numbers(parameter: Any) -> int:
    """How many numbers it has; ZeRO-3 leaves an empty one where it has cut it into parts."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _keeps_own_masters() -> bool:
    """Whether DeepSpeed trains: it keeps the weights in 32 bits beside the ones that it computes with."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"


def _in_vision(name: str) -> bool:
    return any(part in _VISION for part in name.split("."))
