"""What a trainer is, and everything that a user can choose about a training in neutral words.

A trainer connects one engine: it gets a task, a model and a :class:`TrainConfig`, and leaves a checkpoint folder that
``vrft-bench run --model FOLDER`` evaluates. The names here are the field's, not an engine's; each trainer says which of
them its engine has, and one that it does not have is an error, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.config import RunConfig, make_config, validation_lines
from vrft_bench.harness.models.checkpoint import BUNDLED
from vrft_bench.tasks.base import ProtocolName, Task

_RUN_FIELDS = (
    "protocol", "reward", "profile", "data", "split", "shots", "split_seed", "categories", "ask", "annotations",
    "images", "limit", "sample_id", "include",
)  # fmt: skip
"""The choices that a training shares with an evaluation, under the same names."""
BESIDE = frozenset({
    "save_every", "keep", "log_every", "eval_every", "eval_split", "eval_limit", "report_to", "engine_args",
})  # fmt: skip
"""What a trainer may heed beside hyperparameters, and has to name among its options if it does."""
_PATHS = ("output_dir", "manifest", "data", "annotations", "images")


class Hyperparameters(BaseModel):
    """How to train. ``None`` leaves a choice to the engine; a recipe sets many at once, and a flag goes before it."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    learning_rate: float | None = Field(default=None, gt=0, description="Peak learning rate.")
    lr_schedule: str | None = Field(default=None, description="Learning rate schedule: constant, linear, cosine.")
    warmup_steps: int | None = Field(default=None, ge=0, description="Steps of linear warm-up.")
    steps: int | None = Field(default=None, ge=1, description="Optimizer steps.")
    epochs: float | None = Field(default=None, gt=0, description="Passes over the data, in place of steps.")
    batch_size: int | None = Field(
        default=None, ge=1, description="Sequences per optimizer step and device: for grpo, completions."
    )
    accumulation: int | None = Field(default=None, ge=1, description="Forward passes that make up one batch.")
    weight_decay: float | None = Field(default=None, ge=0, description="Weight decay of AdamW.")
    max_grad_norm: float | None = Field(default=None, gt=0, description="Gradient norm above which it is clipped.")
    group_size: int | None = Field(default=None, ge=2, description="Completions per prompt (GRPO's G).")
    beta: float | None = Field(default=None, ge=0, description="Weight of the KL term to the starting model.")
    temperature: float | None = Field(default=None, gt=0, description="Sampling temperature of the rollouts.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling of the rollouts.")
    top_k: int | None = Field(default=None, ge=0, description="Top-k sampling of the rollouts; 0 is none.")
    max_tokens: int | None = Field(default=None, ge=1, description="Longest completion, in tokens.")
    loss: str | None = Field(default=None, description="Variant of the loss, as the engine names it: grpo, dapo, ...")
    clip_low: float | None = Field(default=None, gt=0, description="Lower clipping range of the ratio.")
    clip_high: float | None = Field(default=None, gt=0, description="Upper clipping range of the ratio.")
    scale_rewards: Literal["group", "batch", "none"] | None = Field(
        default=None, description="What the standard deviation that advantages are divided by is taken over."
    )
    lora_rank: int | None = Field(
        default=None, ge=1, description="Rank of LoRA adapters; without it all weights learn."
    )
    lora_alpha: int | None = Field(default=None, ge=1, description="LoRA scale. Default: twice the rank.")
    lora_targets: list[str] | None = Field(
        default=None, description="Names of the linear layers that get adapters. Default: all of the language model."
    )
    freeze_vision: bool | None = Field(default=None, description="Leave the vision encoder as it is.")
    gradient_checkpointing: bool | None = Field(default=None, description="Trade time for memory. Default: no.")
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(
        default=None,
        description="Precision of the arithmetic; what learns is kept in 32 bits. Default: bf16 on a GPU, else fp32.",
    )
    use_vllm: Literal["off", "colocate", "server"] | None = Field(
        default=None, description="Let vLLM write the rollouts: in the trainer's process, or on a server of its own."
    )
    max_pixels: int | None = Field(default=None, ge=1, description="Largest area an image is resized to, in pixels.")
    min_pixels: int | None = Field(default=None, ge=1, description="Smallest area that an image is resized to.")

    @property
    def lora_scale(self) -> int:
        """LoRA's alpha, chosen or not; 0 without adapters."""
        return self.lora_alpha or 2 * (self.lora_rank or 0)

    def given(self) -> dict[str, Any]:
        """The choices that are not left to the engine."""
        return {name: value for name, value in self.model_dump().items() if value is not None}


