"""One typed, lazy registry for tasks, model backends, profiles and trainers.

A registry maps a name to a ``module:attribute`` string and imports it only when it is asked for, so listing what there
is costs nothing. Names come from three places: the built-ins declared below, entry points of installed packages
(group ``vrft_bench.tasks`` and so on), and files given with ``--include``. Two sources that claim one name are an
error that names both; a plugin that does not import is listed as broken and hurts nobody who does not ask for it.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Generic, TypeVar

from vrft_bench.errors import UserError, did_you_mean

T = TypeVar("T")

PLUGIN_FAILURES = (Exception, SystemExit)
"""What a plugin's own code may raise while it is imported or called: a script without a main guard calls sys.exit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered name: where it came from, what it points at, and a line for listings."""

    name: str
    target: str | object
    source: str
    summary: str = ""


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """Declaration of a built-in: ``module:attribute`` and the line that ``vrft-bench ls`` prints."""

    target: str
    summary: str


class Registry(Generic[T]):
    """Names of one kind, resolved lazily.

    ``kind`` is the singular word used in messages ("task"); ``group`` the entry-point group that plugins use.
    """

    def __init__(self, kind: str, group: str, builtins: Mapping[str, BuiltIn]) -> None:
        self.kind = kind
        self.group = group
        self._entries: dict[str, Entry] = {
            name: Entry(name, item.target, "built in", item.summary) for name, item in builtins.items()
        }
        self._clashes: dict[str, list[Entry]] = {}
        self._plugins_read = False

    def register(self, name: str, target: str | T, *, source: str | None = None, summary: str = "") -> None:
        """Add ``name``. ``target`` is the object itself or a ``module:attribute`` string, imported on first use.

        A file that registers what an entry point names too, so that it serves as a package and with ``--include``, adds
        nothing. Raises :class:`UserError` when another source already claims the name.
        """
        self._read_plugins()
        entry = Entry(name, target, source or _caller_source(target), summary)
        old = self._entries.get(name)
        if old is not None and _is_loaded_as(old.target, target):
            return
        if old is not None and (old.source, old.target) != (entry.source, entry.target):
            raise self._clash_error(name, [old, entry])
        self._entries[name] = entry

    def names(self) -> list[str]:
        """All names, in the order in which they were declared."""
        self._read_plugins()
        return list(self._entries)

    def __contains__(self, name: object) -> bool:
        self._read_plugins()
        return name in self._entries

    def __iter__(self) -> Iterator[Entry]:
        self._read_plugins()
        return iter(self._entries.values())

    def get(self, name: str) -> T:
        """The object behind ``name``.

        Raises :class:`UserError` for an unknown name (naming the nearest ones), for a name that two packages claim
        (naming both), and for a plugin that fails to import (with its reason).
        """
        self._read_plugins()
        if name in self._clashes:
            raise self._clash_error(name, self._clashes[name])
        if name not in self._entries:
            raise UserError(
                f"unknown {self.kind} {name!r}{did_you_mean(name, self._entries)}",
                fix=f"choose one of: {', '.join(self._entries)} (see `vrft-bench ls {self.kind}s`)",
            )
        entry = self._entries[name]
        try:
            value: T = _resolve(entry.target)
        except UserError:
            raise
        except PLUGIN_FAILURES as error:
            raise UserError(
                f"{self.kind} {name!r} from {entry.source} does not import: {failure_reason(error)}",
                fix=f"repair or uninstall what provides it ({entry.source})",
            ) from error
        return value

    def broken(self, entry: Entry) -> str | None:
        """Why ``entry`` cannot be used, or ``None``. Imports plugins, but never a built-in."""
        if entry.name in self._clashes:
            return str(self._clash_error(entry.name, self._clashes[entry.name]).message)
        if entry.source == "built in":
            return None
        try:
            _resolve(entry.target)
        except PLUGIN_FAILURES as error:
            return failure_reason(error)
        return None

    def source(self, name: str) -> str:
        """Where the registered ``name`` came from, as messages say it: ``package my-tasks``."""
        self._read_plugins()
        return self._entries[name].source

    def match(self, pattern: str) -> list[str]:
        """Names that a glob such as ``*_fewshot`` matches, in declared order."""
        return [name for name in self.names() if fnmatchcase(name, pattern)]

    def _read_plugins(self) -> None:
        if self._plugins_read:
            return
        self._plugins_read = True
        for point in importlib.metadata.entry_points(group=self.group):
            package = point.dist.name if point.dist is not None else "unknown"
            entry = Entry(point.name, point.value, f"package {package}")
            old = self._entries.get(point.name)
            if old is None:
                self._entries[point.name] = entry
            elif (old.source, old.target) != (entry.source, entry.target):
                self._clashes.setdefault(point.name, [old]).append(entry)

    def _clash_error(self, name: str, entries: list[Entry]) -> UserError:
        claims = " and ".join(f"{entry.source} ({_target_name(entry.target)})" for entry in entries)
        return UserError(
            f"{self.kind} name {name!r} is claimed twice: by {claims}",
            fix="rename one of them, or uninstall the package that you do not need",
        )


