"""A training on TRL from its first check to its result; what the SFT and GRPO trainers share.

Everything heavy is imported inside. TRL's own classes train, and nothing here changes what they compute.

Resuming is exact: the steps after a checkpoint are those of the undisturbed training, bit by bit where the device
computes alike twice. Two things that the engine does not do are done here. Weights are loaded from the checkpoint by
their names in its files, where transformers' Trainer (5.19) looks for the names of modules: Qwen-VL's differ, and every
weight would silently stay that of the base model. And the order of samples in an epoch follows from seed and epoch
alone, where TRL's (1.16) follows from how many epochs this process has begun.
"""

from __future__ import annotations

import contextlib
import logging
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vrft_bench.errors import RunInterrupted, UserError
from vrft_bench.harness.models.checkpoint import BUNDLED
from vrft_bench.harness.plan import RunPlan, make_plan
from vrft_bench.tasks.base import Task
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.trainers.base import PATHS, TrainConfig
from vrft_bench.trainers.base_model import (
    DTYPES,
    Base,
    checkpoint_bytes,
    find_base,
    freeze_vision,
    lora_config,
    model_parameters,
    refuse_adapters_without_rank,
)
from vrft_bench.trainers.callbacks import training_callbacks
from vrft_bench.trainers.data import TrainingRows, check_grids, training_dataset, training_rows
from vrft_bench.trainers.folder import TrainingFolder, TrainingRecord, carry_over, checkpoints, require_space, step_of
from vrft_bench.trainers.interrupts import Interrupts
from vrft_bench.trainers.processes import is_first, process_count, told_by_first, wait_for_all
from vrft_bench.trainers.progress import say
from vrft_bench.trainers.stop import raise_if_stopped, refuse_stopped
from vrft_bench.trainers.trl_arguments import require_trl


@dataclass(frozen=True)
class Ready:
    """A training that is ready for its engine. ``task`` is under its protocol; ``rows`` are what it trains on."""

    task: Task
    base: Base
    rows: TrainingRows
    processor: Any
    engine: dict[str, Any]
    """Arguments that every trainer of TRL takes."""


class MakeArguments(Protocol):
    """Gives TRL's arguments for a training."""

    def __call__(self, task: Task, base: Base, config: TrainConfig) -> Any: ...


def train_on_trl(
    task: Task,
    model: str,
    config: TrainConfig,
    *,
    arguments: MakeArguments,
    engine: Callable[[Ready], Any],
    gold: bool = False,
) -> Path:
    """Train ``model`` on ``task``; the folder of the result. With ``gold`` the rows hold the completions to learn.

    Goes on from the last whole checkpoint in ``config.output_dir``. Raises :class:`UserError` for whatever the user can
    mend, and :class:`RunInterrupted` on Ctrl-C and SIGTERM, which save a checkpoint first.
    """
    base, plan = _planned(task, model, config)
    rows = training_rows(plan, config.manifest, gold=gold)
    made = arguments(plan.task, base, config)
    require_enough(rows, made)
    require_whole_states(config, made)
    with _opened(training_record(plan, base, config, process_count()), config) as folder, _quiet_libraries():
        final, last = told_by_first(lambda: _where_it_stands(folder, config))
        if final is not None:
            return final
        processor = base.processor()
        check_grids(rows, base.profile, processor)
        adapters = config.lora_rank is not None
        loaded = base.load(processor.tokenizer, adapters=adapters, weights=None if adapters else last)
        if config.freeze_vision:
            freeze_vision(loaded)
        interrupts = Interrupts()
        shared = {
            "model": loaded,
            "args": made,
            "train_dataset": training_dataset(rows, base.profile),
            "processing_class": processor,
            "peft_config": lora_config(loaded, config),
            "callbacks": training_callbacks(plan.task, base, config, folder, interrupts, save_unit(made)),
        }
        trainer = engine(Ready(plan.task, base, rows, processor, shared))
        if is_first():
            require_space(config.output_dir, _space(trainer.model, config) - _held(config.output_dir))
        return _run(trainer, folder, base, config, interrupts, last)


def check_on_trl(task: Task, model: str, config: TrainConfig, *, processes: int) -> None:
    """Raise :class:`UserError` for what would end the training at once, as far as it shows without an engine."""
    base, plan = _planned(task, model, config)
    training_rows(plan, config.manifest)
    folder = config.output_dir.expanduser().absolute()
    made = not folder.exists()
    TrainingFolder(folder, training_record(plan, base, config, processes)).close()
    if made:
        shutil.rmtree(folder)