class TrainConfig(Hyperparameters):
    """Everything about one ``vrft-bench train``. Flags, config file and ``train.json`` are the same fields."""

    trainer: str = Field(default="grpo", description="Which trainer: see `vrft-bench ls trainers`.")
    task: str = Field(description="The task to learn.")
    model: str = Field(default="tiny", description="Checkpoint folder, hub id, or tiny (bundled).")
    output_dir: Path = Field(description="Folder of this training: checkpoints, logs, and the final model.")
    recipe: str | None = Field(default=None, description="Values to start from: visual_rft, modern, or a YAML file.")
    manifest: Path | None = Field(default=None, description="Only the samples that a manifest of `probe` lists.")
    seed: int = Field(default=0, ge=0, description="Seed of everything random.")
    save_every: int = Field(default=50, ge=1, description="Steps between checkpoints.")
    keep: int | None = Field(default=2, ge=1, description="Checkpoints that are kept; all, where it is null.")
    log_every: int = Field(default=1, ge=1, description="Steps between lines of the log.")
    eval_every: int | None = Field(default=None, ge=1, description="Steps between greedy evaluations of the metric.")
    eval_split: str | None = Field(default=None, description="Held-out split of those. Default: the task's own.")
    eval_limit: int | None = Field(default=None, ge=1, description="Only the first so many questions of it.")
    report_to: list[str] = Field(default=[], description="trackio, tensorboard, wandb: beside the local log.")
    resume: bool = Field(default=True, description="Go on from the last checkpoint of the same training.")
    engine_args: dict[str, Any] = Field(default={}, description="Further arguments, passed to the engine unchanged.")

    protocol: ProtocolName = "strict"
    reward: str | None = None
    profile: str | None = None
    data: Path | None = None
    split: str | None = None
    shots: int | None = None
    split_seed: int = 0
    categories: list[str] = []
    ask: str | None = None
    annotations: Path | None = None
    images: Path | None = None
    limit: int | None = None
    sample_id: list[str] = []
    include: list[str] = []

    @field_validator("model")
    @classmethod
    def _without_backend(cls, value: str) -> str:
        """``hf/NAME``, as ``run`` names the same model, is ``NAME``."""
        bare = value.removeprefix("hf/")
        return value if Path(value).expanduser().exists() else bare

    def hyperparameters(self) -> Hyperparameters:
        """The part that says how to train."""
        return Hyperparameters(**{name: getattr(self, name) for name in Hyperparameters.model_fields})

    def with_absolute_paths(self) -> TrainConfig:
        """The same choices for a process that works in another folder, and for whoever reads them there."""
        changes: dict[str, Any] = {
            name: path.expanduser().absolute() for name in _PATHS if (path := getattr(self, name)) is not None
        }
        of_task = self.run_config().with_absolute_paths()
        changes |= {"include": of_task.include, "ask": of_task.ask}
        folder = Path(self.model).expanduser()
        if self.model not in BUNDLED and folder.is_dir():
            changes["model"] = str(folder.absolute())
        return self.model_copy(update=changes)

    def run_config(self, **changes: Any) -> RunConfig:
        """The same choices of task, rules and data for an evaluation; ``changes`` go before them."""
        values = {name: getattr(self, name) for name in _RUN_FIELDS}
        values |= {"task": [self.task], "model": f"hf/{self.model}", "split": self.split or "train", **changes}
        return make_config({name: value for name, value in values.items() if value is not None}, source="the training")


class Trainer(Protocol):
    """One engine. ``options`` are the :class:`Hyperparameters` that it has, and what it heeds of ``BESIDE``."""

    name: ClassVar[str]
    options: ClassVar[frozenset[str]]

    def train(self, task: Task, model: str, config: TrainConfig) -> Path:
        """Train ``model`` (a checkpoint folder or hub id) on ``task``; the folder of the final checkpoint.

        Continues a training of the same fingerprint in ``config.output_dir`` from its last whole checkpoint.
        """


@runtime_checkable
class CanCheck(Protocol):
    """A trainer that can say beforehand what would end a training at once, for `--dry-run` and `--num-processes`."""

    def check(self, task: Task, model: str, config: TrainConfig, *, processes: int) -> Mapping[str, Any]:
        """What it would train on and where it would begin, by name; ``processes`` will train together.

        Raises :class:`UserError` for what would end it, having written nothing.
        """


def make_train_config(values: Mapping[str, Any], *, source: str = "the command line") -> TrainConfig:
    """A validated config, with the values of its recipe under those given.

    Raises :class:`UserError` that names the field, what was given and what is valid.
    """
    from vrft_bench.trainers.recipes import read_recipe

    given = by_field(values)
    if given.get("steps") is not None and given.get("epochs") is not None:
        raise UserError(
            f"in {source}: steps ({given['steps']}) and epochs ({given['epochs']}) are both given",
            fix="give one of them",
        )
    if isinstance(recipe := given.get("recipe"), str):
        given = layered(read_recipe(recipe, str(given.get("trainer", "grpo"))), given)
    for name in given:
        if name not in TrainConfig.model_fields:
            raise UserError(
                f"in {source}: unknown field {name!r}{did_you_mean(name, TrainConfig.model_fields)}",
                fix=f"valid fields are {', '.join(TrainConfig.model_fields)}",
            )
    try:
        return TrainConfig.model_validate(given)
    except ValidationError as error:
        raise UserError(
            f"in {source}: " + "; ".join(validation_lines(error)),
            fix="; ".join(_help(str(item["loc"][0])) for item in error.errors() if item["loc"]),
        ) from None


def by_field(values: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` under the names of the fields, however hyphens were written."""
    return {name.replace("-", "_"): value for name, value in values.items()}


def layered(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """The choices ``over`` before those ``under``; engine arguments are put together.

    Steps and epochs are one choice, of how long to train: either takes the place of the other.
    """
    length = {"steps", "epochs"}
    replaced = length if any(over.get(name) is not None for name in length) else set()
    kept = {name: value for name, value in under.items() if name not in replaced}
    both = kept | dict(over)
    if kept.get("engine_args") and over.get("engine_args"):
        both["engine_args"] = kept["engine_args"] | over["engine_args"]
    return both


def refuse_foreign_options(trainer: Trainer, config: TrainConfig) -> None:
    """Raise :class:`UserError` for a choice that the trainer's engine does not have."""
    beside = [name for name in sorted(BESIDE) if getattr(config, name) != TrainConfig.model_fields[name].default]
    for name in (*config.hyperparameters().given(), *beside):
        if name not in trainer.options:
            raise UserError(
                f"trainer {trainer.name!r} has no option {name!r}{did_you_mean(name, trainer.options)}",
                fix=f"leave it out (of the recipe too); it has {', '.join(sorted(trainer.options))}",
            )


def _help(name: str) -> str:
    field = TrainConfig.model_fields.get(name)
    return f"{name}: {field.description}" if field is not None and field.description else name
