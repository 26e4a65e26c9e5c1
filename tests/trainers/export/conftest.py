"""Exports of the sample data, made by the command line's own code."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vrft_bench.harness.config import make_config
from vrft_bench.registry import TASKS, include
from vrft_bench.trainers.export.folder import find_engine, write_export
from vrft_bench.trainers.recipes import read_recipe

pytest.importorskip("pyarrow")

sys.path.insert(0, str(Path(__file__).parents[2] / "conformance"))  # golden completions are those of the engines' tests

ExportMaker = Callable[..., Path]


def _write(folder: Path, engine: str, stage: str, task: str, **changes: Any) -> Path:
    recipe = read_recipe("modern", stage) | changes.pop("recipe", {})
    model = changes.pop("model", None)
    values = {"task": [task], "split": "train", "profile": "qwen2.5-vl", "limit": 10, **changes}
    chosen = find_engine(engine, stage)
    write_export(chosen, stage, make_config(values), folder, recipe=recipe, model=model)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def shared_export(tmp_path_factory: pytest.TempPathFactory, sample_cache: Path) -> ExportMaker:
    """The folder of an export of ten questions that many tests read and none changes."""
    root = tmp_path_factory.mktemp("exports")

    def get(engine: str, stage: str = "grpo", task: str = "coco_fewshot") -> Path:
        folder = root / f"{engine}-{stage}-{task}"
        return folder if folder.is_dir() else _write(folder, engine, stage, task)

    return get


@pytest.fixture
def export(tmp_path: Path, sample_cache: Path) -> ExportMaker:
    """Write an export of a few questions; returns its folder."""

    def make(
        engine: str, stage: str = "grpo", task: str = "coco_fewshot", name: str = "export", **changes: Any
    ) -> Path:
        return _write(tmp_path / name, engine, stage, task, **changes)

    return make


@pytest.fixture
def included_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plugin file, included, whose task is called ``included_shapes``; it is forgotten after the test."""
    TASKS.names()
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))
    plugin = tmp_path / "my_tasks.py"
    plugin.write_text(
        "from dataclasses import replace\n"
        "from vrft_bench.registry import TASKS\n"
        "from vrft_bench.tasks import get_task\n"
        "TASKS.register('included_shapes', lambda: replace(get_task('coco_fewshot'), name='included_shapes'))\n"
    )
    include(plugin)
    return plugin


class _ORM:
    """What ms-swift's rewards are derived from."""

    def __init__(self, args: Any = None) -> None:
        self.args = args


@pytest.fixture
def load_reward(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], ModuleType]:
    """Import an export's reward file as engines do it: by its path, under a name of theirs."""
    swift, rewards = ModuleType("swift"), ModuleType("swift.rewards")
    rewards.ORM, rewards.orms = _ORM, {}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "swift", swift)
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)

    def load(folder: Path) -> ModuleType:
        name = f"reward_of_{abs(hash(folder))}"
        spec = importlib.util.spec_from_file_location(name, folder / "reward.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load
