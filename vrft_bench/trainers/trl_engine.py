"""A training on TRL from its first check to its result; what the SFT and GRPO trainers share.

Everything heavy is imported inside. TRL's own classes train, and nothing here changes what they compute.

Resuming is exact: the steps after a checkpoint are those of the undisturbed training, bit by bit where the device
computes alike twice. Two things that the engine does not do are done here. Weights are loaded from the checkpoint by
their names in its files, where transformers' Trainer looks for the names of modules: Qwen-VL's differ, and every weight
would silently stay that of the base model (transformers#43701, open as of 5.19). And the order of samples in an epoch
follows from seed and epoch alone, where TRL's GRPO (1.16) has it follow from how many epochs this process has begun.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vrft_bench.errors import RunInterrupted, UserError
from vrft_bench.harness.plan import RunPlan, make_plan
from vrft_bench.tasks.base import Task
from vrft_bench.trainers.base import TrainConfig
from vrft_bench.trainers.base_model import (
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
from vrft_bench.trainers.final_model import gather_final, is_last_step, write_final
from vrft_bench.trainers.folder import (
    FINAL,
    TrainingFolder,
    TrainingRecord,
    checkpoints,
    is_whole,
    require_space,
    step_of,
)
from vrft_bench.trainers.identity import training_record
from vrft_bench.trainers.interrupts import Interrupts
from vrft_bench.trainers.processes import is_first, process_count, told_by_first
from vrft_bench.trainers.progress import say
from vrft_bench.trainers.stop import raise_if_stopped, refuse_stopped
from vrft_bench.trainers.trl_arguments import require_trl, require_whole_states, save_unit

MakeArguments = Callable[[Task, Base, TrainConfig], Any]
"""Gives TRL's arguments for a training."""
MakeEngine = Callable[[Task, Base, dict[str, Any]], Any]
"""Gives TRL's trainer; the last argument holds what all of them take."""


def train_on_trl(
    task: Task, model: str, config: TrainConfig, arguments: MakeArguments, engine: MakeEngine, *, gold: bool = False
) -> Path:
    """Train ``model`` on ``task``; the folder of the result. With ``gold`` the rows hold the completions to learn.

    Goes on from the last whole checkpoint in ``config.output_dir``. Raises :class:`UserError` for whatever the user can
    mend, and :class:`RunInterrupted` on Ctrl-C and SIGTERM, which save a checkpoint first.
    """
    base, plan = _planned(task, model, config)
    rows = training_rows(plan, config.manifest, gold=gold)
    made = arguments(plan.task, base, config)
    require_whole_states(config, made)
    _require_enough(rows, made)
    with _opened(training_record(plan, base, config, processes=process_count()), config) as folder, _quiet_libraries():
        final, last = told_by_first(lambda: _where_it_stands(folder, base, config))
        if final is not None:
            return final
        interrupts = Interrupts()
        output_dir = config.output_dir.expanduser().absolute()
        with _session(folder, output_dir), interrupts.heeded():
            processor = base.processor()
            check_grids(rows, base.profile, processor)
            adapters = config.lora_rank is not None  # the engine itself goes on with those
            loaded = base.load(processor.tokenizer, adapters=adapters, weights=None if adapters else last)
            if config.freeze_vision:
                freeze_vision(loaded)
            shared = {
                "model": loaded,
                "args": made,
                "train_dataset": training_dataset(rows, base.profile),
                "processing_class": processor,
                "peft_config": lora_config(loaded, config),
                "callbacks": training_callbacks(plan.task, base, config, rows, folder, interrupts, save_unit(made)),
            }
            trainer = _made(engine, plan.task, base, shared)
            if is_first():
                require_space(output_dir, _space(trainer.model, config) - _held(output_dir))
            _train(trainer, output_dir, last)
            gather_final(trainer, output_dir / FINAL, base)
        return output_dir / FINAL


