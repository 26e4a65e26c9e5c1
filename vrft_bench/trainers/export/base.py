"""What an export is made of, and what an engine has to say about itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from vrft_bench.errors import UserError
from vrft_bench.harness.plan import RunPlan
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.trainers.base import Hyperparameters

Stage = Literal["grpo", "sft"]
Messages = list[dict[str, str]]

PLACEHOLDER = "<image>"
"""Stands in a message's text where its image goes, in every engine but the ones that take parts."""


@dataclass(frozen=True, slots=True)
class Row:
    """A question as engines take it: messages with a placeholder for the image, whose file is named from the folder.

    ``completion`` is the task's gold completion, for the stage ``sft`` alone.
    """

    sample_id: str
    messages: Messages
    images: list[str]
    ground_truth: str
    completion: str | None = None

    @property
    def conversation(self) -> Messages:
        """The messages with the gold completion as the assistant's answer, where there is one."""
        answer = [] if self.completion is None else [{"role": "assistant", "content": self.completion}]
        return [*self.messages, *answer]


@dataclass(frozen=True)
class Export:
    """Everything that an engine writes an export from, into ``folder``.

    ``how`` holds a value for every hyperparameter in :data:`SETTLED`. What an engine has no option for it names in
    ``left_out``.
    """

    folder: Path
    stage: Stage
    plan: RunPlan
    rows: list[Row]
    how: Hyperparameters
    model: str
    left_out: list[str] = field(default_factory=list)

    @property
    def profile(self) -> ModelProfile:
        return self.plan.profile

    @property
    def reward_names(self) -> list[str]:
        """The components of the score, in the task's order."""
        return [reward.name for reward in self.plan.task.rewards]

    @property
    def prompt_tokens(self) -> int:
        """An upper bound of a prompt's length: no tokenizer cuts a text into more tokens than it has bytes."""
        work = self.plan.survey.workload
        return _round_up(work.question_bytes + (work.image_tokens or 4096) + 64)

    @property
    def answer_tokens(self) -> int:
        """The longest completion; of a gold completion, a bound by its bytes."""
        if self.stage == "sft":
            return _round_up(max(len((row.completion or "").encode()) for row in self.rows) + 16)
        assert self.how.max_tokens is not None
        return self.how.max_tokens

    def leave_out(self, *names: str) -> None:
        """Note the hyperparameters of ``names`` that are chosen and that the engine cannot be told."""
        for name in names:
            if getattr(self.how, name) not in (None, False):
                self.left_out.append(f"{name} = {getattr(self.how, name)}")

    def choose(self, name: str, choices: Mapping[Any, Any]) -> Any:
        """The engine's word for the hyperparameter ``name``. Raises :class:`UserError` for a value that it lacks."""
        value = getattr(self.how, name)
        if value not in choices:
            raise UserError(
                f"this engine has no {name} {value!r}",
                fix=f"choose {', '.join(map(str, choices))}: with --recipe FILE, where `{self.stage}:` holds `{name}:`",
            )
        return choices[value]


class Engine(Protocol):
    """How one engine takes a task."""

    name: ClassVar[str]
    version: ClassVar[str]
    """The release whose code the export was written for and is tested with."""
    stages: ClassVar[tuple[Stage, ...]]
    elsewhere: ClassVar[str]
    """What to use for the stage that it lacks."""
    reserved: ClassVar[frozenset[str]]
    """Names that a reward component may not have, since the engine gives them a meaning of its own."""

    def write(self, export: Export) -> None:
        """Write data, reward, configuration and ``launch.sh``. The images are there already."""

    def read(self, folder: Path, stage: Stage) -> Iterator[Row]:
        """The rows that :meth:`write` wrote, from what the engine will read."""


SETTLED = {
    "grpo": Hyperparameters(
        learning_rate=1e-6, lr_schedule="constant", warmup_steps=0, epochs=3, batch_size=64, weight_decay=0.0,
        max_grad_norm=1.0, group_size=8, beta=0.0, temperature=1.0, top_p=1.0, top_k=0, max_tokens=512, loss="dapo",
        clip_low=0.2, clip_high=0.2, scale_rewards="group", freeze_vision=False, gradient_checkpointing=True,
    ),
    "sft": Hyperparameters(
        learning_rate=1e-5, lr_schedule="cosine", warmup_steps=0, epochs=3, batch_size=16, weight_decay=0.0,
        max_grad_norm=1.0, freeze_vision=False, gradient_checkpointing=True,
    ),
}  # fmt: skip
"""A value for everything, so that no engine's default decides; a recipe's values go before these."""


def _round_up(tokens: int, to: int = 64) -> int:
    return -(-tokens // to) * to
