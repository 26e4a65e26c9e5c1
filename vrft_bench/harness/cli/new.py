"""``vrft-bench new model|task|trainer NAME``: begin a plugin with a file that works and a test that passes."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vrft_bench.harness.cli.options import Debug

if TYPE_CHECKING:
    from vrft_bench.harness.scaffold import Scaffold

app = typer.Typer(help="Write the beginnings of a model, a task or a trainer of your own.", no_args_is_help=True)


class Family(StrEnum):
    """The task families."""

    DETECTION = "detection"
    CLASSIFICATION = "classification"
    GROUNDING = "grounding"


Name = Annotated[str, typer.Argument(help="Its name: lower-case letters, digits and underscores.")]
Place = Annotated[Path, typer.Option("--output-dir", "-o", metavar="DIR", help="Where the two files go.")]


@app.command()
def model(
    name: Name,
    profile_only: Annotated[
        bool, typer.Option("--profile-only", help="Only what its coordinates mean, for a model that a backend runs.")
    ] = False,
    output_dir: Place = Path(),
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Write NAME.py, a model backend (or a profile), and test_NAME.py."""
    from vrft_bench.harness.scaffold import scaffold

    written = scaffold("profile" if profile_only else "model", name, output_dir)
    _tell(
        written,
        f"vrft-bench run --include {written.plugin} --profile {name} --task lvis_fewshot --limit 20 --model mock/gold"
        if profile_only
        else f"vrft-bench run --include {written.plugin} --model {name}/NAME --task lvis_fewshot --limit 20",
    )


@app.command()
def task(
    name: Name,
    family: Annotated[Family, typer.Option(help="What kind of task.")] = Family.DETECTION,
    output_dir: Place = Path(),
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Write NAME.py, a task, and test_NAME.py."""
    from vrft_bench.harness.scaffold import scaffold

    written = scaffold(family.value, name, output_dir)
    _tell(written, f"vrft-bench run --include {written.plugin} --task {name} --model mock/gold")


@app.command()
def trainer(
    name: Name,
    output_dir: Place = Path(),
    debug: Debug = False,  # noqa: ARG001 - read by main
) -> None:
    """Write NAME.py, a trainer, and test_NAME.py."""
    from vrft_bench.harness.scaffold import scaffold

    written = scaffold("trainer", name, output_dir)
    few = "--task coco_fewshot --limit 40 --steps 5 -o out"
    _tell(written, f"vrft-bench train --include {written.plugin} --trainer {name} {few}")


def _tell(written: Scaffold, command: str) -> None:
    typer.echo(f"wrote {written.plugin} and {written.test}")
    typer.echo(f"test it:     python -m pytest {written.test}")
    typer.echo(f"use it:      {command}")
    typer.echo("package it:  with an entry point no --include is needed; in the package's pyproject.toml:")
    typer.echo("\n".join(f"    {line}" for line in written.entry_point.splitlines()))
