"""Options that several of the leaderboards' verbs take, each worded once."""

from __future__ import annotations

from typing import Annotated

import typer

Runs = Annotated[list[str] | None, typer.Argument(help="Runs' folders, or folders that hold runs. Default: results.")]
Tasks = Annotated[
    list[str] | None,
    typer.Option(
        "--task", "--tasks", "-t", help="Only these: names, globs or groups, comma-separated; may be repeated."
    ),
]
Labels = Annotated[
    list[str] | None,
    typer.Option(metavar="WHICH=NAME,METHOD,SHOTS", help="What to call the runs of a model, or one run's folder."),
]
Published = Annotated[
    bool, typer.Option("--published/--no-published", help="Show Visual-RFT's figures where they may stand.")
]


def chosen_tasks(given: list[str] | None) -> tuple[str, ...] | None:
    """The tasks that ``--task`` names, with commas or repeats; ``None`` where it is not given."""
    from vrft_bench.tasks import select_tasks

    names = [name.strip() for text in given or () for name in text.split(",") if name.strip()]
    return tuple(select_tasks(names)) if names else None
