"""Beside a training, or after it: every new checkpoint is evaluated greedily on held-out data as it appears.

Everything resumes: a checkpoint is evaluated once, whatever ended the watch before. What is found lies in a
:class:`~vrft_bench.trainers.watch_folder.WatchFolder`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vrft_bench.errors import RunInterrupted, UserError
from vrft_bench.harness.cli.data_root import with_data_root
from vrft_bench.harness.config import RunConfig, make_config
from vrft_bench.harness.models import open_backend
from vrft_bench.harness.models.base import Backend, LimitsPixels
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan, resolve_profile
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.provenance import RECORD
from vrft_bench.harness.results import RunResult
from vrft_bench.harness.run import carry_out
from vrft_bench.harness.store import is_locked, utc_now
from vrft_bench.registry import include
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.trainers.base_model import DTYPES
from vrft_bench.trainers.folder import TrainingRecord, read_record
from vrft_bench.trainers.stop import request_stop
from vrft_bench.trainers.train_log import LOG, read_log
from vrft_bench.trainers.watch_checkpoints import find_checkpoints, why_unfinished
from vrft_bench.trainers.watch_curve import Evaluation, Mark, judge, read_trainer_state, training_rewards
from vrft_bench.trainers.watch_folder import BASE, RUNS, WatchFolder
from vrft_bench.trainers.watch_models import make_evaluable

_CHOICES = {
    "task", "protocol", "reward", "profile", "data", "split", "categories", "ask", "annotations", "images", "limit",
    "max_tokens", "include",
}  # fmt: skip
"""What all evaluations of one curve have in common."""
_OF_TASK = ("protocol", "reward", "categories", "ask", "annotations", "images")
_OF_ANY = ("data", "include")


@dataclass(frozen=True)
class WatchOptions:
    """How to watch.

    ``base`` is the model that the training began from: evaluated as step 0, and the source of files that checkpoints
    lack. Only steps that are multiples of ``every`` count, and the last one of a finished training of our own.
    ``window`` evaluations are looked back on for the mark. ``interval`` and ``settle`` are seconds: between looks, and
    without a change before a checkpoint of another engine counts as whole. ``once`` evaluates what is there.
    """

    base: str | None = None
    every: int = 1
    window: int = 3
    interval: float = 30.0
    settle: float = 60.0
    once: bool = False
    stop_on_hacking: bool = False
    backend: str = "hf"


@dataclass(frozen=True)
class Watched:
    """What a watch has come to. ``failed`` are steps that could not be evaluated, with the reason."""

    folder: Path
    curve: list[Evaluation]
    best: Evaluation | None
    failed: dict[int, str] = field(default_factory=dict)

    @property
    def is_hacked(self) -> bool:
        """Whether the newest evaluation says so."""
        return bool(self.curve) and self.curve[-1].mark is Mark.HACKING


def watch(
    folder: Path,
    config: RunConfig,
    options: WatchOptions,
    *,
    output_dir: Path | None = None,
    show: Callable[[Evaluation], None] = lambda row: None,  # noqa: ARG005
    progress: Progress | None = None,
) -> Watched:
    """Evaluate the checkpoints in ``folder`` by ``config`` until the training is done, or it is found to be hacking.

    ``config.model`` is not read, and ``config.task`` may be empty where ``folder`` is a training of our own. ``show``
    gets every evaluation, those of an earlier watch first. Raises :class:`UserError` where ``output_dir`` (default:
    ``watch`` in ``folder``) holds another watch, and what planning an evaluation raises.
    """
    folder = folder.expanduser().absolute()
    if not config.task and not (folder / RECORD).is_file():
        raise UserError(f"{folder} is no training of vrft-bench, and no task is given", fix="say --task NAME")
    kept = WatchFolder((output_dir or folder / "watch").expanduser().absolute())
    with closing(kept):
        return _Watch(folder, config, options, kept, show, progress or SilentProgress()).run()


def as_trained(config: RunConfig, training: TrainingRecord) -> RunConfig:
    """``config`` with the choices of ``training`` where it makes none: those by which ``--eval-every`` would evaluate.

    Of another task than the trained one only the place of the data and the plugins are the same.
    """
    given = config.model_dump(exclude_unset=True)
    trained = training.config
    names: tuple[str, ...] = _OF_ANY
    values: dict[str, Any] = {}
    if config.task in ([], [training.task]):
        names += _OF_TASK
        values = {"task": [training.task], "split": trained.get("eval_split"), "limit": trained.get("eval_limit")}
    values |= {name: trained.get(name) for name in names}
    return make_config({**{name: value for name, value in values.items() if value}, **given}, source="train.json")


def asks_trained_data(plan: RunPlan, training: TrainingRecord) -> bool:
    """Whether ``plan`` asks about the data of ``training``: from the same place, and of one split where that has any.

    Files of the user's own are the same questions whatever the split is called.
    """
    asked = plan.config.with_absolute_paths()
    for name in ("data", "annotations", "images"):
        here, there = getattr(asked, name), training.config.get(name)
        if (None if here is None else str(here)) != there:
            return False
    has_splits = asked.annotations is None and asked.images is None
    same_split = training.identity["data"]["split"] == plan.dataset.split
    return plan.task.name == training.task and (same_split or not has_splits)


class _Watch:
    def __init__(
        self,
        folder: Path,
        config: RunConfig,
        options: WatchOptions,
        kept: WatchFolder,
        show: Callable[[Evaluation], None],
        progress: Progress,
    ) -> None:
        self._folder, self._config, self._options, self._kept = folder, config, options, kept
        self._show, self._progress = show, progress
        self._chosen = config.model_fields_set & {"split", "annotations", "images"}
        self._training: TrainingRecord | None = None
        self._plan: RunPlan | None = None
        self._failed: dict[int, str] = {}
        self._said: set[str] = set()

    def run(self) -> Watched:
        self._look_at_training()
        self._kept.refuse_other(self._choices())
        for row in self._kept.curve:
            self._show(row)
        while True:
            self._look_at_training()
            self._stage()
            pending = self._pending()
            if pending:
                self._evaluate_or_pass(*pending[0])
                if self._is_hacking():
                    break
            elif self._options.once or self._is_done():
                break
            else:
                time.sleep(self._options.interval)
        return Watched(self._kept.path, self._kept.curve, self._kept.best, self._failed)

    def _look_at_training(self) -> None:
        if (self._folder / RECORD).is_file():
            self._training = read_record(self._folder)
            self._config = as_trained(self._config, self._training)
            for file in self._config.include:
                include(file)
            if self._training.status in ("interrupted", "failed"):
                self._tell(f"the training is {self._training.status} at step {self._training.step}")
            elif self._training.status == "running" and not is_locked(self._folder):
                self._tell(
                    "no process of this machine works on the training: unless another machine's does, it was killed, "
                    "and repeating its command goes on from its last checkpoint"
                )
        elif not self._folder.is_dir():
            self._tell(f"waiting for {self._folder}")

    def _is_done(self) -> bool:
        return self._training is not None and self._training.status == "complete"

    def _is_hacking(self) -> bool:
        """Whether the training is to stop for it; it is told so."""
        row = self._kept.curve[-1] if self._kept.curve else None
        if row is None or row.mark is not Mark.HACKING or not self._options.stop_on_hacking:
            return False
        since = f"since step {row.compared_with}"
        request_stop(self._folder, f"at step {row.step} {row.metric} has fallen {since}, and the reward has risen")
        return True

    @property
    def _base(self) -> str | None:
        return self._options.base or (self._training.model if self._training else None)

    def _stage(self) -> None:
        """Take copies of all new checkpoints, before the trainer deletes them."""
        found = find_checkpoints(self._folder)
        training = self._training.fingerprint if self._training else None
        for item in found:
            counts = item.step % self._options.every == 0 or (self._is_done() and item is found[-1])
            try:
                signature = item.signature()
                if not counts or not self._is_new(item.step, signature):
                    continue
                if reason := why_unfinished(item, training=training, settle=self._options.settle):
                    self._tell(f"{item.folder.name} is passed over for now: {reason}")
                    continue
                self._kept.stage(item, signature)
            except FileNotFoundError:
                self._tell(f"{item.folder.name} was deleted before it could be evaluated: let the trainer keep more")

    def _is_new(self, step: int, signature: str) -> bool:
        return step not in self._failed and not self._kept.has(step, signature)

    def _pending(self) -> list[tuple[int, str, Path]]:
        """What is to be evaluated, by step: the base, and copies. Others are left of a watch that was killed."""
        pending = []
        for step, signature, copy in self._kept.copies():
            if self._is_new(step, signature):
                pending.append((step, signature, copy))
            else:
                self._kept.hold()
                self._kept.discard(copy)
        if self._base is not None and (pending or self._training) and self._is_new(0, BASE):
            pending.insert(0, (0, BASE, Path(self._base)))
        return pending

    def _evaluate_or_pass(self, step: int, signature: str, model: Path) -> None:
        """Evaluate one checkpoint; where that fails, say so and go on with the others."""
        self._kept.hold()
        try:
            self._evaluate(step, signature, model)
        except RunInterrupted:
            raise
        except UserError as error:
            if self._plan is None:  # nothing can be evaluated this way
                raise
            self._failed[step] = error.message
            self._tell(f"step {step} could not be evaluated: {error.message}")
        if signature != BASE:
            self._kept.discard(model)

    def _evaluate(self, step: int, signature: str, model: Path) -> None:
        log = self._log(model)
        if signature != BASE:
            make_evaluable(model, self._base, self._precision())
        config = self._config.model_copy(
            update={"model": f"{self._options.backend}/{model}", "output_dir": self._kept.path / RUNS}
        )
        with closing(open_backend(config)) as backend:
            plan = self._plan or self._make_plan(config, backend)
            config = config.model_copy(update={"data": plan.config.data})
            meanwhile = _Meanwhile(self._progress, self._stage, self._options.interval)
            result = carry_out(replace(plan, config=config), backend, progress=meanwhile)
        self._add(plan, self._row(step, signature, model, result), log)

    def _make_plan(self, config: RunConfig, backend: Backend) -> RunPlan:
        """What all checkpoints are evaluated by; the folder is claimed for it."""
        task = choose_task(config.task[0], config)
        config = with_data_root(config, task)
        plan = make_plan(task, self._profile(config, backend), config)
        self._look_for_trained_data(plan)
        self._kept.claim(self._choices(), plan.identity({}))
        self._plan = plan
        return plan

    def _look_for_trained_data(self, plan: RunPlan) -> None:
        """Refuse to show how well the training data are remembered, unless they are what was asked for: then say so."""
        if self._training is None or not asks_trained_data(plan, self._training):
            return
        what = f"these questions (split {plan.dataset.split!r}) are on data that the training learns from"
        if not self._chosen:
            raise UserError(what, fix="name held-out ones with --split, or --annotations and --images")
        self._tell(f"{what}: they show what it remembers, not what it can do")

    def _profile(self, config: RunConfig, backend: Backend) -> ModelProfile:
        """That of the training, with its limits of the image, unless another is asked for."""
        if self._training is None or config.profile is not None:
            return resolve_profile(config, backend)
        trained = ModelProfile.from_json(self._training.identity["profile"])
        return backend.with_pixel_limits(trained) if isinstance(backend, LimitsPixels) else trained

    def _row(self, step: int, signature: str, model: Path, result: RunResult) -> Evaluation:
        answers, report = result.answers, result.report
        figure, count = report.figures[report.headline], max(answers.completions, 1)
        return Evaluation(
            step=step,
            checkpoint=BASE if signature == BASE else model.name,
            signature=signature,
            metric=report.headline,
            value=figure.value,
            low=figure.low,
            high=figure.high,
            reward=answers.reward,
            components=dict(answers.components),
            status={name: number / count for name, number in answers.status.items()},
            completion_tokens=answers.completion_tokens / count,
            run=str(result.folder.relative_to(self._kept.path)),
            evaluated=utc_now(),
        )

    def _add(self, plan: RunPlan, row: Evaluation, log: dict[int, float]) -> None:
        """Put ``row`` on the curve, with the training's own reward and the mark."""
        earlier = [old for old in self._kept.curve if old.step < row.step]
        since = max((old.step for old in earlier), default=0)
        values = [value for at, value in log.items() if since < at <= row.step]
        row = row.model_copy(update={"training_reward": sum(values) / len(values) if values else None})
        mark, before, changes = judge([*earlier, row], self._options.window, plan, self._kept.path, log)
        row = row.model_copy(update={"mark": mark, "compared_with": before, "changes": changes})
        self._kept.add(row)
        self._show(row)

    def _log(self, model: Path) -> dict[int, float]:
        """The training's own reward by step: from our log, or from what transformers' Trainer keeps in a checkpoint."""
        if (self._folder / LOG).is_file():
            return training_rewards(read_log(self._folder / LOG))
        return training_rewards(read_trainer_state(model / "trainer_state.json"))

    def _precision(self) -> str | None:
        """That in which our own training held the weights."""
        trained = self._training.identity["model"].get("precision") if self._training else None
        return DTYPES.get(str(trained))

    def _choices(self) -> dict[str, Any]:
        """What decides the figures, as far as a user chose it."""
        chosen = self._config.with_absolute_paths().model_dump(mode="json", include=_CHOICES)
        training = self._training.fingerprint if self._training else None
        return {**chosen, "backend": self._options.backend, "base": self._base, "training": training}

    def _tell(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._progress.note(text)


class _Meanwhile:
    """Progress of an evaluation, in which new checkpoints are looked for: its end may come too late for them."""

    def __init__(self, shown: Progress, look: Callable[[], None], interval: float) -> None:
        self._shown, self._look, self._interval = shown, look, interval
        self._looked = time.monotonic()
        self.begin, self.note, self.end = shown.begin, shown.note, shown.end

    def advance(self, reward: float | None) -> None:
        self._shown.advance(reward)
        if time.monotonic() - self._looked >= self._interval:
            self._look()
            self._looked = time.monotonic()