def _target_name(target: str | object) -> str:
    return target if isinstance(target, str) else f"{type(target).__name__} object"


def _is_loaded_as(entry_point: object, target: object) -> bool:
    """Whether ``entry_point`` (``module:attribute``) names ``target``, whose module is loaded or just being loaded."""
    if not isinstance(entry_point, str):
        return False
    module, _, attribute = entry_point.partition(":")
    return getattr(sys.modules.get(module), attribute, None) is target


def _caller_source(target: object) -> str:
    module = getattr(target, "__module__", None) or type(target).__module__
    return f"module {module}"


def failure_reason(error: BaseException) -> str:
    """What a plugin's failure says, in one line."""
    if isinstance(error, SystemExit):
        return f"it calls sys.exit({error.code!r})"
    return " ".join(f"{type(error).__name__}: {error}".split())


def _resolve(target: Any) -> Any:
    if not isinstance(target, str):
        return target
    module_name, _, attribute = target.partition(":")
    value: Any = importlib.import_module(module_name)
    for part in filter(None, attribute.split(".")):
        value = getattr(value, part)
    return value


def include(path: str | Path, *, copy: Path | None = None) -> None:
    """Run a local plugin file, which registers what it defines (``--include my_tasks.py``).

    The same file is run once per process. ``copy`` is run in its place where it lies on another machine: as the module
    of ``path``, so that what it defines can be sent between the two. Raises :class:`UserError` when the file is missing
    or fails.
    """
    file = Path(path).expanduser().resolve()
    if not (copy or file).is_file():
        raise UserError(f"--include {str(path)!r}: no such file", fix="give the path of a Python file")
    name = f"vrft_bench_include_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, copy or file)
    if spec is None or spec.loader is None:
        raise UserError(f"--include {str(path)!r}: not a Python file", fix="give the path of a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except UserError:
        del sys.modules[name]
        raise
    except PLUGIN_FAILURES as error:
        del sys.modules[name]
        raise UserError(f"--include {str(path)!r} failed: {failure_reason(error)}", fix="repair the file") from error


def _catalog(family: str, *names_and_summaries: tuple[str, str]) -> dict[str, BuiltIn]:
    return {
        name: BuiltIn(f"vrft_bench.tasks.catalog.{family}:{name}", summary) for name, summary in names_and_summaries
    }


TASKS: Registry[Callable[[], Any]] = Registry(
    "task",
    "vrft_bench.tasks",
    _catalog("flower102_fewshot", ("flower102_fewshot", "few-shot classification, 102 flowers (paper T2)"))
    | _catalog("pets37_fewshot", ("pets37_fewshot", "few-shot classification, 37 pet breeds (paper T2)"))
    | _catalog("fgvc_aircraft_fewshot", ("fgvc_aircraft_fewshot", "few-shot classification, 100 aircraft (paper T2)"))
    | _catalog("cars196_fewshot", ("cars196_fewshot", "few-shot classification, 196 car models (paper T2)"))
    | _catalog("coco_fewshot", ("coco_fewshot", "few-shot detection, 8 COCO categories (paper T3)"))
    | _catalog("lvis_fewshot", ("lvis_fewshot", "few-shot detection, 6 rare LVIS categories (paper T4)"))
    | _catalog("coco_ovd", ("coco_ovd", "open-vocabulary detection, COCO 65 base + 15 novel (paper T7)"))
    | _catalog("lvis_ovd", ("lvis_ovd", "open-vocabulary detection, 13 rare LVIS categories (paper T8)"))
    | _catalog("lisa_grounding", ("lisa_grounding", "reasoning grounding on ReasonSeg (paper T6)"))
    | _catalog(
        "custom",
        ("detection", "your own COCO- or LVIS-format annotations"),
        ("classification", "your own folder of class folders"),
        ("grounding", "your own ReasonSeg-format folder"),
    ),
)

TASK_GROUPS: dict[str, tuple[str, ...]] = {
    "fewshot_classification": ("flower102_fewshot", "pets37_fewshot", "fgvc_aircraft_fewshot", "cars196_fewshot"),
    "fewshot_detection": ("coco_fewshot", "lvis_fewshot"),
    "ovd": ("coco_ovd", "lvis_ovd"),
    "visual_rft": (
        "flower102_fewshot",
        "pets37_fewshot",
        "fgvc_aircraft_fewshot",
        "cars196_fewshot",
        "coco_fewshot",
        "lvis_fewshot",
        "lisa_grounding",
        "coco_ovd",
        "lvis_ovd",
    ),
}

MODELS: Registry[Callable[..., Any]] = Registry(
    "model",
    "vrft_bench.models",
    {
        "hf": BuiltIn(
            "vrft_bench.harness.models.hf:HFBackend", "hf/PATH_OR_ID: a transformers checkpoint, CPU or CUDA"
        ),
        "vllm": BuiltIn(
            "vrft_bench.harness.models.vllm:vllm_backend",
            "vllm/PATH_OR_ID: a vLLM engine in this process, or a server of its own (--spawn)",
        ),
        "openai": BuiltIn(
            "vrft_bench.harness.models.openai:OpenAIBackend",
            "openai/NAME: any OpenAI-compatible server, named by --base-url",
        ),
        "mock": BuiltIn(
            "vrft_bench.harness.models.mock:mock_backend",
            "mock/gold, mock/noisy, mock/constant:TEXT, mock/replay:RUN: no model at all",
        ),
    },
)

PROFILES: Registry[Any] = Registry(
    "profile",
    "vrft_bench.profiles",
    {
        name: BuiltIn(f"vrft_bench.tasks.profiles:{attribute}", summary)
        for name, attribute, summary in (
            ("qwen2-vl", "QWEN2_VL", "0-1000 integers, smart-resize factor 28"),
            ("qwen2.5-vl", "QWEN2_5_VL", "pixels of the smart-resized image, factor 28"),
            ("qwen3-vl", "QWEN3_VL", "0-1000 integers, smart-resize factor 32"),
            ("internvl", "INTERNVL", "0-1000 integers, dynamic tiles"),
            ("norm_1", "NORM_1", "fractions of the image, 0-1"),
            ("abs_original", "ABS_ORIGINAL", "pixels of the original image"),
        )
    },
)

TRAINERS: Registry[Any] = Registry(
    "trainer",
    "vrft_bench.trainers",
    {
        "grpo": BuiltIn("vrft_bench.trainers.grpo:GRPO", "GRPO on TRL, rewarded by the task's own score"),
        "sft": BuiltIn("vrft_bench.trainers.sft:SFT", "supervised fine-tuning on TRL, on gold completions"),
    },
)

VERBS: dict[str, str] = {
    "train": "vrft_bench.trainers.cli.train:train",
    "probe": "vrft_bench.trainers.cli.probe:probe",
    "watch": "vrft_bench.trainers.cli.watch:watch",
    "table": "vrft_bench.leaderboards.cli.table:table",
    "leaderboard": "vrft_bench.leaderboards.cli.leaderboard:app",
    "export": "vrft_bench.trainers.cli.export:export",
    "serve-reward": "vrft_bench.trainers.cli.serve_reward:serve_reward",
    "compare": "vrft_bench.leaderboards.cli.compare:compare",
    "report": "vrft_bench.leaderboards.cli.report:report",
}
"""Verbs of the houses above the harness, as ``module:function``: the command line may not import what uses it."""
