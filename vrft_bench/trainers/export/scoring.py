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
FORMAT = 1
"""Of manifests; another one is not read."""
INCLUDED = "included"
"""Folder of an export that holds the plugin files that its task comes from."""

_PARTS: dict[str, type] = {"engine": dict, "stage": str, "task": dict, "counts": dict, "files": dict,
                           "images_sha256": str, "settings": list}  # fmt: skip
_TASK_PARTS = {"name", "version", "protocol", "reward", "rewards", "included", "vrft_bench"}

_TURN = "<|im_start|>assistant\n"
"""How the chat templates of the Qwen-VL and InternVL families open the assistant's turn."""
_ENDS = ("<|im_end|>", "<|endoftext|>")


def read_manifest(folder: Path) -> dict[str, Any]:
    """``manifest.json`` of the export in ``folder``. Raises :class:`DataError` where it is absent or damaged."""
    file = folder / MANIFEST
    try:
        manifest: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        _require_manifest(manifest)
    except OSError as error:
        raise DataError(
            f"{folder} is no export: it has no {MANIFEST}", fix="give a folder that `vrft-bench export` wrote"
        ) from error
    except ValueError as error:
        raise DataError(f"{file} is damaged: {error}", fix="export anew into another folder") from error
    return manifest


def _require_manifest(value: Any) -> None:
    """Raise ``ValueError`` for a value that no export has for its manifest."""
    if not isinstance(value, dict) or any(not isinstance(value.get(name), kind) for name, kind in _PARTS.items()):
        raise ValueError("it is no manifest of an export")
    if value.get("format") != FORMAT:
        raise ValueError(f"its format is {value.get('format')!r}, and this version of vrft-bench reads {FORMAT}")
    task = value["task"]
    missing = (_TASK_PARTS - task.keys()) | ({"rows", "images"} - value["counts"].keys())
    if missing or not isinstance(value["engine"].get("name"), str):
        raise ValueError(f"it lacks {', '.join(sorted(missing)) or 'the name of its engine'}")
    if not isinstance(task["included"], list) or any(Path(str(file)).name != file for file in task["included"]):
        raise ValueError("an included file is named by a path")


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
    task = task if made["reward"] is None else task.rewarded_by(made["reward"])
    if (weights := reward_weights(task)) != made["rewards"]:
        raise UserError(
            f"this export was made with the rewards {made['rewards']} of {task.name}, and here they are {weights}",
            fix=f"export anew, or install the vrft-bench that the export was made with ({made['vrft_bench']})",
        )
    return task


def reward_weights(task: Task) -> dict[str, float]:
    """The weight of each component of the score."""
    return {reward.name: task.weights.get(reward.name, 1.0) for reward in task.rewards}


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