def _planned(task: Task, model: str, config: TrainConfig) -> tuple[Base, RunPlan]:
    require_trl(config)
    refuse_adapters_without_rank(config)
    base = find_base(model, config)
    return base, make_plan(task, base.profile, config.run_config())


def save_unit(arguments: Any) -> int:
    """After how many steps TRL's state is all in a checkpoint: where it has no completions left to train on."""
    every = getattr(arguments, "steps_per_generation", 1) * getattr(arguments, "num_iterations", 1)
    return math.lcm(every, arguments.gradient_accumulation_steps) // arguments.gradient_accumulation_steps


def require_whole_states(config: TrainConfig, arguments: Any) -> None:
    """Raise :class:`UserError` where a checkpoint would be saved with completions left, which it cannot hold."""
    unit = save_unit(arguments)
    if config.save_every % unit:
        raise UserError(
            f"save_every {config.save_every} is not a multiple of {unit}: the engine trains {unit} steps on the same "
            "completions, and a checkpoint between them could not be gone on from",
            fix=f"give --save-every {math.ceil(config.save_every / unit) * unit}",
        )


def require_enough(rows: TrainingRows, arguments: Any) -> None:
    """Raise :class:`UserError` where the rows do not fill one step: TRL drops what does not, and would train nothing."""
    group = getattr(arguments, "num_generations", None)
    if group is None:
        return
    prompts = arguments.generation_batch_size // group
    if len(rows) < prompts:
        raise UserError(
            f"a step takes {prompts} prompts of {group} completions, and {len(rows)} are selected",
            fix=f"give a --batch-size of at most {len(rows) * group // process_count()}, or more prompts",
        )


def training_record(plan: RunPlan, base: Base, config: TrainConfig, processes: int) -> TrainingRecord:
    """The record of this training. Its identity is the content that decides what comes out of ``processes`` together."""
    parts = plan.identity({**base.checkpoint.fingerprint, "precision": base.precision})
    del parts["sampling"]  # of an evaluation; a trainer's own is among its hyperparameters
    identity = {
        "trainer": config.trainer,
        **parts,
        "hyperparameters": config.hyperparameters().given(),
        "engine_args": dict(config.engine_args),
        "manifest": None if config.manifest is None else config.manifest.read_text(encoding="utf-8"),
        "processes": processes,
        "seed": config.seed,
    }
    # Whole paths: the record is read from anywhere, by `watch` and by `train --config`.
    model = str(base.folder.absolute()) if base.checkpoint.is_folder and config.model not in BUNDLED else config.model
    places = {name: path.absolute() for name in PATHS if (path := getattr(config, name)) is not None}
    chosen = config.model_copy(update={"model": model, **places}).model_dump(mode="json", exclude_defaults=True)
    return TrainingRecord.of(config.trainer, plan.task.name, model, identity, chosen)


def opening_of(processor: Any, profile: ModelProfile) -> str:
    """The opening thinking tag, where the chat template writes it itself: completions then lack it."""
    text = processor.apply_chat_template(
        [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "?"}]}],
        tokenize=False,
        add_generation_prompt=True,
    )
    opening = profile.think_tags[0]
    return opening if text.rstrip().endswith(opening) else ""


@contextlib.contextmanager
def _opened(record: TrainingRecord, config: TrainConfig) -> Iterator[TrainingFolder | None]:
    """The training's folder in the first process, ``None`` in the others."""
    held: list[TrainingFolder] = []
    told_by_first(lambda: held.append(TrainingFolder(config.output_dir.expanduser().absolute(), record)))
    try:
        yield held[0] if held else None
    finally:
        for folder in held:
            folder.close()


def _where_it_stands(folder: TrainingFolder | None, config: TrainConfig) -> tuple[Path | None, Path | None]:
    """The result, where there is one, and the checkpoint to go on from."""
    assert folder is not None, "only the first process looks"
    if folder.final.is_dir():
        say(f"finished already, at step {folder.record.step}: {folder.folder}")
        return folder.final, None
    refuse_stopped(folder.folder)
    last = folder.last_checkpoint()
    if last is not None and not config.resume:
        raise UserError(
            f"{folder.folder} has been trained for {step_of(last)} steps, and --no-resume would begin anew",
            fix="give a new --output-dir, or leave out --no-resume",
        )
    if last is not None:
        say(f"resuming {folder.folder} from step {step_of(last)}")
    return None, last


