"""The report in a real browser: headless Chromium, driven by Selenium, on pages from disk.

Needs Chromium and its driver (on Debian: ``apt-get install chromium chromium-driver``); without them every test here is
skipped.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as rle

from vrft_bench.harness.segmentation import content_hash
from vrft_bench.leaderboards.report import build, build_report
from vrft_bench.leaderboards.report.joined import join_run
from vrft_bench.leaderboards.runs import RunRow, open_run

MakeRun = Callable[..., RunRow]
SCREENSHOTS = os.environ.get("VRFT_BENCH_SCREENSHOTS")
"""A folder: pictures of the pages that the tests look at are left there."""


class Browser:
    """One Chromium with the few things that these tests do with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1280, height: int = 900, dark: bool = False, place: str = "") -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.driver.get("about:blank")
        self.console()
        self.requests()
        self.driver.get(page.as_uri() + place)
        self.until("return document.documentElement.hasAttribute('data-ready')")

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def until(self, script: str, *arguments: object) -> None:
        for _ in range(1500):
            if self.run(script, *arguments):
                return
            time.sleep(0.02)
        raise AssertionError(f"never came true: {script}")

    def settle(self) -> None:
        """Until what the last event asked for has been drawn."""
        self.driver.execute_async_script("requestAnimationFrame(() => requestAnimationFrame(() => arguments[0]()))")

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains

        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()
        self.settle()

    def choose(self, name: str, value: str) -> None:
        self.run(
            "const control = document.querySelector(`#filters [name=${arguments[0]}]`);"
            "control.value = arguments[1];"
            "control.dispatchEvent(new Event(control.tagName === 'SELECT' ? 'change' : 'input'));",
            name,
            value,
        )
        self.settle()

    def count(self) -> int:
        """How many cards fit the filters, as the page says."""
        return int(str(self.run("return document.getElementById('count').textContent")).split()[0].replace(",", ""))

    def console(self) -> list[str]:
        """What the console has said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [item["params"]["request"]["url"] for item in events if item["method"] == "Network.requestWillBeSent"]

    def shoot(self, name: str) -> None:
        if SCREENSHOTS:
            Path(SCREENSHOTS).mkdir(parents=True, exist_ok=True)
            self.driver.save_screenshot(str(Path(SCREENSHOTS) / f"{name}.png"))


@pytest.fixture(scope="module")
def browser(driver: Any) -> Browser:
    return Browser(driver)


@pytest.fixture(scope="module")
def one(detection: tuple[RunRow, RunRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report([detection[0]], tmp_path_factory.mktemp("one") / "report.html")


@pytest.fixture(scope="module")
def two(detection: tuple[RunRow, RunRow], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_report(detection, tmp_path_factory.mktemp("two") / "report.html")


def records(row: RunRow) -> dict[str, dict[str, Any]]:
    lines = (row.folder / "samples.jsonl").read_text().splitlines()
    return {record["id"]: record for record in map(json.loads, lines)}


def frames(browser: Browser, parent: str) -> list[dict[str, Any]]:
    """Every image under ``parent`` with the boxes over it, in pixels of the window."""
    found: list[dict[str, Any]] = browser.run(
        """const rect = (element) => { const { x, y, width, height } = element.getBoundingClientRect();
             return [x, y, x + width, y + height]; };
           return [...document.querySelectorAll(`${arguments[0]} .frame`)].map((frame) => {
             const image = frame.querySelector("img");
             return { run: Number(frame.dataset.run), image: rect(image),
               size: ["width", "height"].map((side) => Number(image.getAttribute(side))),
               truth: [...frame.querySelectorAll(".shape.truth")].map(rect),
               found: [...frame.querySelectorAll(".shape.found")].map(rect) };
           });""",
        parent,
    )
    return found


def on_screen(box: list[float], frame: dict[str, Any]) -> list[float]:
    """Where a box in original pixels belongs: the image is fitted into its frame, and centred."""
    left, top, right, bottom = frame["image"]
    width, height = frame["size"]
    scale = min((right - left) / width, (bottom - top) / height)
    x, y = (left + right - scale * width) / 2, (top + bottom - scale * height) / 2
    return [x + scale * box[0], y + scale * box[1], x + scale * box[2], y + scale * box[3]]


@pytest.mark.parametrize("width", [1280, 390])
def test_boxes_lie_on_the_image_where_the_runs_data_say(
    browser: Browser, two: Path, detection: tuple[RunRow, RunRow], width: int
) -> None:
    stored = [records(row) for row in detection]
    sample_id = next(
        key for key in stored[0] if all(len(run[key]["prediction"].get("boxes", [])) > 1 for run in stored)
    )
    browser.open(two, width=width, place=f"#answer={sample_id}")
    browser.until("return [...document.querySelectorAll('#detail img')].every((image) => image.complete)")
    shown = frames(browser, "#detail")
    assert [frame["run"] for frame in shown] == [0, 1]
    for frame, run in zip(shown, stored, strict=True):
        boxes = run[sample_id]["prediction"]["boxes"]
        assert len(frame["found"]) == len(boxes)
        for drawn, box in zip(frame["found"], boxes, strict=True):
            assert drawn == pytest.approx(on_screen(box, frame), abs=0.6)
    assert shown[0]["truth"]
    assert browser.console() == []


def test_filters_leave_what_fits(browser: Browser, one: Path, detection: tuple[RunRow, RunRow]) -> None:
    stored = records(detection[0])
    browser.open(one, place="#gallery")
    assert browser.count() == len(stored) == 120
    browser.choose("category", "1")
    name = str(browser.run("return document.querySelector('[name=category]').selectedOptions[0].textContent"))
    assert browser.count() == sum(key.endswith(":" + name.split()[0]) for key in stored) > 0
    browser.choose("category", "")
    browser.choose("status", "4")
    assert browser.count() == sum(record["prediction"]["status"] == "refused" for record in stored.values()) > 0
    browser.choose("status", "")
    browser.choose("to", "1.5")
    assert browser.count() == sum(record["score"]["total"] <= 1.5 for record in stored.values()) > 0
    browser.choose("to", "")
    browser.choose("search", "no objects")
    assert browser.count() == sum("No Objects" in record["text"] for record in stored.values()) > 0
    browser.choose("search", "nothing holds this")
    assert browser.count() == 0
    assert browser.run("return !document.getElementById('empty').hidden && !document.querySelector('.card')")
    browser.run("document.querySelector('.reset').click()")
    assert browser.count() == 120
    browser.choose("order", "low")
    totals = browser.run("return [...document.querySelectorAll('.card .total')].map((one) => Number(one.textContent))")
    assert totals == sorted(totals)
    assert totals[0] == pytest.approx(min(record["score"]["total"] for record in stored.values()), abs=0.006)


def test_flips_between_two_runs_are_found_both_ways(browser: Browser, two: Path) -> None:
    browser.open(two, place="#gallery")
    data = browser.run(
        "const data = JSON.parse(document.getElementById('data').textContent);"
        "return data.cards.map((card) => card.r.map((one) => one.ok));"
    )
    for flip, wanted in (("up", [False, True]), ("down", [True, False])):
        browser.choose("flip", flip)
        assert browser.count() == data.count(wanted)
    assert data.count([True, False]) > 10
    ids = browser.run(
        "return [...document.querySelectorAll('.card')].map((card) => card.querySelectorAll('.frame').length)"
    )
    assert set(ids) == {2}
    browser.choose("show", "1")
    assert browser.run("return document.querySelectorAll('.card .frame[data-run=\"0\"]').length") == 0


def test_a_predicted_mask_is_drawn_over_its_image(browser: Browser, make_run: MakeRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_run("lisa_grounding", "mock/gold", "-L", "3").folder, tmp_path / "run"))
    row = open_run(folder)
    assert isinstance(row, RunRow)
    run = join_run(row)
    key = next(iter(run.records))
    image = run.samples[key[0]].image
    mask = np.zeros((image.height, image.width), dtype=np.uint8, order="F")
    mask[10:20, 5:9] = 1
    counts = rle.encode(mask)["counts"].decode()
    line = {"image": content_hash(image), "box": run.records[key]["prediction"]["boxes"][0], "mask": counts}
    (folder / "masks-sam-00000000.jsonl").write_text(json.dumps(line) + "\n")
    browser.open(build_report([row], tmp_path / "report.html"), place="#gallery")
    pixels = browser.run(
        "const canvas = document.querySelector('.card canvas'), { width, height } = canvas;"
        "return [...canvas.getContext('2d').getImageData(0, 0, width, height).data].filter((_, at) => at % 4 === 3);"
    )
    assert (np.array(pixels).reshape(mask.shape) > 0).tolist() == (mask > 0).tolist()
    assert browser.run("return document.querySelectorAll('.card canvas').length") == 1
    assert browser.console() == []


def test_keys_step_through_the_answers(browser: Browser, one: Path) -> None:
    browser.open(one)
    ids = browser.run("return JSON.parse(document.getElementById('data').textContent).cards.map((card) => card.id)")
    current = "return document.querySelector('.card.current') && document.querySelector('.card.current').dataset.id"
    browser.press("j")
    assert browser.run(current) == ids[0]
    browser.press("j", "j", "k")
    assert browser.run(current) == ids[1]
    browser.press("\ue007")
    assert (
        browser.run("return document.getElementById('detail').open && document.getElementById('detail').dataset.id")
        == ids[1]
    )
    assert browser.run("return document.querySelector('#detail .thought').open") is False
    browser.press("e", "j", "\ue014")
    assert browser.run("return document.getElementById('detail').dataset.id") == ids[3]
    assert browser.run("return document.querySelector('#detail .thought').open") is True
    assert browser.run("return decodeURIComponent(location.hash)") == f"#answer={ids[3]}"
    browser.press("\ue00c", "/", "r", "e", "d", "?")
    assert browser.run("return document.querySelector('[name=search]').value") == "red?"
    browser.press("\ue00c")
    assert browser.run("return document.getElementById('help').open") is False
    browser.press("?")
    assert browser.run("return document.getElementById('help').open") is True
    assert browser.console() == []


def test_light_and_dark_follow_the_system_until_one_is_chosen(browser: Browser, one: Path) -> None:
    ground = "return getComputedStyle(document.body).backgroundColor"
    browser.open(one)
    light = browser.run(ground)
    browser.open(one, dark=True)
    dark = browser.run(ground)
    assert light != dark
    browser.press("t")
    assert browser.run(ground) == light
    browser.press("t")
    browser.run("localStorage.clear()")


def test_no_script_of_a_hostile_completion_runs_and_nothing_leaves_the_page(
    browser: Browser, hostile_run: RunRow, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "MOST_INLINE", 2)
    page = build_report([hostile_run], tmp_path / "report.html")
    browser.open(page)
    total = browser.count()
    for index in range(total):
        browser.press("j") if index else browser.press("j", "\ue007", "e")
    shown = browser.run("return document.querySelector('#detail .completion').textContent")
    browser.press("\ue00c")
    browser.shoot("hostile")
    assert browser.run("return window.hacked") is None
    assert browser.run("return document.scripts.length") == 2
    assert "window.hacked" in shown
    assert "\u241b" in browser.run("return document.getElementById('grid').textContent")
    assert "\x1b" not in browser.run("return document.body.innerText")
    folder = tmp_path.as_uri()
    addresses = browser.requests()
    assert [url for url in addresses if not url.startswith((f"{folder}/", "data:"))] == []
    assert f"{folder}/report_thumbnails/000000.webp" in addresses
    assert browser.console() == []
    assert browser.run("return document.querySelectorAll('.card .no-image').length") == 1
    assert browser.run("return [...document.querySelectorAll('.card img')].every((one) => one.naturalWidth > 0)")


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (1280, True), (390, False), (390, True)])
def test_nothing_sticks_out_of_the_page(browser: Browser, two: Path, make_run: MakeRun, width: int, dark: bool) -> None:
    browser.open(two, width=width, dark=dark, height=844 if width < 500 else 900)
    name = f"{width}-{'dark' if dark else 'light'}"
    for section in ("summary", "charts", "gallery"):
        browser.run("document.getElementById(arguments[0]).scrollIntoView()", section)
        browser.settle()
        browser.shoot(f"{name}-{section}")
    wide = browser.run(
        "const outside = (one) => !one.closest('.scroll, .plot, .frame, dialog, .tip');"
        "return [...document.querySelectorAll('body *')].filter(outside)"
        ".filter((one) => one.getBoundingClientRect().right > innerWidth + 1).map((one) => one.outerHTML.slice(0, 80))"
    )
    assert wide == []
    assert browser.run("return document.documentElement.scrollWidth") <= width
    browser.press("j", "\ue007")
    browser.shoot(f"{name}-answer")
    assert browser.run("return document.getElementById('detail').getBoundingClientRect().right") <= width
    assert browser.console() == []


def test_a_gallery_of_thousands_holds_only_what_is_near_the_window(
    browser: Browser, make_run: MakeRun, tmp_path: Path
) -> None:
    page = build_report(
        [make_run("flower102_fewshot", "mock/noisy", "-n", "20", "--temperature", "1")], tmp_path / "r.html"
    )
    browser.open(page)
    assert browser.count() == 4800
    browser.run("window.scrollTo(0, document.body.scrollHeight)")
    browser.settle()
    cards = browser.run("return [...document.querySelectorAll('.card')].map((card) => Number(card.dataset.index))")
    assert max(cards) == 4799
    assert len(cards) < 120
    assert browser.run(
        "const box = document.querySelector('.card[data-index=\"4799\"]').getBoundingClientRect();"
        "return box.top < innerHeight && box.bottom > 0;"
    )
    browser.run("document.getElementById('gallery').scrollIntoView()")
    browser.settle()
    assert browser.run("return Boolean(document.querySelector('.card[data-index=\"0\"]'))")
