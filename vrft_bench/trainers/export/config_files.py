"""How configurations and launch scripts are written: YAML in the order of its keys, scripts with values filled in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from vrft_bench.trainers.export.base import Export

_HEADING = (
    "# Written by `vrft-bench export` with every option that matters set, so that no default of the engine decides.\n"
    "# It is yours to edit; `vrft-bench export --check` holds only data, images and reward to what was written.\n"
)


def write_yaml(file: Path, value: Mapping[str, Any], notes: str = "") -> None:
    """Write ``value`` with a heading; ``notes`` are lines for its reader."""
    import yaml

    comments = "".join(f"# {line}\n" for line in notes.splitlines())
    file.write_text(_HEADING + comments + yaml.safe_dump(dict(value), sort_keys=False), encoding="utf-8")


def write_launch(export: Export, template: str, **values: Any) -> None:
    """Write ``launch.sh`` from a script of ``shipped``, in which ``@NAME@`` stands for a value.

    Raises ``KeyError`` for a name without a value: a defect of ours.
    """
    text = (files("vrft_bench.trainers.export.shipped") / template).read_text(encoding="utf-8")
    known = {"MODEL": export.model, "ROWS": len(export.rows), **{name.upper(): item for name, item in values.items()}}
    filled = re.sub(r"@([A-Z_]+)@", lambda match: str(known[match[1]]), text)
    (export.folder / "launch.sh").write_text(filled, encoding="utf-8", newline="\n")


def prompts_per_device(export: Export) -> int:
    """How many prompts a device asks per step: ``batch_size`` counts completions."""
    assert export.how.batch_size is not None
    assert export.how.group_size is not None
    return max(1, export.how.batch_size // export.how.group_size)
