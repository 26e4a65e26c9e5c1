"""``vrft-bench run``: evaluate a model on tasks."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrft_bench.errors import BackendError, RunInterrupted, UserError
from vrft_bench.harness.cli.data_root import with_data_root
from vrft_bench.harness.cli.options import (
    Annotations,
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

if TYPE_CHECKING:
    from vrft_bench.harness.config import RunConfig
    from vrft_bench.harness.models.base import Backend
    from vrft_bench.harness.plan import RunPlan
    from vrft_bench.tasks.base import Task

HELP_MODEL = "backend/name (hf/PATH_OR_ID, hf/tiny, mock/gold, ...) or the path of a checkpoint folder."


def run(
    task: Annotated[
        list[str] | None,
        typer.Option(
            "--task", "--tasks", "-t", help="Task, group or glob; commas or repeats for more, -NAME leaves one out."
        ),
    ] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help=HELP_MODEL + " Default: hf/tiny.")] = None,
    model_args: ModelArgs = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="OpenAI-compatible server, http://host:8000/v1.")
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option("--max-concurrent", help="Most requests in flight, for backends that ask a server.")
    ] = None,
    tp: Annotated[int | None, typer.Option(help="vLLM: GPUs that one engine is spread over.")] = None,
    dp: Annotated[int | None, typer.Option(help="vLLM: engines side by side.")] = None,
    spawn: Annotated[
        bool | None, typer.Option("--spawn", help="Start a vLLM server for vllm/MODEL, ask it, and stop it.")
    ] = None,
    structured: Annotated[
        str | None, typer.Option(metavar="on|off", help="on: the engine can write nothing but the answer format.")
    ] = None,
    executor: Annotated[str | None, typer.Option(help="local (the default) or ray: shard over a Ray cluster.")] = None,
    address: Annotated[str | None, typer.Option(help="The Ray cluster: auto or ray://HOST:PORT.")] = None,
    replicas: Annotated[int | None, typer.Option(help="Replicas of the model on the Ray cluster.")] = None,
    gpus_per_replica: Annotated[float | None, typer.Option("--gpus-per-replica", help="GPUs for each replica.")] = None,
    cache: Annotated[
        str | None, typer.Option(metavar="DIR", help="Keep answers across runs here, and use those that are there.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="Coordinate profile (see `ls profiles`); default: what the checkpoint's config says."),
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="strict (sound rules, the default) or paper.")] = None,
    reward: Annotated[
        str | None, typer.Option(help="Rewards and weights in place of the task's own: iou=1,format=0.5.")
    ] = None,
    data: Data = None,
    split: Split = None,
    shots: Annotated[
        int | None, typer.Option(help="Only a few-shot split of the training data, drawn by `data split`.")
    ] = None,
    split_seed: SplitSeed = None,
    categories: Categories = None,
    ask: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE",
            help="Which categories to ask of an image: present, all, or file:MAP.json. For several tasks TASK=RULE.",
        ),
    ] = None,
    annotations: Annotations = None,
    images: Images = None,
    limit: Limit = None,
    sample_id: Annotated[
        list[str] | None, typer.Option("--sample-id", help="Only this question, by id; may be repeated.")
    ] = None,
    samples: Annotated[int | None, typer.Option("--samples", "-n", help="Completions per question.")] = None,
    temperature: Annotated[float | None, typer.Option(help="0 is greedy (the default).")] = None,
    top_p: Annotated[float | None, typer.Option("--top-p", help="Nucleus sampling.")] = None,
    max_tokens: Annotated[int | None, typer.Option("--max-tokens", help="Longest completion. Default: 1024.")] = None,
    seed: Seed = None,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", metavar="DIR", help="Where run folders go. Default: results.")
    ] = None,
    fresh: Annotated[
        bool | None, typer.Option("--fresh", help="A new run, even where this one is finished or can be resumed.")
    ] = None,
    max_failures: Annotated[
        float | None, typer.Option("--max-failures", help="Share of failed questions that ends a run. Default: 0.05.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML, TOML or JSON with these settings, or a run.json.")
    ] = None,
    include: Include = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be run, and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON (a line per run).")] = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Evaluate a model on one or more tasks. Repeating a command resumes its run, or shows what it found."""
    from vrft_bench.harness.cli.results import dry_run_json, dry_run_text, print_result, result_json
    from vrft_bench.harness.config import merge, read_config_file
    from vrft_bench.harness.models import open_backend
    from vrft_bench.harness.models.base import Anticipates
    from vrft_bench.harness.of_task import check_ask
    from vrft_bench.harness.plan import choose_task, workload_of
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.harness.run import carry_out
    from vrft_bench.registry import include as include_file
    from vrft_bench.tasks import select_tasks

    flags: dict[str, Any] = {
        "task": _split(task),
        "model": model,
        "model_args": pairs(model_args),
        "base_url": base_url,
        "max_concurrent": max_concurrent,
        "tp": tp,
        "dp": dp,
        "spawn": spawn,
        "structured": _on_off("--structured", structured),
        "executor": executor,
        "address": address,
        "replicas": replicas,
        "gpus_per_replica": gpus_per_replica,
        "cache": cache,
        "profile": profile,
        "protocol": protocol,
        "reward": reward,
        "data": data,
        "split": split,
        "shots": shots,
        "split_seed": split_seed,
        "categories": categories,
        "ask": _ask_rules(ask),
        "annotations": annotations,
        "images": images,
        "limit": limit,
        "sample_id": sample_id,
        "samples": samples,
        "temperature": temperature,
        "top_p": top_p,
        "max_tokens": max_tokens,
        "seed": seed,
        "output_dir": output_dir,
        "fresh": fresh,
        "max_failures": max_failures,
        "include": include,
    }
    given = {name: value for name, value in flags.items() if value is not None}
    base = read_config_file(config) if config is not None else {}
    settings = merge(base, given, source="the command line" if config is None else f"{config} and the command line")
    for file in settings.include:
        include_file(file)
    if not settings.task:
        raise UserError("no task is given", fix="say --task NAME; `vrft-bench ls tasks` lists them")
    tasks = [choose_task(name, settings) for name in select_tasks(settings.task)]
    check_ask(settings, [chosen.name for chosen in tasks])
    backend = open_backend(settings)
    try:
        plans = _plans(tasks, backend, settings)
        if dry_run:
            for plan in plans:
                view = dry_run_json(plan, backend)
                typer.echo(json.dumps(view) if as_json else dry_run_text(view))
            return
        if isinstance(backend, Anticipates):
            backend.anticipate(workload_of(plans))
        outcomes: dict[str, UserError | None] = {}
        for plan in plans:
            try:
                result = carry_out(plan, backend, progress=make_progress(plain=plain or as_json))
            except UserError as error:
                if len(plans) == 1:
                    raise
                outcomes[plan.task.name] = error
                if isinstance(error, RunInterrupted):
                    break
            else:
                outcomes[plan.task.name] = None
                if as_json:
                    typer.echo(json.dumps(result_json(result)))
                else:
                    print_result(result, plain=plain)
        _raise_unfinished([plan.task.name for plan in plans], outcomes)
    finally:
        backend.close()


