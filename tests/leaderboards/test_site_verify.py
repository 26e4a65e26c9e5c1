from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import DataError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.leaderboards.runs import open_runs
from vrft_bench.leaderboards.site import build_site
from vrft_bench.leaderboards.site_verify import Verdict, verify_site
from vrft_bench.tasks import get_task

TASKS = ("pets37_fewshot", "lvis_fewshot", "lisa_grounding")


@pytest.fixture
def site(tmp_path: Path, sample_cache: Path) -> Path:
    """A site of one run of each family, on sample data."""
    for task in TASKS:
        config = RunConfig(task=[task], model="mock/noisy", limit=40, output_dir=tmp_path / "results")
        evaluate(get_task(task), load_backend("mock/noisy"), config)
    build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    return tmp_path / "site"


def run_of(site: Path, task: str) -> Path:
    return next(path.parent for path in site.glob("runs/*/run.json") if json.loads(path.read_text())["task"] == task)


def edited(site: Path, path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of the site, and its digest with it, as one would who means to deceive."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    index = json.loads((site / "leaderboard.json").read_text())
    index["files"][str(path.relative_to(site))] = hashlib.sha256(path.read_bytes()).hexdigest()
    (site / "leaderboard.json").write_text(json.dumps(index))


def flaws(site: Path) -> dict[str, list[str]]:
    return {verdict.about: list(verdict.flaws) for verdict in verify_site(site) if verdict.flaws}


def test_a_site_as_it_was_built_holds_and_is_left_as_it_is(site: Path) -> None:
    before = {path: path.read_bytes() for path in site.rglob("*") if path.is_file()}
    verdicts = verify_site(site)
    assert [verdict.flaws for verdict in verdicts] == [(), (), (), ()]
    assert {path: path.read_bytes() for path in site.rglob("*") if path.is_file()} == before


def test_a_changed_page_is_found(site: Path) -> None:
    page = site / "fewshot_classification.html"
    page.write_text(page.read_text().replace("mock/noisy", "mock/mine"))
    (site / "index.html").unlink()
    assert flaws(site) == {
        "files of the site": ["fewshot_classification.html is not as it was built", "index.html is missing"]
    }


def test_a_figure_that_was_raised_is_found_in_every_place(site: Path) -> None:
    """In the index alone; and in metrics.json with its digest and the index, so that only scoring again tells."""
    index = json.loads((site / "leaderboard.json").read_text())
    (cell,) = [
        cell
        for table in index["tables"]
        for row in table["rows"]
        for column, cell in zip(table["columns"], row["cells"], strict=True)
        if column["task"] == "pets37_fewshot"
    ]
    old, cell["value"] = cell["value"], 99.0
    (site / "leaderboard.json").write_text(json.dumps(index))
    assert flaws(site) == {"pets37_fewshot, mock/noisy": [f"Pets37: 99 on the site, {old:.6g} scored again"]}

    def raised(metrics: Any) -> Any:
        metrics["report"]["figures"]["accuracy"]["value"] = 0.99
        return metrics

    edited(site, run_of(site, "pets37_fewshot") / "metrics.json", raised)
    (found,) = flaws(site).values()
    assert f"report.figures.accuracy.value: 0.99 stored, {old / 100:.6g} scored again" in found


def changed_index(site: Path, change: Callable[[Any], object]) -> list[str]:
    """The flaws of the site's files after ``change`` of its index, which is put back."""
    path = site / "leaderboard.json"
    before = path.read_text()
    index = json.loads(before)
    change(index)
    path.write_text(json.dumps(index))
    found = flaws(site)
    path.write_text(before)
    return [line for lines in found.values() for line in lines]


def test_a_figure_that_is_of_no_run_is_found(site: Path) -> None:
    """A figure without its run, a raised end of an interval, and a row that claims to be published."""

    def cell(index: Any) -> Any:
        return next(row["cells"][0] for table in index["tables"] for row in table["rows"] if table["table"] == "T2")

    cut_off = changed_index(site, lambda index: cell(index).update(run=None, value=99.0))
    assert any(line.endswith("mock/noisy: Pets37 is of no run") for line in cut_off)
    assert f"runs/{run_of(site, 'pets37_fewshot').name} stands in no table" in cut_off
    (raised,) = changed_index(site, lambda index: cell(index).update(low=98.0))
    assert raised.startswith("Pets37, low end of its interval: 98 on the site, ")

    def published(index: Any) -> None:
        (table,) = (table for table in index["tables"] if table["table"] == "T2")
        row = {"model": "Qwen2-VL-2B", "method": "base", "shots": 0, "origin": "published", "marks": []}
        table["rows"].append({**row, "cells": [{"value": 99.0, "run": None} for _ in table["columns"]]})

    (claimed,) = changed_index(site, published)
    assert claimed.endswith("Qwen2-VL-2B: Pets37 is not what was published")


def test_published_rows_and_means_hold_as_they_were_built(make_run: Callable[..., Path], tmp_path: Path) -> None:
    tasks = {"flower102": 2463, "pets37": 3669, "fgvc_aircraft": 3333, "cars196": 8041}
    for name, samples in tasks.items():
        make_run(f"{name}_fewshot", "hf/x/a", {"accuracy": samples / 10_000}, protocol="paper", samples=samples)
    site = tmp_path / "site"
    build_site(open_runs([tmp_path / "results"]), site)
    (table,) = json.loads((site / "leaderboard.json").read_text())["tables"]
    assert {row["origin"] for row in table["rows"]} == {"own", "published"}
    assert verify_site(site)[0].flaws == ()

    def higher_mean(index: Any) -> None:
        next(row for row in index["tables"][0]["rows"] if row["origin"] == "own")["cells"][0]["value"] += 1

    assert any(
        line.endswith("average is not the mean of the other columns") for line in changed_index(site, higher_mean)
    )


def test_a_page_that_was_added_is_found_and_a_hosts_hidden_files_are_not(site: Path) -> None:
    (site / ".nojekyll").touch()
    assert flaws(site) == {}
    (site / "more.html").write_text("")
    assert flaws(site) == {"files of the site": ["more.html was not there when it was built"]}


@pytest.mark.parametrize(
    "index",
    [
        {"files": {}},
        {"files": {}, "tables": []},
        {"files": {}, "tables": [{"columns": [{}], "rows": [{"cells": [3]}]}]},
        {"files": {}, "tables": [{"columns": [{}], "rows": [{"cells": [{"run": "../../other"}]}]}]},
        {"tables": [{"columns": [{}], "rows": [{"cells": [{"run": "a"}]}]}]},
    ],
)
def test_a_damaged_index_is_told(site: Path, index: dict[str, Any]) -> None:
    (site / "leaderboard.json").write_text(json.dumps({"format": 1, **index}))
    with pytest.raises(DataError, match=r"leaderboard\.json is damaged"):
        verify_site(site)


def test_a_completion_that_was_changed_is_found(site: Path) -> None:
    path = run_of(site, "lisa_grounding") / "samples.jsonl"
    lines = path.read_text().splitlines()
    record = json.loads(lines[0])
    record["text"] = "<think>no</think><answer>(0,0),(1,1)</answer>"
    path.write_text("\n".join([json.dumps(record), *lines[1:]]) + "\n")
    found = flaws(site)
    assert found["files of the site"] == [f"{path.relative_to(site)} is not as it was built"]
    assert found["lisa_grounding, mock/noisy"][:2] == [
        f"sample {record['id']}, n=0: its prediction is not that of its text",
        f"sample {record['id']}, n=0: its score is not that of its text",
    ]
    assert any(line.startswith("mIoU val: ") for line in found["lisa_grounding, mock/noisy"])


def test_a_completion_that_was_taken_away_is_found(site: Path) -> None:
    path = run_of(site, "lvis_fewshot") / "samples.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[1:]))
    assert "answers.completions: 40 stored, 39 scored again" in flaws(site)["lvis_fewshot, mock/noisy"]


def test_a_run_whose_task_has_changed_cannot_be_verified(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from vrft_bench.registry import TASKS as REGISTRY

    newer = replace(get_task("lvis_fewshot"), version="2")
    monkeypatch.setitem(
        REGISTRY._entries, "lvis_fewshot", replace(REGISTRY._entries["lvis_fewshot"], target=lambda: newer)
    )
    (verdict,) = [verdict for verdict in verify_site(site) if verdict.flaws]
    assert verdict.unverifiable
    assert "task version 1 there, 2 here" in verdict.flaws[0]


def test_absent_data_are_said_and_fail_the_row(make_run: Callable[..., Path], tmp_path: Path) -> None:
    make_run("coco_ovd", "hf/x/a", {"ap": 0.5})
    build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    _, verdict = verify_site(tmp_path / "site")
    assert verdict.unverifiable
    assert verdict.flaws[0].startswith("not verifiable: ")
    assert verdict.to_json()["state"] == "not verifiable"


def test_lost_and_damaged_files_fail_their_row_alone(site: Path) -> None:
    (run_of(site, "lisa_grounding") / "samples.jsonl").unlink()
    (run_of(site, "lvis_fewshot") / "run.json").write_text("{")
    states = {verdict.about.split(",")[0]: bool(verdict.flaws) for verdict in verify_site(site)}
    assert states["pets37_fewshot"] is False
    assert sum(states.values()) == 3


def test_what_is_no_site_is_refused(tmp_path: Path, site: Path) -> None:
    with pytest.raises(DataError, match=r"is no leaderboard: it has no leaderboard\.json"):
        verify_site(tmp_path)
    (site / "leaderboard.json").write_text('{"format": 2}')
    with pytest.raises(DataError, match="is of format 2"):
        verify_site(site)
    (site / "leaderboard.json").write_text("[]")
    with pytest.raises(DataError, match="is damaged"):
        verify_site(site)


def test_the_command_builds_verifies_and_fails_on_a_difference(cli: Any, site: Path, tmp_path: Path) -> None:
    built = cli("leaderboard", "build", "board", "--no-reports", "--task", "pets37_fewshot", "--plain")
    assert built.code == 0, built.err
    assert built.out.splitlines() == [
        "T2: few-shot classification, accuracy (protocol strict, SAMPLE DATA, PARTIAL): 1 row  "
        "FENCED OFF: SAMPLE DATA, PARTIAL",
        "board/index.html",
    ]
    assert cli("leaderboard", "verify", "board").code == 0
    page = tmp_path / "board" / "index.html"
    page.write_text(page.read_text() + " ")
    failed = cli("leaderboard", "verify", "board")
    assert failed.code == 1
    assert "index.html is not as it was built" in failed.out
    states = [item["state"] for item in json.loads(cli("leaderboard", "verify", "board", "--json").out)]
    assert states == ["different", "ok"]


def test_a_report_is_built_for_every_run(cli: Any, site: Path, tmp_path: Path) -> None:
    done = cli("leaderboard", "build", "board", "--task", "lisa_grounding", "--plain")
    assert done.code == 0, done.err
    (report,) = (tmp_path / "board").glob("runs/*/report.html")
    assert "<html" in report.read_text()[:4000]
    assert cli("leaderboard", "verify", "board").code == 0


def test_a_verdict_without_flaws_is_ok() -> None:
    assert Verdict("a", "b").to_json() == {"run": "a", "about": "b", "state": "ok", "flaws": []}


def test_data_that_moved_are_named_by_the_data_flag(cli: Any, tinycoco: Path, tmp_path: Path) -> None:
    """``run.json`` names the place where the data were; the hash does not depend on it."""
    data = tmp_path / "here"
    shutil.copytree(tinycoco, data)
    assert cli("run", "--task", "coco_fewshot", "--model", "mock/noisy", "--data", str(data)).code == 0
    assert cli("leaderboard", "build", "board", "--no-reports").code == 0
    data.rename(tmp_path / "there")
    lost = cli("leaderboard", "verify", "board")
    assert lost.code == 1
    assert "not verifiable: " in lost.out
    assert cli("leaderboard", "verify", "board", "--data", str(tmp_path / "there")).code == 0


def test_no_plugin_is_run_but_the_one_that_is_named(cli: Any, tmp_path: Path) -> None:
    """A site is anyone's: what its runs name as their plugin could be a file that it brought along."""
    source = "import pathlib\npathlib.Path('was_run').touch()\n"
    (tmp_path / "own.py").write_text(source)
    asked = ("run", "--task", "pets37_fewshot", "--model", "mock/noisy", "--limit", "5", "--include", "own.py")
    assert cli(*asked).code == 0
    assert cli("leaderboard", "build", "board", "--no-reports").code == 0
    (tmp_path / "mine").mkdir()
    (tmp_path / "own.py").rename(tmp_path / "mine" / "own.py")
    (tmp_path / "was_run").unlink()
    (run,) = (tmp_path / "board" / "runs").iterdir()
    (run / "own.py").write_text(source)

    def brought_along(manifest: Any) -> Any:
        manifest["config"]["include"] = [str(run / "own.py")]
        return manifest

    edited(tmp_path / "board", run / "run.json", brought_along)
    refused = cli("leaderboard", "verify", "board")
    assert refused.code == 1
    assert "not verifiable: it was run with the plugin own.py" in refused.out
    assert not (tmp_path / "was_run").exists()
    (run / "own.py").unlink()
    assert cli("leaderboard", "verify", "board", "--include", "mine/own.py").code == 0
    assert (tmp_path / "was_run").exists()