def check_on_trl(
    task: Task, model: str, config: TrainConfig, arguments: MakeArguments, *, processes: int
) -> dict[str, Any]:
    """What would be trained on and where it would begin.

    Raises :class:`UserError` for what would end the training at once, as far as it shows before weights are loaded. The
    engine's arguments are made only for a single process: they depend on how many there are.
    """
    base, plan = _planned(task, model, config)
    rows = training_rows(plan, config.manifest)
    if processes == process_count():
        made = arguments(plan.task, base, config)
        require_whole_states(config, made)
        _require_enough(rows, made)
    folder = config.output_dir.expanduser().absolute()
    saved, is_done = [], False
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        with TrainingFolder(folder, training_record(plan, base, config, processes=processes)) as held:
            saved = [step_of(found) for found in checkpoints(folder) if is_whole(found, held.record.fingerprint)]
            is_done = held.final.exists()
    return {
        "questions": len(rows),
        "images": len(set(rows.images)),
        "coordinates": base.profile.name,
        "begins": "not: it is finished" if is_done else f"after step {saved[-1]}" if saved else "with step 1",
    }


def _planned(task: Task, model: str, config: TrainConfig) -> tuple[Base, RunPlan]:
    require_trl(config)
    refuse_adapters_without_rank(config)
    base = find_base(model, config)
    return base, make_plan(task, base.profile, config.run_config())


def _require_enough(rows: TrainingRows, arguments: Any) -> None:
    """Raise :class:`UserError` where the rows do not fill a step of GRPO: TRL would drop them, and train nothing."""
    group: int = getattr(arguments, "num_generations", 0)
    prompts = arguments.generation_batch_size // group if group else 0
    if len(rows) < prompts:
        raise UserError(
            f"a step takes {prompts} prompts of {group} completions, and {len(rows)} are selected",
            fix=f"give a smaller --batch-size ({len(rows) * group} completions in all), or select more prompts",
        )


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


def _where_it_stands(folder: TrainingFolder | None, base: Base, config: TrainConfig) -> tuple[Path | None, Path | None]:
    """The result, where there is one, and the checkpoint to go on from."""
    assert folder is not None, "only the first process looks"
    if folder.final.is_dir():
        say(f"finished already, at step {folder.record.step}: {folder.folder}")
        return folder.final, None
    refuse_stopped(folder.folder)
    last = folder.last_checkpoint()
    if last is None:
        return None, None
    if not config.resume:
        raise UserError(
            f"{folder.folder} has been trained for {step_of(last)} steps, and --no-resume would begin anew",
            fix="give a new --output-dir, or leave out --no-resume",
        )
    say(f"resuming {folder.folder} from step {step_of(last)}")
    if not is_last_step(last):
        return None, last
    write_final(last, folder.final, base, base.processor().tokenizer)
    folder.update(status="complete", step=step_of(last))
    return folder.final, None


@contextlib.contextmanager
def _session(folder: TrainingFolder | None, output_dir: Path) -> Iterator[None]:
    """Records how a process's work on the training ends; an interrupt is told with what is kept."""
    status = "failed"
    if folder is not None:
        folder.begin_session()
    try:
        yield
        status = "complete"
    except (KeyboardInterrupt, RunInterrupted):
        status = "interrupted"
        kept = checkpoints(output_dir)
        where = f"step {step_of(kept[-1])} is kept in {kept[-1]}" if kept else "before the first checkpoint"
        raise RunInterrupted(f"interrupted: {where}", fix="repeat the same command: it goes on from there") from None
    finally:
        if folder is not None:
            folder.update(status=status)


def _train(trainer: Any, output_dir: Path, last: Path | None) -> None:
    """Train from ``last``, or from the beginning, to the last step; whatever comes before that is raised."""
    _forget_printer(trainer)
    result = trainer.train(resume_from_checkpoint=None if last is None else str(last))
    if result.global_step < trainer.state.max_steps:
        raise_if_stopped(output_dir, result.global_step)
        raise KeyboardInterrupt
    if not math.isfinite(result.training_loss):
        raise UserError(
            f"the loss is {result.training_loss} after {result.global_step} steps",
            fix="try a lower --learning-rate in a new --output-dir",
        )


def _made(engine: MakeEngine, task: Task, base: Base, shared: dict[str, Any]) -> Any:
    """TRL's trainer; what it refuses of its arguments only now is the user's to mend."""
    try:
        return engine(task, base, shared)
    except (ValueError, ImportError) as error:
        raise UserError(
            f"the engine refuses these arguments: {' '.join(str(error).split())}", fix="change the option it names"
        ) from error


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
