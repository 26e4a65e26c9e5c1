"""``vrft-bench data``: what real data is there, fetching it, few-shot splits, overlap of sets, ask maps."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vrft_bench.errors import DataError, ExitCode, UserError
from vrft_bench.harness.cli.data_root import DATA_VARIABLE, environment_root
from vrft_bench.harness.cli.options import (
    Annotations,
    AsJson,
    Categories,
    Data,
    Debug,
    Images,
    Include,
    ModelArgs,
    Plain,
    Split,
    prepared,
)

if TYPE_CHECKING:
    from vrft_bench.tasks.data.overlap import Named, SharedPair
    from vrft_bench.tasks.data.sources import Need

app = typer.Typer(
    help="Real data: what is there, fetching it, few-shot splits, shared images, ask maps.", no_args_is_help=True
)

_SHOWN_PAIRS = 20
_SHOWN_CATEGORIES = 3


@app.command()
def check(
    task: Annotated[list[str] | None, typer.Argument(help="Tasks, groups or globs. Default: all.")] = None,
    data: Data = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Which files of each task are there, which are missing and where their owners publish them.

    Exit code 3 where a task that is named lacks data for evaluation under a data root.
    """
    from vrft_bench.harness.cli.printing import Column, print_table
    from vrft_bench.registry import TASKS
    from vrft_bench.tasks import select_tasks
    from vrft_bench.tasks.data.fetch import is_there
    from vrft_bench.tasks.data.sources import ByHand, needs

    root = _root(data)
    rows: list[dict[str, Any]] = []
    for name in select_tasks(task) if task else TASKS.names():
        for need in needs(name):
            found = need.found(root) if root is not None and is_there(need, root) else None
            row: dict[str, Any] = {
                "task": name,
                "part": need.part,
                "what": need.what,
                "found": str(found) if found else None,
            }
            if found is None:
                by_hand = isinstance(need.source, ByHand)
                row |= {"place": need.places[0], "published": need.published, "by_hand": by_hand}
            rows.append(row)
    if as_json:
        typer.echo(json.dumps({"data": str(root) if root else None, "needs": rows}))
    else:
        shown = [[row["task"], row["part"], row["what"], row["found"] or "missing"] for row in rows]
        columns = [Column(name) for name in ("task", "for", "what", "where")]
        title = f"data root {root}" if root else "no data root: tasks run on the embedded sample data"
        print_table(columns, shown, plain=plain, title=title)
        for line in _where_to_get(rows):
            typer.echo(line)
        if any(row["found"] for row in rows):
            typer.echo("whether what is there is complete: `vrft-bench validate TASK --data DIR`")
    if root is not None and task and any(row["part"] == "evaluation" and not row["found"] for row in rows):
        raise typer.Exit(ExitCode.DATA_MISSING)


