"""``vrft-bench doctor``: whether a model runs here, and whether it speaks the coordinates that its profile declares."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.options import AsJson, Debug, Include, Plain
from vrft_bench.harness.cli.run import HELP_MODEL, pairs

if TYPE_CHECKING:
    from vrft_bench.harness.doctor.examination import Asked, Examination
    from vrft_bench.tasks.coordinates import ModelProfile


def doctor(
    model: Annotated[str, typer.Option("--model", "-m", help=HELP_MODEL)] = "hf/tiny",
    model_args: Annotated[
        list[str] | None, typer.Option("--model-args", "-M", help="k=v for the backend; commas or repeats for more.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="OpenAI-compatible server, http://host:8000/v1.")
    ] = None,
    max_concurrent: Annotated[int | None, typer.Option("--max-concurrent", help="Most requests in flight.")] = None,
    tp: Annotated[int | None, typer.Option(help="vLLM: GPUs that one engine is spread over.")] = None,
    dp: Annotated[int | None, typer.Option(help="vLLM: engines side by side.")] = None,
    spawn: Annotated[bool | None, typer.Option("--spawn", help="Start a vLLM server for vllm/MODEL.")] = None,
    profile: Annotated[
        str | None, typer.Option(help="The profile to examine; default: what the checkpoint's config says.")
    ] = None,
    per_size: Annotated[
        int, typer.Option("--per-size", min=4, help="Drawn images of each of the six sizes, two questions each.")
    ] = 16,
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Longest answer.")] = 512,
    output_dir: Annotated[
        str | None, typer.Option("--output-dir", "-o", metavar="DIR", help="Where runs would go: is there room?")
    ] = None,
    include: Include = None,
    executor: Annotated[
        str | None,
        typer.Option("--executor", "--address", "--replicas", "--gpus-per-replica", hidden=True, help="Of run alone."),
    ] = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Examine a model: environment, loading, prompt, and by measurement the coordinates that it speaks.

    Exit code 1: the environment is broken, or the model does not speak as its profile declares; 4: it does not load.
    """
    from vrft_bench.harness.config import make_config
    from vrft_bench.harness.doctor.examination import examine
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.registry import include as include_file

    if executor not in (None, "local"):
        raise UserError(
            "doctor examines the model on this machine, not on a cluster",
            fix="leave out --executor and its flags, and run doctor on a machine of the cluster",
        )
    flags = {
        "model": model,
        "model_args": pairs(model_args),
        "base_url": base_url,
        "max_concurrent": max_concurrent,
        "tp": tp,
        "dp": dp,
        "spawn": spawn,
        "profile": profile,
        "max_tokens": max_tokens,
        "output_dir": output_dir,
        "include": include,
    }
    config = make_config({name: value for name, value in flags.items() if value is not None})
    for file in config.include:
        include_file(file)
    seen = examine(config, per_size=per_size, progress=make_progress(plain=plain or as_json))
    if as_json:
        typer.echo(json.dumps(_json(seen)))
    else:
        _print(seen, plain=plain)
    raise typer.Exit(seen.exit_code)


def _print(seen: Examination, *, plain: bool) -> None:
    from vrft_bench.harness.cli.printing import Column, print_table

    rows = [
        [check.name, check.state, check.detail + (f"; fix: {check.fix}" if check.fix else "")] for check in seen.checks
    ]
    print_table([Column("environment"), Column("state"), Column("what there is")], rows, plain=plain)
    for name, text in _model_lines(seen):
        typer.echo(f"{name:<10}" + text.replace("\n", "\n" + " " * 10))
    typer.echo("")
    for one in seen.asked:
        _print_readings(one, plain=plain)
    for note in seen.notes:
        typer.echo(f"note: {note}")
    if seen.verdict is not None:
        typer.echo(f"verdict: {seen.verdict.text}")


