"""Options that several of the trainers' verbs take, each worded once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

TaskToLearn = Annotated[str | None, typer.Option("--task", "-t", help="The task to learn.")]
Shots = Annotated[int | None, typer.Option(help="A few-shot split that `data split` drew.")]
Manifest = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Only the samples that `probe` has found worth training on.")
]
Profile = Annotated[str | None, typer.Option(help="Coordinate profile; default: the checkpoint's.")]
Protocol = Annotated[str | None, typer.Option(help="strict (the default) or paper.")]
Reward = Annotated[str | None, typer.Option(help="Rewards and weights: iou=1,format=0.5.")]
MaxPixels = Annotated[int | None, typer.Option("--max-pixels", help="Largest area of a resized image.")]