@app.command()
def fetch(
    task: Annotated[list[str], typer.Argument(help="Tasks, groups or globs.")],
    data: Data = None,
    part: Annotated[str, typer.Option(help="evaluation, training or all.")] = "all",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be fetched, and stop.")] = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Download what tasks need from the owners. What is there is left as it is, and what was begun is taken up.

    Each owner gives its data on terms of its own: read them first. Exit code 3 where something is left to fetch by
    hand.
    """
    from vrft_bench.tasks import select_tasks
    from vrft_bench.tasks.data.fetch import fetch_file, fetch_hub, is_there
    from vrft_bench.tasks.data.sources import ByHand, Download, needs

    root = _root(data)
    if root is None:
        raise UserError("no data root is given", fix=f"say where the data go: --data DIR (or ${DATA_VARIABLE})")
    if part not in ("evaluation", "training", "all"):
        raise UserError(f"unknown --part {part!r}", fix="use evaluation, training or all")
    wanted: dict[str, Need] = {}
    for name in select_tasks(task):
        wanted |= {need.what: need for need in needs(name) if part in ("all", need.part)}
    if not wanted:
        typer.echo("these tasks read files of your own: there is nothing to fetch")
        return
    by_hand = False
    for need in wanted.values():
        if root.is_dir() and is_there(need, root):
            typer.echo(f"{need.what}: there, {need.found(root)}")
        elif isinstance(need.source, ByHand):
            typer.echo(f"{need.what}: to fetch by hand from {need.published}; put it at {root / need.places[0]}")
            by_hand = by_hand or need.part != "optional"
        elif dry_run:
            typer.echo(f"{need.what}: {_size_of(need)}, from {need.published} to {root / need.source.into}")
        else:
            if isinstance(need.source, Download):
                fetch_file(need.source, root, progress=_Meter())
            else:
                fetch_hub(need.source, root)
            if not is_there(need, root):
                raise DataError(
                    f"{need.published} came without {need.places[0]}", fix="see what its owner publishes there now"
                )
            typer.echo(f"{need.what}: fetched, {need.found(root)}")
    if by_hand and not dry_run:
        raise typer.Exit(ExitCode.DATA_MISSING)


@app.command()
def split(
    task: Annotated[str, typer.Argument(help="A task's name.")],
    shots: Annotated[str, typer.Option(help="Samples per category; commas for several splits.")] = "1,2,4,8,16",
    seeds: Annotated[str, typer.Option(help="Seeds of the draw; commas for several splits.")] = "0",
    output_dir: Annotated[
        Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Where the manifests go.")
    ] = Path("splits"),
    split: Annotated[str, typer.Option(help="Split of the data to draw from.")] = "train",
    data: Data = None,
    categories: Categories = None,
    annotations: Annotations = None,
    images: Images = None,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Draw few-shot splits and write each to a file: ids, image hashes and seed. A file that is there never changes."""
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.harness.cli.printing import Column, print_table
    from vrft_bench.tasks import get_task
    from vrft_bench.tasks.data.splits import draw_splits, manifest_path, write_manifest

    config = prepared(include, data=data, split=split, categories=categories, annotations=annotations, images=images)
    chosen = get_task(task)
    dataset = chosen.load(with_data_root(config, chosen).data_spec())
    rows: list[dict[str, Any]] = []
    for drawn in draw_splits(dataset, task, _numbers(shots, "shots"), _numbers(seeds, "seeds")):
        path = manifest_path(output_dir, task, drawn.shots, drawn.seed, drawn.split)
        written = write_manifest(drawn, path)
        rows.append(
            {
                "path": str(path),
                "shots": drawn.shots,
                "seed": drawn.seed,
                "samples": len(drawn.samples),
                "short": drawn.short_of(dataset.categories),
                "written": written,
            }
        )
    if as_json:
        typer.echo(json.dumps(rows))
        return
    shown = [
        [
            *(str(row[key]) for key in ("shots", "seed", "samples")),
            _too_few(row["short"]),
            "written" if row["written"] else "unchanged",
            row["path"],
        ]
        for row in rows
    ]
    numeric = [Column(name, numeric=True) for name in ("shots", "seed", "samples")]
    title = f"{task}  |  split {split}  |  data: {'sample' if dataset.is_sample else 'real'}"
    print_table([*numeric, Column("too few"), Column("state"), Column("file")], shown, plain=plain, title=title)


@app.command()
def overlap(
    a: Annotated[str, typer.Argument(help="A folder of images, a ViRFT dataset, or TASK:SPLIT.")],
    b: Annotated[str, typer.Argument(help="The same, to compare with.")],
    threshold: Annotated[int, typer.Option(min=0, max=64, help="Bits of 64 that near-duplicates differ in.")] = 4,
    gate: Annotated[bool, typer.Option("--gate", help="Exit code 1 where any image is shared.")] = False,
    data: Data = None,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Find images that a training and a test set share: the same pixels, or nearly the same (64-bit dHash)."""
    from vrft_bench.harness.cli.printing import Column, print_table
    from vrft_bench.tasks.data.overlap import find_overlap

    report = find_overlap(_images(a, data, include), _images(b, data, include), threshold=threshold)
    if as_json:
        typer.echo(json.dumps(report.to_json()))
    else:
        if report.pairs:
            columns = [Column(a), Column(b), Column("shared")]
            print_table(columns, [_pair_row(pair) for pair in report.pairs[:_SHOWN_PAIRS]], plain=plain)
        if len(report.pairs) > _SHOWN_PAIRS:
            typer.echo(f"... and {len(report.pairs) - _SHOWN_PAIRS} more pairs (--json lists all)")
        if report.unreadable:
            typer.echo(f"{len(report.unreadable)} images cannot be read: {', '.join(report.unreadable[:5])}")
        typer.echo(
            f"{report.images_a:,} and {report.images_b:,} images: {len(report.exact)} pairs with the same pixels, "
            f"{len(report.near)} nearly the same (at most {threshold} of 64 bits apart)"
        )
    if gate and report.pairs:
        raise typer.Exit(ExitCode.GATE_FAILED)


@app.command("ask-map")
def ask_map(
    task: Annotated[str, typer.Argument(help="A detection task's name.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The map, for --ask file:FILE.")],
    model: Annotated[str, typer.Option("--model", "-m", help="backend/name, or a checkpoint folder.")] = "hf/tiny",
    model_args: ModelArgs = None,
    profile: Annotated[str | None, typer.Option(help="Coordinate profile; default: the checkpoint's.")] = None,
    prompt: Annotated[str | None, typer.Option(help="The question, with {category} in it.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 16,
    data: Data = None,
    split: Split = None,
    categories: Categories = None,
    annotations: Annotations = None,
    images: Images = None,
    include: Include = None,
    as_json: AsJson = False,
    plain: Plain = False,
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Ask a model which categories each image shows, and write the map that `run --ask file:MAP` takes."""
    from vrft_bench.harness.ask_map import PROMPT, write_ask_map
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.harness.cli.run import pairs
    from vrft_bench.harness.models import load_backend
    from vrft_bench.harness.plan import resolve_profile
    from vrft_bench.harness.progress import make_progress
    from vrft_bench.tasks import get_task

    config = prepared(
        include,
        data=data,
        split=split,
        categories=categories,
        annotations=annotations,
        images=images,
        model=model,
        profile=profile,
    )
    chosen = get_task(task)
    config = with_data_root(config, chosen)
    backend = load_backend(config.model, pairs(model_args))
    try:
        report = write_ask_map(
            chosen,
            config.data_spec(),
            backend,
            resolve_profile(config, backend),
            output,
            prompt=prompt or PROMPT,
            max_tokens=max_tokens,
            progress=make_progress(plain=plain or as_json),
        )
    finally:
        backend.close()
    if as_json:
        typer.echo(json.dumps(report.to_json()))
        return
    typer.echo(
        f"{report.questions:,} questions about {report.images:,} images: {report.yes:,} yes, "
        f"{report.unclear:,} unclear, {report.failed:,} failed; {report.right / report.questions:.1%} agree with the "
        "truth"
    )
    typer.echo(str(report.path))


def _root(data: str | None) -> Path | None:
    from vrft_bench.tasks.data.layout import check_readable

    given = data or environment_root()
    root = Path(given).expanduser() if given else None
    if root is not None and root.exists() and not root.is_dir():
        raise UserError(f"the data root {root} is a file", fix="name a folder; one that is not there is made")
    if root is not None:
        check_readable(root)
    return root


def _where_to_get(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each thing that is missing, once."""
    seen: set[str] = set()
    for row in rows:
        if row["found"] is None and row["what"] not in seen:
            seen.add(row["what"])
            how = "by hand" if row["by_hand"] else f"`vrft-bench data fetch {row['task']} --data DIR`"
            yield f"{row['what']}: {how}; published at {row['published']}; goes to {row['place']}"


def _size_of(need: Need) -> str:
    from vrft_bench.tasks.data.sources import Download

    size = need.source.size if isinstance(need.source, Download) else None
    return "of unknown size" if size is None else f"{size / 1e6:,.1f} MB"


class _Meter:
    """Shows on stderr how much of a file is there: in place on a terminal, else a line every ten seconds."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = float("-inf")

    def __call__(self, name: str, done: int, total: int | None) -> None:
        now, whole = time.monotonic(), done == total
        if now - self._shown < (0.2 if self._terminal else 10.0) and not whole:
            return
        self._shown = now
        of = f" of {total / 1e6:,.1f}" if total is not None else ""
        end = "\r" if self._terminal and not whole else "\n"
        sys.stderr.write(f"{name}: {done / 1e6:,.1f}{of} MB{end}")
        sys.stderr.flush()


def _too_few(short: dict[str, int]) -> str:
    """The first categories that have fewer samples than asked, with how many they have, and how many more there are."""
    named = [f"{name or 'all'} ({count})" for name, count in short.items()]
    more = len(named) - _SHOWN_CATEGORIES
    return ", ".join(named[:_SHOWN_CATEGORIES]) + (f" and {more} more" if more > 0 else "") or "-"


def _numbers(text: str, name: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError:
        raise UserError(f"--{name} {text!r} is no list of numbers", fix=f"write, say, --{name} 1,2,4") from None


def _images(given: str, data: str | None, include: list[str] | None) -> Iterator[Named]:
    """The images of a folder, a file of rows, or a task's split."""
    from vrft_bench.harness.cli.data_root import with_data_root
    from vrft_bench.registry import TASKS
    from vrft_bench.tasks import get_task
    from vrft_bench.tasks.data.overlap import images_in, images_of

    name, _, part = given.partition(":")
    config = prepared(include, data=data)
    if Path(given).expanduser().exists():
        return images_in(Path(given).expanduser())
    if name not in TASKS:
        raise UserError(
            f"{given!r} is neither a file or folder nor a task",
            fix="give a folder of images, a ViRFT dataset, or a task with its split, such as coco_fewshot:train",
        )
    task = get_task(name)
    spec = with_data_root(config, task).data_spec()
    return images_of(task.load(replace(spec, split=part or None)).samples())


def _pair_row(pair: SharedPair) -> list[str]:
    near = f"{pair.distance} bits apart" + (", mirrored" if pair.mirrored else "")
    return [pair.a, pair.b, "same pixels" if pair.exact else near]
