"""Run folders as a run leaves them, made in milliseconds, for tests of what is shown; and a browser to see it in."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.harness.identity import fingerprint
from vrft_bench.harness.provenance import Training
from vrft_bench.tasks.profiles import QWEN2_VL

MakeRun = Callable[..., Path]


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _figure(value: Any) -> dict[str, Any]:
    value, low, high = value if isinstance(value, tuple) else (value, None, None)
    return {"value": value, "low": low, "high": high}


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    """Writes a finished run. ``figures`` are in 0-1, each a number or (value, low, high); the first is the headline.

    ``data`` names the content of its data; the run has the hashes of it.
    """
    made = 0

    def make(
        task: str,
        model: str,
        figures: Mapping[str, Any],
        by_category: Mapping[str, Any] | None = None,
        *,
        kind: str = "real",
        protocol: str = "strict",
        split: str = "val",
        ask: str | None = None,
        version: str = "1",
        data: str = "",
        samples: int = 100,
        sampling: Mapping[str, Any] | None = None,
        weights: str = "w",
        profile: Any = QWEN2_VL,
        trainings: list[Training] | None = None,
        content: bool = True,
        limit: int | None = None,
        status: str = "complete",
        created: str = "2026-01-02T03:04:05+00:00",
        root: Path | None = None,
    ) -> Path:
        nonlocal made
        made += 1
        drawn = {"max_tokens": 1024, "n": 1, "seed": 0, "temperature": 0.0, "top_p": 1.0, **(sampling or {})}
        about = f"{task} {data} {samples} {split}"
        identity = {
            "task": {"name": task, "version": version, "protocol": protocol},
            "data": {
                "kind": kind,
                "split": split,
                "ask": ask,
                "samples": samples,
                "sha256": sha(f"{about} {protocol} {profile.name}"),
            },
            "profile": profile.to_json(),
            "sampling": drawn,
            "model": {"backend": "hf", "name": model, **_weights(model, weights, trainings)},
            "include": [],
        }
        config = {"task": [task], "model": model, "protocol": protocol, "limit": limit, "samples": drawn["n"]}
        config |= {name: drawn[name] for name in ("temperature", "top_p", "max_tokens", "seed")}
        manifest = {
            "task": task,
            "model": model,
            "fingerprint": fingerprint(identity),
            "identity": identity,
            "data": kind,
            "status": status,
            "samples": samples,
            "completions": samples * drawn["n"],
            "content": {"data": sha(about), "prompts": sha(f"prompt {protocol}")} if content else {},
            "trainings": [item.model_dump() for item in trainings or []],
            "created": created,
            "updated": created,
            "config": config,
        }
        stamp = f"20260102T{made:06d}Z-{manifest['fingerprint'][:8]}"
        folder = (root or tmp_path / "results") / task / f"model{made}" / stamp
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(manifest))
        (folder / "samples.jsonl").write_text("")
        rows = {name: _row(row) for name, row in (by_category or {}).items()}
        report = {
            "headline": next(iter(figures)),
            "figures": {name: _figure(value) for name, value in figures.items()},
            "by_category": rows,
        }
        answers = {"completions": samples, "failures": 0, "status": {"ok": samples}, "reward": 1.0, "components": {}}
        (folder / "metrics.json").write_text(json.dumps({"report": report, "answers": answers}))
        return folder

    return make


def _weights(model: str, weights: str, trainings: object) -> dict[str, Any]:
    """A hub model is known by its revision, a folder by its files."""
    name = model.removeprefix("hf/")
    if trainings or name.startswith((".", "/")):
        return {"files": {"model.safetensors": sha(weights)}}
    return {"revision": sha(weights)[:40]}


def _row(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int) else _figure(value) for name, value in row.items()}


@pytest.fixture
def trained() -> Callable[..., Training]:
    """A training's record."""

    def make(trainer: str, base: str = "Qwen/Qwen2-VL-2B-Instruct", shots: int | None = None) -> Training:
        return Training(trainer=trainer, task="coco_fewshot", base=base, shots=shots, fingerprint="f" * 64)

    return make


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    """Headless Chromium, driven by Selenium, that tells what its console says and what it asks the network for."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    names = ("chromium", "chromium-browser", "google-chrome")
    chromium = next((path for name in names if (path := shutil.which(name))), None)
    chromedriver = shutil.which("chromedriver")
    if chromium is None or chromedriver is None:
        pytest.skip("needs Chromium and chromedriver (apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(chromedriver))
    yield started
    started.quit()
