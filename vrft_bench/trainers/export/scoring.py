"""What an exported reward imports: the task that an export was made for, and the text that a completion is.

Needs the standard library and numpy only, so that ``pip install --no-deps vrft-bench`` is enough in an engine's
environment.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError, UserError
from vrft_bench.registry import include
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import Task

MANIFEST = "manifest.json"
INCLUDED = "included"
"""Folder of an export that holds the plugin files that its task comes from."""

_TURN = "<|im_start|>assistant\n"
"""How the chat templates of the Qwen-VL and InternVL families open the assistant's turn."""
_ENDS = ("<|im_end|>", "<|endoftext|>")


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of the export in ``folder``. Raises :class:`DataError` where it is absent or damaged."""
    file = folder / MANIFEST
    try:
        manifest = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(manifest, dict) or not {"engine", "stage", "task", "files"} <= manifest.keys():
            raise ValueError("it is no manifest of an export")
    except OSError as error:
        raise DataError(
            f"{folder} is no export: it has no {MANIFEST}", fix="give a folder that `vrft-bench export` wrote"
        ) from error
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}", fix="export anew into another folder") from error
    return manifest


def exported_task(folder: Path) -> Task:
    """The task of the export in ``folder``, with its protocol and its rewards.

    Raises :class:`UserError` where the installed package has another version of the task than the export was made with.
    An engine that swallows what a reward raises then fails when it loads the reward, not silently at every step.
    """
    made = read_manifest(folder)["task"]
    for file in made["included"]:
        include(folder / INCLUDED / file)
    task = get_task(made["name"], made["protocol"])
    if task.version != made["version"]:
        raise UserError(
            f"this export was made with version {made['version']!r} of {task.name}, and the installed vrft-bench has "
            f"version {task.version!r}",
            fix=f"export anew, or install the vrft-bench that the export was made with ({made['vrft_bench']})",
        )
    task.require_libraries()
    return task if made["reward"] is None else task.rewarded_by(made["reward"])


def completion_of(query: str, prompt: str) -> str:
    """The completion in ``query``: the whole conversation as an engine decodes it, special tokens included.

    ``prompt`` is the rendered prompt that the engine began with. The query repeats it, with more image tokens, so the
    completion begins after as many openings of the assistant's turn as the prompt has; a completion that writes
    another one itself is not cut. Raises :class:`UserError` for a prompt that opens no such turn.
    """
    turns = prompt.count(_TURN)
    parts = query.split(_TURN, turns)
    if not turns or len(parts) <= turns:
        raise UserError(
            f"the prompt does not open the assistant's turn with {_TURN!r}, so its completion cannot be told from it",
            fix="use a model whose chat template is ChatML (Qwen-VL, InternVL)",
        )
    text = parts[-1]
    while text.endswith(_ENDS):
        text = next(text.removesuffix(end) for end in _ENDS if text.endswith(end))
    return text
