"""Fixtures that tests of every part share: the command line, real data where they are there, and the sample data."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import pytest
from hypothesis import settings

from vrft_bench.harness.cli.app import main

# A deadline per example would fail on a busy machine, not on a defect.
settings.register_profile("project", deadline=None)
settings.load_profile("project")

# lvis imports OpenCV only to draw, and OpenCV wants libGL, which a bare machine does not have.
sys.modules.setdefault("cv2", ModuleType("cv2"))

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the repository; tests that need it are skipped where it is not there."""
    if not SHARED.is_dir():
        pytest.skip("needs the real data in ../shared/data beside the repository, which is not there")
    return SHARED.resolve()


@pytest.fixture(scope="session")
def tinycoco(shared_data: Path) -> Path:
    """32 training and 6 validation images of COCO with their annotations, in COCO's own layout."""
    root = shared_data / "tinycoco"
    if not root.is_dir():
        pytest.skip("needs ../shared/data/tinycoco beside the repository, which is not there")
    return root


@pytest.fixture(scope="session")
def sample_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache for the embedded sample data, for tests and their subprocesses; the user's own is not touched."""
    base = tmp_path_factory.getbasetemp()
    # Workers of pytest-xdist share one cache: drawing is safe for several processes at once.
    root = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sample-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VRFT_BENCH_CACHE", str(root))
        yield root


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Run the command in the test's own folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VRFT_BENCH_DATA", raising=False)

    def call(*argv: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vrft-bench", *argv])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return Outcome(int(stop.value.code or 0), captured.out, captured.err)

    return call
