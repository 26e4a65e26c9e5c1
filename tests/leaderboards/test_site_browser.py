"""The leaderboard in a real browser; skipped without Chromium and its driver (on Debian: chromium, chromium-driver)."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vrft_bench.leaderboards.runs import open_runs
from vrft_bench.leaderboards.site import build_site

NAMES = "return [...document.querySelectorAll('table.board tbody tr')].map((row) => row.cells[0].innerText)"


def test_a_page_sorts_by_a_click_and_runs_and_loads_nothing_else(
    make_run: Callable[..., Path], tmp_path: Path, driver: Any
) -> None:
    hostile = "<img src=x onerror=window.hacked=1>"
    for name, value, novel in (("low", 0.1, 0.9), (hostile, 0.2, 0.05), ("mid", 0.3, 0.5), ("none", 0.05, None)):
        make_run("coco_ovd", f"hf/{name}", {"ap": value, "ap_novel": novel, "ap_base": value}, weights=name)
    build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    driver.get((tmp_path / "site" / "coco_ovd.html").as_uri())
    assert driver.execute_script(NAMES) == ["low", "mid", hostile, "none"]
    for heading, names in (
        ("mAP all", ["mid", hostile, "low", "none"]),
        ("mAP all", ["none", "low", hostile, "mid"]),
        ("mAP novel", ["low", "mid", hostile, "none"]),
        ("mAP novel", [hostile, "mid", "low", "none"]),
        ("model", ["none", "mid", "low", hostile]),
    ):
        button = f"[...document.querySelectorAll('thead button')].find((item) => item.innerText === '{heading}')"
        driver.execute_script(f"{button}.click()")
        assert driver.execute_script(NAMES) == names, heading
    assert driver.execute_script("return window.hacked ?? null") is None
    assert driver.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [item["params"]["request"]["url"] for item in events if item["method"] == "Network.requestWillBeSent"]
    assert asked == [(tmp_path / "site" / "coco_ovd.html").as_uri()]