def _plans(tasks: Sequence[Task], backend: Backend, settings: RunConfig) -> list[RunPlan]:
    """A plan per task, made before anything is asked: what is wrong with any of them is said at once."""
    from vrft_bench.harness.of_task import config_of_task
    from vrft_bench.harness.plan import make_plan, resolve_profile

    plans = []
    failed: dict[str, UserError] = {}
    for task in tasks:
        try:
            own = with_data_root(config_of_task(settings, task), task)
            plans.append(make_plan(task, resolve_profile(own, backend), own))
        except BackendError:  # of the model, which all tasks share
            raise
        except UserError as error:
            if len(tasks) == 1:
                raise
            failed[task.name] = error
    if failed:
        lines = "".join("\n  " + f"{name}: {error}".replace("\n", "\n  ") for name, error in failed.items())
        left = "" if len(failed) == len(tasks) else f", or leave them out: --task {_without(settings.task, failed)}"
        said = f"{len(failed)} of {len(tasks)} tasks cannot be run, and nothing was asked:{lines}"
        summary = UserError(said, fix=f"mend that{left}")
        summary.exit_code = max(error.exit_code for error in failed.values())
        raise summary
    return plans


def _raise_unfinished(names: Sequence[str], outcomes: Mapping[str, UserError | None]) -> None:
    """Raise for the tasks of one command that did not finish: a line for each, and the worst exit code."""
    errors = [error for error in outcomes.values() if error is not None]
    if not errors:
        return
    lines = [f"{name}: {' '.join(str(error).split())}" for name, error in outcomes.items() if error is not None]
    lines += [f"{name}: not begun" for name in names if name not in outcomes]
    summary = UserError(
        f"{len(lines)} of {len(names)} tasks are not finished:" + "".join(f"\n  {line}" for line in lines),
        fix="repeat the command: what is finished is shown, and the rest goes on where it stopped",
    )
    summary.exit_code = max(error.exit_code for error in errors)
    raise summary from errors[0]


def _on_off(flag: str, value: str | None) -> bool | None:
    if value is None:
        return None
    if value.lower() not in ("on", "off"):
        raise UserError(f"{flag} {value!r} is neither on nor off", fix=f"write {flag} on")
    return value.lower() == "on"


def _without(wanted: Sequence[str], names: Iterable[str]) -> str:
    return ",".join([*wanted, *(f"-{name}" for name in names)])


def _ask_rules(given: list[str] | None) -> str | dict[str, str] | None:
    """A rule for every task, or by task where they are written ``TASK=RULE``."""
    if given is None:
        return None
    plain = [text for text in given if "=" not in text or text.startswith("file:")]
    if len(given) == 1 and plain:
        return plain[0]
    if plain:
        raise UserError(
            f"--ask {plain[0]!r} stands beside another rule, and does not say for which task",
            fix="write a rule for each: --ask coco_fewshot=file:MAP.json --ask lvis_fewshot=all",
        )
    rules: dict[str, str] = {}
    for text in given:
        task, _, rule = (part.strip() for part in text.partition("="))
        if task in rules:
            raise UserError(f"--ask {task}=... is given twice", fix="give each task one rule")
        rules[task] = rule
    return rules


def _split(values: list[str] | None) -> list[str] | None:
    if values is None:
        return None
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def pairs(values: list[str] | None) -> dict[str, Any] | None:
    """``["a=1,b=x"]`` -> ``{"a": 1, "b": "x"}``; a value is JSON where it reads as JSON, else text."""
    if values is None:
        return None
    found: dict[str, Any] = {}
    for part in (part for value in values for part in _arguments(value)):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise UserError(f"--model-args {part!r} is not of the form name=value", fix="write, say, -M batch_size=8")
        try:
            found[name.strip()] = json.loads(value)
        except ValueError:
            found[name.strip()] = {"True": True, "False": False}.get(value, value)
    return found


def _arguments(text: str) -> Iterator[str]:
    """``text`` parted at its commas, but for those inside a JSON object or list: ``a=1,b={"c": 2, "d": 3}`` is two."""
    held = ""
    for part in text.split(","):
        held = f"{held},{part}" if held else part
        value = held.partition("=")[2].strip()
        if value[:1] in ("{", "[") and not _is_json(value):
            continue
        if held.strip():
            yield held.strip()
        held = ""
    if held:
        yield held.strip()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
