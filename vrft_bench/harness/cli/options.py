"""Options that several verbs take, each worded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from vrft_bench.harness.cli.data_root import HELP_DATA

if TYPE_CHECKING:
    from vrft_bench.harness.config import RunConfig

Data = Annotated[str | None, typer.Option(metavar="DIR", help=HELP_DATA)]
Split = Annotated[
    str | None, typer.Option(help="Split of the data, such as val or train; virft: Visual-RFT's own training set.")
]
SplitSeed = Annotated[int | None, typer.Option("--split-seed", help="Its seed. Default: 0.")]
"""The seed of the few-shot split that ``--shots`` chooses."""
Limit = Annotated[int | None, typer.Option("--limit", "-L", help="Only the first N questions.")]
Categories = Annotated[str | None, typer.Option(help="Only these categories, comma-separated.")]
Ask = Annotated[str | None, typer.Option(help="Which categories to ask of an image: present, all, or file:MAP.json.")]
Annotations = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", help="Your own annotations, in COCO's or LVIS's format, or rows of image, problem, solution."
    ),
]
Images = Annotated[str | None, typer.Option(metavar="DIR", help="The image folder of your own data.")]
ModelArgs = Annotated[
    list[str] | None, typer.Option("--model-args", "-M", help="k=v for the backend; commas or repeats for more.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Include = Annotated[
    list[str] | None, typer.Option("--include", help="A Python file that registers tasks, models or profiles.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Plain = Annotated[bool, typer.Option("--plain", help="No colours, no bar, no lines.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
"""Read by ``main``, from the arguments themselves."""


def prepared(include: list[str] | None, **flags: str | None) -> RunConfig:
    """The configuration that ``flags`` give, after the files of ``include`` have registered what they register."""
    from vrft_bench.harness.config import make_config
    from vrft_bench.registry import include as include_file

    for file in include or ():
        include_file(file)
    return make_config({name: value for name, value in flags.items() if value is not None})
