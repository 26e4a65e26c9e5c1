"""What happens beside the training steps: whole checkpoints, a local log, and the real metric on held-out data.

TRL's own evaluation samples and shows rewards. What a task is known by is a corpus metric over greedy answers, so that
is what ``--eval-every`` computes, with the very code of ``vrft-bench run`` and the model in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.harness.plan import RunPlan, make_plan
from vrft_bench.harness.run import carry_out
from vrft_bench.tasks.base import Task
from vrft_bench.trainers.base import TrainConfig
from vrft_bench.trainers.base_model import Base
from vrft_bench.trainers.data import TrainingRows, trained_images
from vrft_bench.trainers.folder import TrainingFolder
from vrft_bench.trainers.interrupts import Interrupts, end_when_asked
from vrft_bench.trainers.processes import holds_a_part, wait_for_all
from vrft_bench.trainers.progress import say, step_line
from vrft_bench.trainers.stop import stop_on_request
from vrft_bench.trainers.train_log import LOG, append_log, keep_log_until

EVALUATIONS = "evaluations"


def training_callbacks(
    task: Task,
    base: Base,
    config: TrainConfig,
    rows: TrainingRows,
    folder: TrainingFolder | None,
    interrupts: Interrupts,
    unit: int,
) -> list[Any]:
    """The callbacks of a training on ``rows``, in the order in which they are called.

    ``folder`` is there in the first process alone. A checkpoint is whole after every ``unit`` steps.
    """
    output_dir = config.output_dir.expanduser().absolute()
    found = [_order_by_seed_and_epoch(config.seed), _keep_checkpoints(folder, base, config.keep)]
    if folder is not None:
        found.append(_write_log(output_dir / LOG))
    if config.eval_every is not None:
        plan = evaluation_plan(task, base, config, rows)
        found.append(_evaluate_greedily(plan, base, config.eval_every, folder))
    return [*found, end_when_asked(interrupts, unit), stop_on_request(output_dir, unit)]


def evaluation_plan(task: Task, base: Base, config: TrainConfig, rows: TrainingRows) -> RunPlan:
    """The greedy evaluation on held-out data.

    Raises :class:`UserError` where it would be on the training split or on images of ``rows``, and where no process can
    answer by itself.
    """
    if holds_a_part():
        raise UserError(
            "--eval-every evaluates the model in memory, and here each process holds only a part of it",
            fix="leave it out, and evaluate the checkpoints as they appear with `vrft-bench watch`",
        )
    settings = config.run_config().model_copy(
        update={
            "split": config.eval_split,
            "limit": config.eval_limit,
            "shots": None,
            "sample_id": [],
            "output_dir": config.output_dir / EVALUATIONS,
        }
    )
    plan = make_plan(task, base.profile, settings)
    if plan.dataset.split == config.run_config().split:
        raise UserError(
            f"the evaluations would be on split {plan.dataset.split!r}, which is trained on",
            fix="name a held-out one with --eval-split",
        )
    if shared := trained_images(plan, rows):
        raise UserError(
            f"the evaluations would be on {len(shared)} images that are trained on, such as {min(shared).name}",
            fix="name a held-out split with --eval-split; where the data are files of your own, leave --eval-every "
            "out, and give `vrft-bench watch` others with --annotations and --images",
        )
    return plan


def _order_by_seed_and_epoch(seed: int) -> Any:
    from transformers import TrainerCallback

    class OrderBySeedAndEpoch(TrainerCallback):  # type: ignore[misc]
        """Makes the order of samples the same whichever process begins an epoch, the first one or a resumed one."""

        def on_epoch_begin(self, _: Any, state: Any, __: Any, train_dataloader: Any = None, **___: Any) -> None:
            batches = train_dataloader.batch_sampler
            while hasattr(batches, "batch_sampler"):  # what gives each process its share wraps the batches of all
                batches = batches.batch_sampler
            sampler: Any = getattr(batches, "sampler", None)
            epoch = int(state.epoch)
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
            elif (generator := getattr(sampler, "generator", None)) is not None:
                generator.manual_seed(seed + epoch)

    return OrderBySeedAndEpoch()


def _keep_checkpoints(folder: TrainingFolder | None, base: Base, keep: int | None) -> Any:
    from transformers import TrainerCallback

    class KeepCheckpoints(TrainerCallback):  # type: ignore[misc]
        """Makes each checkpoint one that can be evaluated, and marks it as whole once every process has written."""

        def on_save(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
            wait_for_all()
            if folder is not None:
                checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                folder.finish_checkpoint(
                    checkpoint, base.folder, state.global_step, keep=keep, limits=base.stated_limits
                )

    return KeepCheckpoints()


def _write_log(path: Path) -> Any:
    from transformers import TrainerCallback

    class WriteLog(TrainerCallback):  # type: ignore[misc]
        """Appends what the engine logs, a JSON line each, and says it. Steps that are done again are dropped first."""

        def on_train_begin(self, _: Any, state: Any, *__: Any, **___: Any) -> None:
            keep_log_until(path, state.global_step)

        def on_log(self, args: Any, state: Any, *_: Any, logs: Mapping[str, Any] | None = None, **__: Any) -> None:
            logs = logs or {}
            append_log(path, {"step": state.global_step, **logs})
            if "loss" not in logs:
                return
            say(step_line(state.global_step, state.max_steps, logs))
            norm = float(logs.get("grad_norm", 0.0))
            if not (math.isfinite(norm) or args.fp16):  # fp16 scales its loss down when that happens
                raise UserError(
                    f"the gradient is {norm} at step {state.global_step}",
                    fix="go on from the last checkpoint in a new --output-dir, with a lower --learning-rate",
                )

    return WriteLog()


def _evaluate_greedily(plan: RunPlan, base: Base, every: int, folder: TrainingFolder | None) -> Any:
    from transformers import TrainerCallback

    class EvaluateGreedily(TrainerCallback):  # type: ignore[misc]
        """Runs ``plan`` with the model in memory, every so many steps and at the end; the run folders are kept."""

        def on_train_begin(self, _: Any, state: Any, *__: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                self._evaluate(state, **kwargs)

        def on_step_end(self, _: Any, state: Any, *__: Any, **kwargs: Any) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                self._evaluate(state, **kwargs)

        def _evaluate(self, state: Any, *, model: Any, processing_class: Any, **_: Any) -> None:
            if folder is not None:
                known = {"training": folder.record.fingerprint, "step": state.global_step}
                with answering(model) as bare:
                    result = carry_out(plan, HFBackend.of_loaded(base.checkpoint, bare, processing_class, **known))
                headline = result.report.headline
                figures = {headline: result.report.figures[headline].value, "reward": result.answers.reward}
                line = {"step": state.global_step, **{f"eval/{name}": value for name, value in figures.items()}}
                append_log(folder.folder / LOG, line)
                shown = "  ".join(f"{name} {'-' if it is None else format(it, '.3f')}" for name, it in figures.items())
                say(f"step {state.global_step}/{state.max_steps}  greedy on {plan.dataset.split!r}: {shown}")
            wait_for_all()

    return EvaluateGreedily()


@contextmanager
def answering(model: Any) -> Iterator[Any]:
    """The bare model in evaluation mode with its cache on; left as it was, random state included."""
    import torch

    bare = model.module if hasattr(model, "module") else model
    was_training, used_cache = bare.training, bare.config.use_cache
    state = torch.get_rng_state()
    bare.eval()
    bare.config.use_cache = True
    try:
        yield bare
    finally:
        torch.set_rng_state(state)
        bare.config.use_cache = used_cache
        bare.train(was_training)