def _model_lines(seen: Examination) -> list[tuple[str, str]]:
    lines = [("model", f"{seen.model} {json.dumps(seen.identity, default=str)[:200]}".strip())]
    if seen.problem is not None:
        return [*lines, ("FAILED", str(seen.problem))]
    profile = _describe(seen.profile) if seen.profile is not None else "none is known: a run would ask for --profile"
    tail = seen.prompt_tail
    shown = "..." + tail if tail is not None else "rendered by the backend, and not to be seen from here"
    return [*lines, ("profile", profile), ("prompt", shown)]


def _describe(profile: ModelProfile) -> str:
    order = "" if profile.axes == "xyxy" else ", y first"
    resized = ""
    if profile.factor is not None:
        limits = f"{profile.min_pixels:,} to {profile.max_pixels:,} pixels"
        resized = f"; images are resized to multiples of {profile.factor}, {limits}"
    return f"{profile.name}: {profile.convention}{order}{resized}"


def _print_readings(one: Asked, *, plain: bool) -> None:
    """Mean IoU per reading and size, the best first; under it what the numbers of the answers run to."""
    from vrft_bench.harness.cli.printing import Column, print_table
    from vrft_bench.harness.doctor.squares import SIZES

    found = one.found
    order = sorted(range(len(found.ways)), key=found.mean, reverse=True)
    columns = [Column("read as"), Column("IoU", numeric=True), Column("95% interval", numeric=True)]
    columns += [Column(_size(size), numeric=True) for size in SIZES]
    rows = []
    for way in order:
        low, high = found.interval(way) or (0.0, 1.0)
        means = (found.mean_of_size(way, size) for size in SIZES)
        cells = ["-" if mean is None else f"{mean:.2f}" for mean in means]
        name = found.ways[way].name + (" (as asked)" if way == 0 else "")
        rows.append([name, f"{found.mean(way):.3f}", f"[{low:.3f}, {high:.3f}]", *cells])
    spans = [found.span(size) for size in SIZES]
    rows.append(["images as the model sees them", "", "", *(_size(found.seen(size)) for size in SIZES)])
    rows.append(["numbers across the image", "", "", *(_size(span) for span in spans)])
    answers = len(found.answers)
    statuses = ", ".join(f"{count} {status}" for status, count in found.statuses.items())
    title = f"asked in {one.profile.name}: {answers} answers about {len(found.images)} images ({statuses})"
    print_table(columns, rows, plain=plain, title=title, footer=2)


def _size(size: tuple[float, float] | None) -> str:
    return "-" if size is None else "x".join(f"{round(side, 1):g}" for side in size)


def _json(seen: Examination) -> dict[str, Any]:
    return {
        "model": seen.model,
        "environment": [check.to_json() for check in seen.checks],
        "problem": None if seen.problem is None else {"message": seen.problem.message, "fix": seen.problem.fix},
        "identity": seen.identity,
        "profile": None if seen.profile is None else seen.profile.to_json(),
        "prompt_tail": seen.prompt_tail,
        "asked": [_asked_json(one) for one in seen.asked],
        "verdict": None if seen.verdict is None else seen.verdict.to_json(),
        "notes": list(seen.notes),
        "exit_code": seen.exit_code,
    }


def _asked_json(one: Asked) -> dict[str, Any]:
    from vrft_bench.harness.doctor.squares import SIZES

    found = one.found
    return {
        "profile": one.profile.to_json(),
        "answers": len(found.answers),
        "failures": one.failures,
        "status": found.statuses,
        "verdict": one.verdict.to_json(),
        "readings": [
            {
                "name": way.name,
                "iou": found.mean(index),
                "interval": found.interval(index),
                "chance": float(found.chance[:, index].mean()),
                "by_size": {_size(size): found.mean_of_size(index, size) for size in SIZES},
            }
            for index, way in enumerate(found.ways)
        ],
        "sizes": {_size(size): {"seen": found.seen(size), "numbers_across": found.span(size)} for size in SIZES},
    }
