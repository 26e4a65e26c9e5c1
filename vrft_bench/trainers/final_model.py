"""The result of a training: one whole model, adapters merged, in the training's precision, ready to be evaluated."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from vrft_bench.harness.models.checkpoint import Checkpoint
from vrft_bench.harness.models.hf_options import HFOptions
from vrft_bench.harness.models.weights import load_model, no_progress_bars
from vrft_bench.trainers.base_model import DTYPES, Base
from vrft_bench.trainers.folder import carry_over
from vrft_bench.trainers.processes import is_first, wait_for_all


def gather_final(trainer: Any, final: Path, base: Base) -> None:
    """Write the model that ``trainer`` holds to ``final``. Every process has a part in it; the first one writes."""
    raw = final.with_name(f".{final.name}-raw")
    if is_first():
        shutil.rmtree(raw, ignore_errors=True)
    wait_for_all()
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(raw))
    if is_first():
        write_final(raw, final, base, trainer.processing_class.tokenizer)
        shutil.rmtree(raw)
    wait_for_all()


def write_final(source: Path, final: Path, base: Base, tokenizer: Any) -> None:
    """Write what ``source`` holds (a whole model, or adapters of ``base``) to ``final``."""
    save_final(_loaded(source, base, tokenizer), final, base)


def save_final(model: Any, final: Path, base: Base) -> None:
    """Write ``model`` and all that evaluating it needs to ``final``, which appears when it is done."""
    whole = final.with_name(f".{final.name}-whole")
    shutil.rmtree(whole, ignore_errors=True)
    with no_progress_bars():
        model.save_pretrained(whole)
    carry_over(base.folder, whole, base.stated_limits)
    whole.rename(final)


def is_last_step(checkpoint: Path) -> bool:
    """Whether nothing is left to train after ``checkpoint``: transformers' Trainer would take one step too many."""
    state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
    return bool(state["global_step"] >= state["max_steps"])


def _loaded(source: Path, base: Base, tokenizer: Any) -> Any:
    from transformers.integrations import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # with ZeRO-3's, loading would wait for the other processes to load their parts
    dtype = DTYPES[base.precision]
    if not (source / "adapter_config.json").is_file():
        return load_model(Checkpoint(source.name, str(source)), HFOptions(), dtype, "cpu", tokenizer)
    from peft import PeftModel

    model = load_model(base.checkpoint, HFOptions(), dtype, "cpu", tokenizer)
    return PeftModel.from_pretrained(model, str(source)).merge_and_unload()
