from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from vrft_bench.errors import DataError
from vrft_bench.harness.store import lock_folder
from vrft_bench.leaderboards.runs import find_runs, open_runs

Make = Callable[..., Path]
AP = {"ap": 0.5}


def edit(folder: Path, **fields: object) -> None:
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_runs_are_found_by_folder_by_root_by_file_and_by_glob_once_each(make_run: Make, tmp_path: Path) -> None:
    one, two = make_run("coco_fewshot", "hf/a", AP), make_run("lvis_fewshot", "hf/a", AP)
    root = tmp_path / "results"
    for paths in (
        [root],
        [one, two],
        [one / "run.json", root / "lvis_fewshot"],
        [str(root / "*_fewshot")],
        [root, one],
    ):
        assert [row.folder for row in open_runs(paths).rows] == [one, two]
    report = open_runs([one]).rows[0].report
    assert report is not None
    assert report.figures["ap"].value == 0.5


def test_nothing_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere does not exist"):
        open_runs([tmp_path / "nowhere"])
    with pytest.raises(DataError, match="no run in"):
        open_runs([tmp_path])
    assert find_runs(tmp_path).rows == ()


def test_a_damaged_folder_is_named_with_its_reason_and_hides_no_other(make_run: Make, tmp_path: Path) -> None:
    whole, torn, newer, edited = (make_run("coco_fewshot", f"hf/{name}", AP) for name in "abcd")
    (torn / "run.json").write_text('{"format": 1, "task"')
    edit(newer, format=2)
    edit(edited, samples=7)
    empty = tmp_path / "results" / "coco_fewshot" / "m" / "20260101T000000Z-01234567"
    empty.mkdir(parents=True)
    found = open_runs([tmp_path / "results"])
    assert [row.folder for row in found.rows] == [whole]
    reasons = {item.folder: item.reason for item in found.unreadable}
    assert "damaged" in reasons[torn]
    assert "is of format 2, and this version reads formats up to 1" in reasons[newer]
    assert "samples is 7, and 100 by its identity" in reasons[edited]
    assert "has no run.json" in reasons[empty]


def test_what_is_wrong_with_a_run_that_can_be_read_is_among_its_problems(make_run: Make) -> None:
    lost, torn, killed, running = (make_run("coco_fewshot", f"hf/{name}", AP) for name in "abcd")
    (lost / "samples.jsonl").unlink()
    (torn / "metrics.json").write_text("{")
    edit(killed, status="running")
    edit(running, status="running")
    lock = lock_folder(running)
    assert lock >= 0
    problems = {row.folder: row.problems for row in open_runs([lost, torn, killed, running]).rows}
    assert problems[lost] == ("it has lost its samples.jsonl",)
    assert "metrics.json is missing or damaged" in problems[torn][0]
    assert problems[killed] == ("unfinished: its status is 'running'",)
    assert problems[running] == ("running now: its status is 'running'",)


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"headline": "ap", "figures": {"ap": {"value": float("inf")}}}, "'ap' is not a finite number"),
        (
            {
                "headline": "ap",
                "figures": {"ap": {"value": 0.5}},
                "by_category": {"cat": {"ap": {"value": float("nan")}}},
            },
            "'ap' is not a finite number",
        ),
    ],
)
def test_figures_that_no_metric_says_are_not_handed_on(make_run: Make, report: object, said: str) -> None:
    folder = make_run("coco_fewshot", "hf/a", AP)
    path = folder / "metrics.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"report": report}))
    row = open_runs([folder]).rows[0]
    assert row.report is None
    assert row.problems == (f"its metrics.json is damaged: {said}",)


def test_figures_of_another_run_are_not_handed_on(make_run: Make) -> None:
    one, other = (make_run("coco_fewshot", f"hf/{name}", AP) for name in "ab")
    fingerprint = json.loads((other / "run.json").read_text())["fingerprint"]
    for folder in (one, other):
        path = folder / "metrics.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"fingerprint": fingerprint}))
    problems = {row.folder: row.problems for row in open_runs([one, other]).rows}
    assert problems == {one: (f"its metrics.json is damaged: it is of the run {fingerprint[:12]}",), other: ()}


def test_a_site_among_the_runs_is_no_second_set_of_them(make_run: Make, tmp_path: Path) -> None:
    run = make_run("coco_fewshot", "hf/a", AP)
    site = tmp_path / "results" / "site"
    copy = site / "runs" / "0123456789ab"
    shutil.copytree(run, copy)
    (site / "leaderboard.json").write_text("{}")
    assert [row.folder for row in open_runs([tmp_path / "results"]).rows] == [run]
    assert [row.folder for row in open_runs([site]).rows] == [copy]


def test_figures_that_cannot_be_read_are_not_handed_on(make_run: Make) -> None:
    folder = make_run("coco_fewshot", "hf/a", AP)
    (folder / "metrics.json").unlink()
    row = open_runs([folder]).rows[0]
    assert (row.report, row.answers) == (None, None)
    with pytest.raises(DataError, match="has no figures"):
        row.result()


def test_partial_and_sample_runs_are_told(make_run: Make) -> None:
    whole, cut, sample = (
        make_run("coco_fewshot", "hf/a", AP),
        make_run("coco_fewshot", "hf/b", AP, limit=5),
        make_run("coco_fewshot", "hf/c", AP, kind="sample"),
    )
    rows = open_runs([whole, cut, sample]).rows
    assert [(row.partial, row.is_sample) for row in rows] == [(False, False), (True, False), (False, True)]
