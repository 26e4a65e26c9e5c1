"""``vrft-bench probe TASK``: what a model could learn from a task, before it is trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    Seed,
    Split,
    SplitSeed,
)
from vrft_bench.trainers.cli.options import MaxPixels, Profile, Protocol, Reward, Shots

if TYPE_CHECKING:
    from vrft_bench.harness.config import RunConfig
    from vrft_bench.trainers.probe import Probe

ROLLOUTS = 8
MAX_TOKENS = 512
"""Without a recipe: as many as the grpo trainer's engine allows by itself."""
_FROM_RECIPE = {"group_size": "samples", "temperature": "temperature", "top_p": "top_p", "max_tokens": "max_tokens"}
_PIXELS = ("min_pixels", "max_pixels")
_SHOWN = 3
"""How many sample ids a row of the table names."""


def probe(
    task: Annotated[str, typer.Argument(help="A task's name.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="backend/name or a checkpoint folder. Default: hf/tiny.")
    ] = None,
    model_args: ModelArgs = None,
    samples: Annotated[
        int | None, typer.Option("--n", "-n", "--samples", help="Rollouts per prompt. Default: the recipe's, or 8.")
    ] = None,
    temperature: Annotated[float | None, typer.Option(help="Default: the recipe's, or 1.")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Nucleus sampling.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", help="Longest completion. Default: the recipe's, or 512.")
    ] = None,
    max_pixels: MaxPixels = None,
    recipe: Annotated[
        str | None, typer.Option(help="Sample as this recipe trains: visual_rft, modern, or a YAML file of your own.")
    ] = None,
    min_mean: Annotated[
        float, typer.Option("--min-mean", help="Never right: a mean of accuracy or IoU not above this.")
    ] = 0.0,
    max_mean: Annotated[
        float, typer.Option("--max-mean", help="Always right: a mean of accuracy or IoU not below this.")
    ] = 0.95,
    manifest_out: Annotated[
        Path | None, typer.Option("--manifest-out", metavar="FILE", help="Write the prompts worth it to this file.")
    ] = None,
    data: Data = None,
    split: Split = None,
    shots: Shots = None,
    split_seed: SplitSeed = None,
    limit: Limit = None,
    categories: Categories = None,
    ask: Ask = None,
    annotations: Annotations = None,
    images: Images = None,
    profile: Profile = None,
    protocol: Protocol = None,
    reward: Reward = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="OpenAI-compatible server, http://host:8000/v1.")
    ] = None,
    seed: Seed = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", metavar="DIR", help="Where the run goes. Default: results.")
    ] = None,
    fresh: Annotated[bool | None, typer.Option("--fresh", help="A new run, even where this one is there.")] = None,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Sample a model on its training prompts, and say which of them it could learn from.

    Choices of task and data are those of `train`, so that `train --manifest` takes what --manifest-out writes.
    """
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.harness.cli.run import pairs
    from vrft_bench.harness.config import make_config
    from vrft_bench.harness.models import open_backend
    from vrft_bench.harness.plan import choose_task, make_plan, resolve_profile
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.registry import include as include_file
    from vrft_bench.trainers.probe import Bounds, write_manifest
    from vrft_bench.trainers.probe import probe as look

    flags: dict[str, Any] = {
        "model": model, "samples": samples, "temperature": temperature, "top_p": top_p, "max_tokens": max_tokens,
        "data": data, "split": split, "shots": shots, "split_seed": split_seed, "limit": limit,
        "categories": categories, "ask": ask, "annotations": annotations, "images": images, "profile": profile,
        "protocol": protocol, "reward": reward, "base_url": base_url, "seed": seed, "output_dir": output_dir,
        "fresh": fresh, "include": include,
    }  # fmt: skip
    bounds = Bounds(min_mean, max_mean)
    sampling, pixels = _of_recipe(recipe)
    if max_pixels is not None:
        pixels["max_pixels"] = max_pixels
    defaults = {"task": [task], "split": "train", "samples": ROLLOUTS, "temperature": 1.0, "max_tokens": MAX_TOKENS}
    given = {name: value for name, value in flags.items() if value is not None}
    config = make_config({**defaults, **sampling, **given, "model_args": pixels | (pairs(model_args) or {})})
    for file in config.include:
        include_file(file)
    chosen = choose_task(task, config)
    backend = open_backend(config)
    try:
        config = with_data_root(config, chosen)
        plan = make_plan(chosen, resolve_profile(config, backend), config)
        found = look(plan, backend, bounds, progress=make_progress(plain=plain or as_json))
    finally:
        backend.close()
    if as_json:
        typer.echo(json.dumps(found.to_json()))
    else:
        _print(found, config, plain=plain)
    if manifest_out is not None:
        write_manifest(manifest_out, plan, found)
        if not as_json:
            typer.echo(f"written: {manifest_out}")
    if not as_json:
        typer.echo(f"{found.run.folder}")


def _of_recipe(name: str | None) -> tuple[dict[str, Any], dict[str, int]]:
    """How the recipe's rollouts are drawn, as fields of a run; and its limits of the image, as the backend's."""
    if name is None:
        return {}, {}
    from vrft_bench.trainers.recipes import read_recipe

    values = read_recipe(name, "grpo")
    sampling = {field: values[key] for key, field in _FROM_RECIPE.items() if key in values}
    return sampling, {key: values[key] for key in _PIXELS if key in values}


def _print(found: Probe, config: RunConfig, *, plain: bool) -> None:
    from vrft_bench.harness.cli.printing import Column, interval_text, print_table

    manifest, figures = found.run.manifest, found.figures
    title = (
        f"{manifest.task}  |  {manifest.model}  |  split {manifest.identity['data']['split']}  |  data: {manifest.data}"
        f"  |  {figures.groups} prompts x {config.samples} rollouts, temperature {config.temperature:g}"
    )
    print_table(
        [
            Column("reward"),
            Column("mean", numeric=True),
            Column("deviation in a group", numeric=True),
            Column("groups that vary", numeric=True),
            Column("95% interval", numeric=True),
        ],
        [
            [name, f"{item.mean:.3f}", f"{item.deviation:.3f}", f"{item.varies.value:.3f}", interval_text(item.varies)]
            for name, item in figures.rewards.items()
        ],
        plain=plain,
        title=title,
        footer=1,
    )
    rows = [["mean |advantage|", f"{figures.advantage:.3f}"]]
    rows += [[f"flat groups of {size}", f"{share:.3f}"] for size, share in figures.flat.items()]
    rows += [[f"pass@{k}", f"{share:.3f}"] for k, share in figures.passes.items()]
    print_table([Column("gradient signal"), Column("value", numeric=True)], rows, plain=plain)
    _print_prompts(found, plain=plain)
    _print_histogram(found, plain=plain)
    shares = ", ".join(f"{status} {share:.1%}" for status, share in found.statuses.items())
    typer.echo(f"answers: {shares}; in the asked layout {found.well_formed:.1%}; cut off {found.cut_off:.1%}")
    if found.cut_off > 0.01:
        typer.echo(f"note: {found.cut_off:.1%} of the rollouts ran into --max-tokens {config.max_tokens}")


def _print_prompts(found: Probe, *, plain: bool) -> None:
    from vrft_bench.harness.cli.printing import Column, print_table

    total = sum(len(ids) for ids in found.verdicts.values())
    rows = []
    for verdict, ids in found.verdicts.items():
        if ids:
            examples = ", ".join(ids[:_SHOWN]) + (", ..." if len(ids) > _SHOWN else "")
            rows.append([verdict.value.replace("_", " "), str(len(ids)), f"{len(ids) / total:.1%}", examples])
    columns = [Column("prompts"), Column("count", numeric=True), Column("share", numeric=True), Column("such as")]
    print_table(columns, rows, plain=plain)


def _print_histogram(found: Probe, *, plain: bool) -> None:
    from vrft_bench.harness.cli.printing import Column, print_table

    figures = found.figures
    width = (figures.high - figures.low) / len(figures.histogram)
    most = max(figures.histogram)
    rows = [
        [
            f"{figures.low + width * index:.1f} to {figures.low + width * (index + 1):.1f}",
            str(count),
            "#" * -(-40 * count // most),
        ]
        for index, count in enumerate(figures.histogram)
    ]
    print_table(
        [Column(f"mean {figures.judged_by} of a prompt"), Column("prompts", numeric=True), Column("")],
        rows,
        plain=plain,
    )
