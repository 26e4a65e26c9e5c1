"""``log.jsonl``: what an engine logs, a JSON line per logged step, without gaps or repeats whatever ended a process."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

LOG = "log.jsonl"


def append_log(path: Path, values: Mapping[str, Any]) -> None:
    """Append one line. Numbers that JSON does not have become null."""
    line = {name: _json_number(value) for name, value in values.items()}
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def keep_log_until(path: Path, step: int) -> None:
    """Keep the lines of a training that goes on after ``step``: none where it begins, and never a torn one."""
    if not path.is_file():
        return
    kept = [json.dumps(line) for line in read_log(path) if step and line.get("step", 0) <= step]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    partial.replace(path)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, but for a torn last one."""
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _json_number(value: Any) -> Any:
    if isinstance(value, str):
        try:
            value = float(value)  # transformers logs some numbers as text
        except ValueError:
            return value
    return None if isinstance(value, float) and not math.isfinite(value) else value
