"""What a run's row is called: the base model, how it was trained, and on how many shots.

A run keeps the trainings behind its model (see :mod:`vrft_bench.harness.provenance`). Where it has none on record, the
model is called ``base``, unless it is a folder: of that nobody knows whether it was trained elsewhere. ``--label`` says
what no record does.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from vrft_bench.errors import UserError
from vrft_bench.harness.models.checkpoint import BUNDLED
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.registry import MODELS

BASE, UNKNOWN = "base", "-"
_METHODS = {"grpo": "rft", "sft": "sft"}
"""What the paper calls the trainers' results."""
_ORDER = (BASE, UNKNOWN, "sft", "rft")
_GENERIC = re.compile(r"final|best|checkpoint-\d+")


@dataclass(frozen=True, slots=True)
class Label:
    """``shots`` is 0 for a base model and ``None`` where it is not known."""

    model: str
    method: str = UNKNOWN
    shots: int | None = None

    def order(self) -> tuple[int, int, str, str]:
        """Base models first, then by shots; of those sft before rft."""
        shots = 0 if self.method == BASE else self.shots if self.shots is not None else 1 << 30
        place = _ORDER.index(self.method) if self.method in _ORDER else len(_ORDER)
        return (-1 if self.method == UNKNOWN else shots, place, self.method, self.model.casefold())

    @property
    def name(self) -> str:
        """All of it in one line."""
        shots = f", {self.shots} shots" if self.shots else ""
        return f"{self.model}, {self.method}{shots}" if self.method != UNKNOWN else self.model


@dataclass(frozen=True, slots=True)
class LabelRule:
    """One ``--label``: what the runs are called whose model, or folder, ``pattern`` matches."""

    pattern: str
    label: Label

    def matches(self, run: RunRow) -> bool:
        folder = Path(self.pattern).absolute() if "*" not in self.pattern else None
        return fnmatchcase(run.manifest.model, self.pattern) or (
            folder == run.folder.absolute() if folder else fnmatchcase(str(run.folder), self.pattern)
        )


def parse_labels(given: Iterable[str]) -> tuple[LabelRule, ...]:
    """``WHICH=NAME[,METHOD[,SHOTS]]``. Raises :class:`UserError` for anything else."""
    return tuple(_parsed(text) for text in given)


def label_of(run: RunRow, rules: Iterable[LabelRule] = ()) -> Label:
    """What ``run`` is called: by the first rule that matches it, else by what it has on record."""
    for rule in rules:
        if rule.matches(run):
            return rule.label
    trainings = run.manifest.trainings
    if not trainings:
        return Label(model_name(run.manifest.model), UNKNOWN, None) if _is_folder(run) else _base(run)
    method = "+".join(_METHODS.get(item.trainer, item.trainer) for item in trainings)
    return Label(trainings[0].base, method, trainings[-1].shots)


def model_name(model: str) -> str:
    """A model's name without its backend and without folders that say nothing; a mock keeps its backend."""
    kind, slash, name = model.partition("/")
    if not slash or kind not in MODELS or kind == "mock":
        kind, name = "", model
    if not name.startswith((".", "/", "~")) and name.count("/") < 2:
        return name
    parts = [part for part in Path(name).parts if part not in ("/", ".", "..", "~")]
    kept = parts[-2:] if parts and _GENERIC.fullmatch(parts[-1]) else parts[-1:]
    return "/".join(kept) or name


def _base(run: RunRow) -> Label:
    return Label(model_name(run.manifest.model), BASE, 0)


def _is_folder(run: RunRow) -> bool:
    name = run.manifest.model.partition("/")[2]
    return "files" in run.manifest.identity["model"] and name not in BUNDLED


def _parsed(text: str) -> LabelRule:
    pattern, equals, label = text.partition("=")
    name, *rest = (part.strip() for part in label.split(","))
    method = rest[0] if rest else UNKNOWN
    shots = rest[1] if len(rest) > 1 else ("0" if method == BASE else "")
    if not equals or not pattern or not name or len(rest) > 2 or not method or (shots and not shots.isdecimal()):
        raise UserError(
            f"--label {text!r} is not of the form WHICH=NAME,METHOD,SHOTS",
            fix="write --label 'hf/./ckpt/final=Qwen2-VL-2B,rft,4'; METHOD (base, sft, rft) and SHOTS may be left out",
        )
    return LabelRule(pattern, Label(name, method, int(shots) if shots else None))
