"""``vrft-bench export``: a task as a folder that another training engine runs, with the same questions and score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Split,
    SplitSeed,
)
from vrft_bench.trainers.cli.options import Manifest, MaxPixels, Protocol, Reward, Shots, TaskToLearn

if TYPE_CHECKING:
    from vrft_bench.harness.config import RunConfig

RECIPE = "modern"


def export(
    engine: Annotated[
        str | None,
        typer.Option("--for", help="The engine: verl, ms-swift, easyr1, openrlhf, llamafactory or verifiers."),
    ] = None,
    stage: Annotated[str, typer.Option(help="grpo or sft.")] = "grpo",
    task: TaskToLearn = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", "-o", metavar="DIR", help="A folder that is not there yet.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Coordinate profile of the model that will be trained.")] = None,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="What launch.sh trains. Default: a small one of the profile.")
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="Where hyperparameters are from: modern, visual_rft, or a YAML file of your own.")
    ] = RECIPE,
    max_pixels: MaxPixels = None,
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
    protocol: Protocol = None,
    reward: Reward = None,
    check: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Examine an export in place of writing one; needs no engine.")
    ] = None,
    include: Include = None,
    as_json: AsJson = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Write a folder that another engine trains on: data, images, reward, configuration, launch.sh and manifest.json.

    Data and rules are chosen as for `train`, and the score is the very same.
    """
    if check is not None:
        from vrft_bench.trainers.export.check import check_export

        _print(check_export(check, include or []), check, as_json=as_json, done="whole")
        return
    for name, value in (("--for ENGINE", engine), ("--task NAME", task), ("--output-dir DIR", output_dir)):
        if value is None:
            raise UserError(f"export needs {name}", fix="vrft-bench export --for verl -t coco_fewshot -o export")
    assert engine is not None
    assert output_dir is not None
    from vrft_bench.trainers.export.folder import find_engine, write_export
    from vrft_bench.trainers.recipes import read_recipe

    chosen = find_engine(engine, stage)
    values = read_recipe(recipe, stage)
    if max_pixels is not None:
        values["max_pixels"] = max_pixels
    flags: dict[str, Any] = {
        "task": [task], "data": data, "split": split, "shots": shots, "split_seed": split_seed, "limit": limit,
        "categories": categories, "ask": ask, "annotations": annotations, "images": images, "profile": profile,
        "protocol": protocol, "reward": reward, "include": include,
    }  # fmt: skip
    config = _config({"split": "train"} | {name: value for name, value in flags.items() if value is not None})
    found, written = write_export(
        chosen,
        chosen.stages[chosen.stages.index(stage)],
        config,
        output_dir.expanduser().absolute(),
        recipe=values,
        model=model,
        manifest=manifest,
    )
    _print(found, output_dir, as_json=as_json, done="written" if written else "there already")


def _config(values: dict[str, Any]) -> RunConfig:
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.harness.config import make_config
    from vrft_bench.harness.plan import choose_task
    from vrft_bench.registry import include as include_file

    config = make_config(values)
    for file in config.include:
        include_file(file)
    return with_data_root(config, choose_task(config.task[0], config))


def _print(manifest: dict[str, Any], folder: Path, *, as_json: bool, done: str) -> None:
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), **manifest}))
        return
    engine, task, counts = manifest["engine"], manifest["task"], manifest["counts"]
    typer.echo(
        f"{task['name']} {manifest['stage']} for {engine['name']} {engine['version']}  |  "
        f"profile {manifest['profile']['name']}  |  protocol {task['protocol']}  |  "
        f"data: {manifest['data']['kind']}  |  {counts['rows']} questions, {counts['images']} images  |  {done}"
    )
    for line in manifest["left_out"]:
        typer.echo(f"note: {engine['name']} cannot be told {line}")
    typer.echo(str(folder))
