"""Fixtures around the generated task of questions.py; what the tests here import from files beside them."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vrft_bench.harness.config import RunConfig, make_config
from vrft_bench.harness.store import SAMPLES
from vrft_bench.registry import TASKS


def _load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_MODULE = _load("questions")
_load("results_files")


@pytest.fixture
def questions(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The generated task, 60 questions, registered as ``questions``."""
    task = _MODULE.Questions("questions", "1", "generated questions")
    TASKS.names()
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))
    TASKS.register("questions", lambda: task)
    return task


@pytest.fixture
def answers() -> Any:
    """The backend class that answers right unless told otherwise."""
    return _MODULE.Answers


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., RunConfig]:
    """Makes a config that writes into the test's own folder."""
    return lambda **fields: make_config({"output_dir": tmp_path / "results", "model": "mock/gold", **fields})


@pytest.fixture
def records() -> Callable[[Path], list[dict[str, Any]]]:
    """Every line of a run's samples.jsonl, failed ones and superseded ones too."""
    return lambda folder: [json.loads(line) for line in (folder / SAMPLES).read_text().splitlines()]
