"""Exports that `make test-conformance` has written, and a record of what each engine passed.

These tests run in an environment per engine, in which only numpy and our own modules are sure to be there.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

EXPORTS = os.environ.get("VRFT_CONFORMANCE")
RESULTS = Path(__file__).parent / "results.json"
TASKS = ("coco_fewshot", "lisa_grounding", "flower102_fewshot")
DISTRIBUTIONS = {
    "trl": "trl",
    "verl": "verl",
    "ms_swift": "ms-swift",
    "openrlhf": "openrlhf",
    "llamafactory": "llamafactory",
    "verifiers": "verifiers",
}
"""Test module -> the distribution that it tests."""

_outcomes: dict[str, dict[str, list[str]]] = {}
_left_out: list[pytest.Item] = []


def pytest_deselected(items: list[pytest.Item]) -> None:
    _left_out.extend(items)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "aspect(name): what of an engine a test is about")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if EXPORTS is None:
        skip = pytest.mark.skip(reason="needs the engines' own environments: run `make test-conformance`")
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    marker = item.get_closest_marker("aspect")
    ran = report.when == "call" or report.outcome != "passed"
    if marker is not None and ran:
        engine = item.path.stem.removeprefix("test_")
        _outcomes.setdefault(engine, {}).setdefault(marker.args[0], []).append(report.outcome)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Put what was found into ``results.json``, from which the page of supported engines is written.

    A run of some of an engine's tests says nothing about the engine.
    """
    if EXPORTS is None or not _outcomes or _left_out or any("::" in argument for argument in session.config.args):
        return
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else {}
    for engine, aspects in _outcomes.items():
        known[DISTRIBUTIONS[engine]] = {
            "version": importlib.metadata.version(DISTRIBUTIONS[engine]),
            "checked": datetime.now(UTC).date().isoformat(),
            "aspects": {
                name: "passed" if set(outcomes) == {"passed"} else "failed"
                for name, outcomes in sorted(aspects.items())
            },
            "tests": sum(map(len, aspects.values())),
        }
    RESULTS.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n", encoding="utf-8")


@pytest.fixture(scope="session")
def exports() -> Path:
    """The folder that ``golden.py`` wrote."""
    return Path(str(EXPORTS)).resolve()


@pytest.fixture(scope="session")
def golden(exports: Path) -> dict[str, list[dict[str, Any]]]:
    """Task -> its questions, each with golden completions and what the evaluator scores them."""
    found: dict[str, list[dict[str, Any]]] = json.loads((exports / "golden.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="session")
def tiny() -> Path:
    """The bundled model, whose tokenizer and processor are real ones of Qwen2-VL's kind."""
    import vrft_bench

    return Path(vrft_bench.__file__).parent / "assets" / "tiny_qwen2_vl"


@pytest.fixture
def launched(tmp_path: Path) -> Callable[..., list[str]]:
    """Run an export's ``launch.sh``; the arguments that it starts its engine with, whose place is taken by an echo."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("python3", "torchrun", "swift", "llamafactory-cli", "vf-eval"):
        (programs / name).write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        (programs / name).chmod(0o755)

    def launch(folder: Path, **environment: str) -> list[str]:
        whole = {"PATH": f"{programs}:/usr/bin:/bin", "OUT": str(tmp_path / "out"), **environment}
        script = str(folder / "launch.sh")
        done = subprocess.run([script], env=whole, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    return launch
