"""``vrft-bench watch FOLDER``: how a training does on the metric, checkpoint by checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrft_bench.errors import ExitCode, UserError
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
    ModelArgs,
    Plain,
    Split,
)

if TYPE_CHECKING:
    from vrft_bench.trainers.watch import Watched
    from vrft_bench.trainers.watch_curve import Evaluation

_WIDTHS = {"step": 6, "metric": 18, "95% interval": 16, "reward": 8, "in training": 12, "unparsable": 11, "tokens": 7}


def watch(
    folder: Annotated[Path, typer.Argument(help="The folder in which a trainer leaves its checkpoints.")],
    task: Annotated[
        str | None, typer.Option("--task", "-t", help="What to evaluate; default: what `train` trained there.")
    ] = None,
    every: Annotated[int, typer.Option(min=1, help="Only steps that are multiples of this.")] = 1,
    base: Annotated[
        str | None,
        typer.Option(help="The model that the training began from: step 0, and source of files checkpoints lack."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Evaluate what is there, and stop.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between looks.")] = 30.0,
    settle: Annotated[
        float, typer.Option(min=0.0, help="Seconds without a change before a checkpoint counts as whole.")
    ] = 60.0,
    window: Annotated[int, typer.Option(min=2, help="Evaluations that are looked back on for reward hacking.")] = 3,
    stop_on_hacking: Annotated[
        bool, typer.Option("--stop-on-hacking", help="Ask the training to stop then, and end with exit code 1.")
    ] = False,
    backend: Annotated[str, typer.Option(help="The backend that loads the checkpoints: hf or vllm.")] = "hf",
    model_args: ModelArgs = None,
    data: Data = None,
    split: Split = None,
    limit: Limit = None,
    categories: Categories = None,
    ask: Ask = None,
    annotations: Annotations = None,
    images: Images = None,
    profile: Annotated[str | None, typer.Option(help="Coordinate profile; default: the training's own.")] = None,
    protocol: Annotated[str | None, typer.Option(help="strict or paper. Default: the training's own.")] = None,
    reward: Annotated[str | None, typer.Option(help="Rewards and weights. Default: the training's own.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Longest completion. Default: 1024.")] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", metavar="DIR", help="Default: the folder `watch` in FOLDER.")
    ] = None,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Evaluate every new checkpoint greedily as it appears, beside the training's reward. Repeating a command resumes.

    Ends when a training of `train` is complete; beside another engine, with Ctrl-C, or at once with --once.
    """
    from vrft_bench.harness.cli.run import pairs
    from vrft_bench.harness.config import make_config
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.registry import include as include_file
    from vrft_bench.trainers.watch import WatchOptions
    from vrft_bench.trainers.watch import watch as look

    flags: dict[str, Any] = {
        "task": None if task is None else [task], "model_args": pairs(model_args), "data": data, "split": split,
        "limit": limit, "categories": categories, "ask": ask, "annotations": annotations, "images": images,
        "profile": profile, "protocol": protocol, "reward": reward, "max_tokens": max_tokens, "include": include,
    }  # fmt: skip
    config = make_config({name: value for name, value in flags.items() if value is not None})
    for file in config.include:
        include_file(file)
    base = None if base is None else base.removeprefix(f"{backend}/")  # as `run` names the same model
    options = WatchOptions(base, every, window, interval, settle, once, stop_on_hacking, backend)
    if not as_json:
        typer.echo("".join(name.rjust(width) for name, width in _WIDTHS.items()))

    def show(row: Evaluation) -> None:
        typer.echo(row.model_dump_json() if as_json else _line(row))

    progress = make_progress(plain=plain or as_json)
    watched = look(folder, config, options, output_dir=output_dir, show=show, progress=progress)
    if not watched.curve:
        raise UserError(
            f"there is no whole checkpoint in {folder}",
            fix="give the folder that holds checkpoint-N, global_step_N or global_stepN_hf, or leave out --once",
        )
    if not as_json:
        _print_end(watched)
    if stop_on_hacking and watched.is_hacked:
        raise typer.Exit(ExitCode.GATE_FAILED)
    if watched.failed:
        raise typer.Exit(ExitCode.PARTIAL)


def _line(row: Evaluation) -> str:
    from vrft_bench.harness.cli.printing import interval_text
    from vrft_bench.tasks.base import UNPARSABLE, Figure
    from vrft_bench.trainers.watch_curve import Mark

    unparsable = sum(row.status.get(status.value, 0.0) for status in UNPARSABLE)
    cells = (
        str(row.step),
        f"{row.metric} {_number(row.value)}",
        interval_text(Figure(row.value, row.low, row.high)),
        _number(row.reward),
        _number(row.training_reward),
        f"{unparsable:.1%}",
        f"{row.completion_tokens:.1f}",
    )
    line = "".join(cell.rjust(width) for cell, width in zip(cells, _WIDTHS.values(), strict=True))
    said = {
        Mark.FINE: "",
        Mark.DIVERGING: f"  {row.metric} down, reward up since step {row.compared_with}",
        Mark.HACKING: f"  REWARD HACKING: {row.metric} down, {_risen(row)} up since step {row.compared_with}, "
        "beyond chance",
    }
    return line + said[row.mark]


def _risen(row: Evaluation) -> str:
    """Which reward rose beyond chance; that of the training alone does so where it is merely remembered, too."""
    held_out = row.changes.get("reward", {}).get("low")
    return "reward" if held_out is not None and held_out > 0.0 else "the training's own reward"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _print_end(watched: Watched) -> None:
    from vrft_bench.trainers.watch_folder import BASE, BEST

    best = watched.best
    if best is not None:
        typer.echo(f"best: step {best.step} ({best.metric} {_number(best.value)}), kept in {watched.folder / BEST}")
        start = next((row for row in watched.curve if row.signature == BASE), None)
        if start is not None and (start.value or 0.0) >= (best.value or 0.0):
            typer.echo(f"note: no checkpoint is better than the base ({start.metric} {_number(start.value)})")
    for step, reason in watched.failed.items():
        typer.echo(f"not evaluated: step {step}: {reason}")
    typer.echo(f"{watched.folder}")
