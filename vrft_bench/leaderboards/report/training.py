"""The curves of a training, read from the files that it leaves: ``log.jsonl`` and the watch's ``curve.jsonl``.

Both are JSON lines with a ``step``; a torn or foreign line is passed over. Nothing here knows which engine wrote them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vrft_bench.errors import DataError
from vrft_bench.harness.provenance import RECORD
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.registry import MODELS

LOG, CURVES = "log.jsonl", ("curve.jsonl", "watch/curve.jsonl")
SHOWN = ("reward", "loss", "kl", "grad_norm", "entropy", "completions/mean_length", "learning_rate")
"""What is drawn of a log, in this order, and after it every reward of its own (``rewards/NAME/mean``)."""
_POINTS = 600
"""A longer series is thinned to so many points."""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """One evaluated checkpoint."""

    step: float
    value: float | None
    low: float | None = None
    high: float | None = None
    reward: float | None = None
    mark: str = "fine"


@dataclass(frozen=True)
class Training:
    """``series`` are (step, value) points by name; ``evaluated`` the checkpoints, with the figure called ``metric``.

    ``run`` is the place of the run whose model came from it, where one did.
    """

    name: str
    series: Mapping[str, tuple[tuple[float, float], ...]] = field(default_factory=dict)
    metric: str = ""
    evaluated: tuple[Evaluated, ...] = ()
    run: int | None = None

    def to_json(self) -> dict[str, Any]:
        """As the page reads it."""
        return asdict(self)


def read_training(folder: Path) -> Training:
    """The curves in ``folder``, a training's or a watch's. Raises :class:`DataError` where there are none."""
    log = _series(folder / LOG) if (folder / LOG).is_file() else {}
    curve = next((folder / name for name in CURVES if (folder / name).is_file()), None)
    metric, evaluated = _evaluated(curve) if curve else ("", ())
    if not log and not evaluated:
        raise DataError(
            f"{folder} holds no training curves: neither {LOG} nor {' or '.join(CURVES)}",
            fix="give the folder that `train` or `watch` wrote as --training",
        )
    return Training(folder.name, log, metric, evaluated)


def training_of(row: RunRow) -> Training | None:
    """The curves of the training that the run's model came from, where its folder is still there."""
    kind, slash, name = row.manifest.model.partition("/")
    place = Path(name if slash and kind in MODELS else row.manifest.model).expanduser()
    for folder in (place, place.resolve().parent) if place.is_dir() else ():
        if (folder / RECORD).is_file():
            try:
                return read_training(folder)
            except DataError:
                return None
    return None


def _series(path: Path) -> dict[str, tuple[tuple[float, float], ...]]:
    points: dict[str, dict[float, float]] = {}
    for line in _lines(path):
        step = _number(line.get("step"))
        if step is None:
            continue
        for name, value in line.items():
            number = _number(value)
            if number is not None and (name in SHOWN or _own_reward(name)):
                points.setdefault(name, {})[step] = number
    order = [*SHOWN, *sorted(name for name in points if name not in SHOWN)]
    return {name: _thinned(sorted(points[name].items())) for name in order if len(points.get(name, ())) > 1}


def _evaluated(path: Path) -> tuple[str, tuple[Evaluated, ...]]:
    """The evaluations by step; one that was made again, of other files, takes the place of all from its step on."""
    metric = ""
    found: dict[float, Evaluated] = {}
    signatures: dict[float, object] = {}
    for line in _lines(path):
        step = _number(line.get("step"))
        if step is None or "value" not in line:
            continue
        metric = str(line.get("metric", "")) or metric
        if signatures.setdefault(step, line.get("signature")) != line.get("signature"):
            found = {earlier: row for earlier, row in found.items() if earlier < step}
            signatures = {earlier: signatures[earlier] for earlier in found} | {step: line.get("signature")}
        numbers = {name: _number(line.get(name)) for name in ("value", "low", "high", "reward")}
        found[step] = Evaluated(step, **numbers, mark=str(line.get("mark", "fine")))
    return metric, tuple(found[step] for step in sorted(found))


def _own_reward(name: str) -> bool:
    return name.startswith("rewards/") and name.endswith("/mean")


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if isinstance(value, dict):
            yield value


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _thinned(points: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    stride = -(-len(points) // _POINTS)
    return tuple(points[::stride])