def _run(
    trainer: Any,
    folder: TrainingFolder | None,
    base: Base,
    config: TrainConfig,
    interrupts: Interrupts,
    last: Path | None,
) -> Path:
    """Train to the end and save the result. Whatever ends it, the same command goes on from the last checkpoint."""
    _forget_printer(trainer)
    status = "failed"
    if folder is not None:
        folder.begin_session()
    try:
        with interrupts.heeded():
            result = trainer.train(resume_from_checkpoint=None if last is None else str(last))
        steps = trainer.state.max_steps
        if result.global_step < steps:
            status = "interrupted"
            raise_if_stopped(config.output_dir, result.global_step)
            raise _interrupted(config.output_dir, steps)
        if not math.isfinite(result.training_loss):
            raise UserError(
                f"the loss is {result.training_loss} after {result.global_step} steps",
                fix="try a lower --learning-rate",
            )
        final = config.output_dir.expanduser().absolute() / "final"
        save_final(trainer, final, base)
        status = "complete"
        return final
    except KeyboardInterrupt:
        status = "interrupted"
        raise _interrupted(config.output_dir, trainer.state.max_steps) from None
    finally:
        if folder is not None:
            step = trainer.state.global_step if status == "complete" else folder.record.step
            folder.update(status=status, step=step)


def save_final(trainer: Any, final: Path, base: Base) -> None:
    """Write the whole model (adapters merged) in the training's precision, with all that evaluating it needs.

    Every process has a part in gathering it; the first one writes. The folder appears when it is done.
    """
    raw, whole = (final.with_name(f".{final.name}-{part}") for part in ("raw", "whole"))
    if is_first():
        for left in (raw, whole):
            shutil.rmtree(left, ignore_errors=True)
    wait_for_all()
    if trainer.is_fsdp_enabled:
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    trainer.save_model(str(raw))
    if is_first():
        model = _as_evaluated(raw, base, trainer.processing_class.tokenizer)
        model.save_pretrained(whole)
        carry_over(base.folder, whole)
        whole.rename(final)
        shutil.rmtree(raw)
    wait_for_all()


def _as_evaluated(raw: Path, base: Base, tokenizer: Any) -> Any:
    from transformers.integrations import unset_hf_deepspeed_config

    from vrft_bench.harness.models.checkpoint import Checkpoint
    from vrft_bench.harness.models.hf_options import HFOptions
    from vrft_bench.harness.models.weights import load_model

    unset_hf_deepspeed_config()  # with ZeRO-3's, loading would wait for the other processes to load their parts
    dtype = DTYPES[base.precision]
    if not (raw / "adapter_config.json").is_file():
        return load_model(Checkpoint(raw.name, str(raw)), HFOptions(), dtype, "cpu", tokenizer)
    from peft import PeftModel

    model = load_model(base.checkpoint, HFOptions(), dtype, "cpu", tokenizer)
    return PeftModel.from_pretrained(model, str(raw)).merge_and_unload()


def _interrupted(output_dir: Path, steps: int) -> RunInterrupted:
    kept = checkpoints(output_dir)
    where = f"step {step_of(kept[-1])} of {steps} is kept in {kept[-1]}" if kept else "no checkpoint was saved yet"
    return RunInterrupted(
        f"interrupted: {where}", fix="repeat the same command: it goes on from there" if kept else "repeat the command"
    )


def _space(model: Any, config: TrainConfig) -> int:
    """Bytes of all that lies in the folder at once: checkpoints, one more while it is written, and the result twice."""
    kept = math.ceil((config.steps or 1) / config.save_every) if config.keep is None else config.keep
    return (kept + 1) * checkpoint_bytes(model) + 2 * 4 * model_parameters(model)


def _held(folder: Path) -> int:
    """Bytes that its checkpoints take already."""
    return sum(file.stat().st_size for checkpoint in checkpoints(folder) for file in checkpoint.glob("*"))


def _forget_printer(trainer: Any) -> None:
    """Our own line per step takes the place of the printed dictionaries."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)


@contextlib.contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No progress bars for parts of a second, and no warning that weights have other names: they are loaded already."""
    from transformers.utils import logging as theirs

    def is_news(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith(("There were missing keys", "There were unexpected keys"))

    shown = theirs.is_progress_bar_enabled()
    trainer_log = logging.getLogger("transformers.trainer")
    theirs.disable_progress_bar()
    trainer_log.addFilter(is_news)
    try:
        yield
    finally:
        trainer_log.removeFilter(is_news)
        if shown:
            theirs.enable_progress_bar()
