"""Recipes: hyperparameters that belong together, in small YAML files whose comments say where each value is from.

A recipe file holds a mapping per trainer (``grpo:``, ``sft:``), so that one name serves both.
"""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError, did_you_mean


def recipe_names() -> list[str]:
    """The recipes that ship."""
    return sorted(file.name.removesuffix(".yaml") for file in files(__name__).iterdir() if file.name.endswith(".yaml"))


def read_recipe(name: str, trainer: str) -> dict[str, Any]:
    """The values of recipe ``name`` (one that ships, or a YAML file) for ``trainer``.

    Raises :class:`UserError` for a recipe that is not there, is not YAML, or says nothing about the trainer.
    """
    import yaml

    from vrft_bench.trainers.base import Hyperparameters

    if name in recipe_names():
        text = (files(__name__) / f"{name}.yaml").read_text(encoding="utf-8")
    else:
        file = Path(name).expanduser()
        if not file.is_file():
            raise UserError(
                f"--recipe {name!r} is no recipe and no file{did_you_mean(name, recipe_names())}",
                fix=f"use {', '.join(recipe_names())}, or the path of a YAML file",
            )
        text = file.read_text(encoding="utf-8")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"--recipe {name!r} is not YAML: {error}", fix="mend the file") from None
    values = content.get(trainer) if isinstance(content, dict) else None
    if not isinstance(values, dict):
        there = ", ".join(content) if isinstance(content, dict) else "nothing"
        raise UserError(
            f"recipe {name!r} has no part for trainer {trainer!r}",
            fix=f"it has {there}: choose one, or add `{trainer}:`",
        )
    for key in values:
        if key not in Hyperparameters.model_fields and key != "engine_args":
            raise UserError(
                f"recipe {name!r}: {key!r} is no hyperparameter{did_you_mean(key, Hyperparameters.model_fields)}",
                fix=f"write {', '.join(Hyperparameters.model_fields)} or engine_args",
            )
    return values
