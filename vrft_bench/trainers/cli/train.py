"""``vrft-bench train``: improve a model on a task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.options import (
    Annotations,
    AsJson,
    Ask,
    Categories,
    Data,
    Debug,
    Images,
    Include,
    Limit,
    Seed,
    Split,
    SplitSeed,
)
from vrft_bench.trainers.cli.options import Manifest, MaxPixels, Profile, Protocol, Reward, Shots, TaskToLearn


def train(
    task: TaskToLearn = None,
    trainer: Annotated[str | None, typer.Option(help="grpo (the default), sft, or a plugin: `ls trainers`.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Checkpoint folder, hub id, or tiny (the default).")
    ] = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", metavar="DIR", help="Folder of this training.")
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Values to start from: visual_rft, modern, or a YAML file of your own.")
    ] = None,
    data: Data = None,
    split: Split = None,
    shots: Shots = None,
    split_seed: SplitSeed = None,
    manifest: Manifest = None,
    limit: Limit = None,
    categories: Categories = None,
    ask: Ask = None,
    annotations: Annotations = None,
    images: Images = None,
    profile: Profile = None,
    protocol: Protocol = None,
    reward: Reward = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the data, in place of steps.")] = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", "--lr", help="Peak learning rate.")] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", help="Sequences per step and device; for grpo, completions.")
    ] = None,
    accumulation: Annotated[int | None, typer.Option(help="Forward passes that make up a batch.")] = None,
    group_size: Annotated[int | None, typer.Option("--group-size", help="grpo: completions per prompt.")] = None,
    beta: Annotated[float | None, typer.Option(help="grpo: weight of the KL term.")] = None,
    temperature: Annotated[float | None, typer.Option(help="grpo: temperature of the rollouts.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="grpo: longest completion.")] = None,
    scale_rewards: Annotated[
        str | None, typer.Option("--scale-rewards", help="grpo: group, batch or none, what advantages are divided by.")
    ] = None,
    lora_rank: Annotated[int | None, typer.Option("--lora-rank", help="Train adapters of this rank.")] = None,
    lora_targets: Annotated[str | None, typer.Option("--lora-targets", help="Layers that get them.")] = None,
    freeze_vision: Annotated[
        bool | None, typer.Option("--freeze-vision/--train-vision", help="Leave the image encoder as it is.")
    ] = None,
    gradient_checkpointing: Annotated[
        bool | None, typer.Option("--gradient-checkpointing/--no-gradient-checkpointing", help="Time for memory.")
    ] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    max_pixels: MaxPixels = None,
    use_vllm: Annotated[str | None, typer.Option("--use-vllm", help="grpo: off, colocate or server.")] = None,
    seed: Seed = None,
    save_every: Annotated[int | None, typer.Option("--save-every", help="Steps between checkpoints.")] = None,
    keep: Annotated[int | None, typer.Option(help="Checkpoints that are kept. Default: 2.")] = None,
    eval_every: Annotated[
        int | None, typer.Option("--eval-every", help="Steps between greedy evaluations of the task's metric.")
    ] = None,
    eval_split: Annotated[str | None, typer.Option("--eval-split", help="Held-out split of those.")] = None,
    eval_limit: Annotated[int | None, typer.Option("--eval-limit", help="Its first N questions.")] = None,
    report_to: Annotated[str | None, typer.Option("--report-to", help="trackio, tensorboard, wandb.")] = None,
    resume: Annotated[bool | None, typer.Option("--resume/--no-resume", help="Go on where it stopped.")] = None,
    engine_args: Annotated[
        list[str] | None, typer.Option("--engine-args", "-E", help="k=v for the engine, unchanged.")
    ] = None,
    num_processes: Annotated[
        int | None, typer.Option("--num-processes", min=1, help="Processes on this machine, through accelerate.")
    ] = None,
    accelerate: Annotated[
        str | None, typer.Option(help="ddp (the default), zero2, zero3, fsdp, or an accelerate config file.")
    ] = None,
    accelerate_flags: Annotated[
        list[str] | None, typer.Argument(metavar="[-- FLAGS]", help="After `--`: more flags of `accelerate launch`.")
    ] = None,
    config: Annotated[Path | None, typer.Option("--config", "-c", help="YAML, TOML or JSON, or a train.json.")] = None,
    include: Include = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and say what would be trained, and stop.")] = False,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Train a model on a task with its own score as the reward. Repeating a command resumes its training."""
    from vrft_bench.harness.cli.run import pairs
    from vrft_bench.trainers.launch import examine, prepare, start

    flags: dict[str, Any] = {
        "task": task, "trainer": trainer, "model": model, "output_dir": output_dir, "recipe": recipe, "data": data,
        "split": split, "shots": shots, "split_seed": split_seed, "manifest": manifest, "limit": limit,
        "categories": _listed(categories), "ask": ask, "annotations": annotations, "images": images,
        "profile": profile, "protocol": protocol, "reward": reward, "steps": steps, "epochs": epochs,
        "learning_rate": learning_rate, "batch_size": batch_size, "accumulation": accumulation,
        "group_size": group_size, "beta": beta, "temperature": temperature, "max_tokens": max_tokens,
        "scale_rewards": scale_rewards, "lora_rank": lora_rank, "lora_targets": _listed(lora_targets),
        "freeze_vision": freeze_vision, "gradient_checkpointing": gradient_checkpointing, "precision": precision,
        "max_pixels": max_pixels,
        "use_vllm": use_vllm, "seed": seed, "save_every": save_every, "keep": keep, "eval_every": eval_every,
        "eval_split": eval_split, "eval_limit": eval_limit, "report_to": _listed(report_to), "resume": resume,
        "engine_args": pairs(engine_args), "include": include,
    }  # fmt: skip
    settings = prepare(config, {name: value for name, value in flags.items() if value is not None})
    if dry_run:
        found = examine(settings, processes=num_processes or 1)
        shown = settings.model_dump(mode="json", exclude_unset=True)
        lines = [f"{name:<24}{value}" for name, value in (shown | found).items()]
        typer.echo(json.dumps({**shown, "found": found}) if as_json else "\n".join(lines))
        return
    if num_processes in (None, 1) and accelerate is None:
        if accelerate_flags:
            raise UserError(
                f"{' '.join(accelerate_flags)!r} is for `accelerate launch`, which trains in several processes",
                fix="give --num-processes N too, or leave it out",
            )
        final = start(settings)
    else:
        from vrft_bench.trainers.several import launch

        final = launch(
            settings, num_processes=num_processes, accelerate=accelerate, flags=_only_flags(accelerate_flags or [])
        )
    typer.echo(json.dumps({"checkpoint": str(final)}) if as_json else str(final))


def _listed(value: str | None) -> list[str] | None:
    return None if value is None else [part.strip() for part in value.split(",") if part.strip()]


def _only_flags(given: list[str]) -> list[str]:
    if given and not given[0].startswith("-"):
        raise UserError(f"{given[0]!r} is not an option of train", fix="see `vrft-bench train --help`")
    return given
