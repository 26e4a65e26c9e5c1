"""VRFT_BENCH_DATA is a default that every verb reads alike; a run can be scored from any folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.tasks.data.sample import sample_folder

pytestmark = pytest.mark.usefixtures("sample_cache")
RED = ("--categories", "red circle")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Any) -> Path:
    """A data root, which the environment names; in COCO's layout, so that it counts as real."""
    shutil.copytree(sample_folder("coco", "val"), tmp_path / "coco")
    monkeypatch.setenv("VRFT_BENCH_DATA", str(tmp_path / "coco"))
    return tmp_path / "coco"


def recorded_data(run: dict[str, Any]) -> str | None:
    data: str | None = json.loads((Path(run["folder"]) / "run.json").read_text())["config"]["data"]
    return data


def test_run_show_and_dry_run_read_the_environment_alike(cli: Any, root: Path) -> None:
    run = json.loads(cli("-t", "coco_fewshot", "-m", "mock/gold", *RED, "--json").out)
    planned = json.loads(cli("-t", "coco_fewshot", "-m", "mock/gold", *RED, "--dry-run", "--json").out)
    shown = json.loads(cli("show", "coco_fewshot", *RED, "--json").out)
    assert [view["data"] for view in (run, planned, shown)] == ["real"] * 3
    assert planned["fingerprint"] == run["fingerprint"]
    assert recorded_data(run) == str(root)


@pytest.mark.parametrize("task", ["detection", "classification", "grounding"])
def test_a_task_that_reads_no_data_root_takes_no_notice_of_it(cli: Any, root: Path, task: str) -> None:
    outcome = cli("-t", task, "-m", "mock/gold", "-L", "3", "--json")
    assert outcome.code == 0, outcome.err
    run = json.loads(outcome.out)
    assert (run["data"], recorded_data(run)) == ("sample", None)
    assert json.loads(cli("show", task, "--json").out)["data"] == "sample"
    given = cli("-t", task, "-m", "mock/gold", "--data", str(root))
    assert given.code == 2, "a root that is given is not ignored"
    assert "not a data root" in given.err


def test_ones_own_files_win_over_the_environment(cli: Any, root: Path) -> None:
    own = ("--annotations", "coco/annotations/instances_val2017.json", "--images", "coco/images/val2017")
    outcome = cli("-t", "coco_fewshot", "-m", "mock/gold", *RED, *own, "--json")
    assert outcome.code == 0, outcome.err
    assert recorded_data(json.loads(outcome.out)) is None
    assert cli("show", "coco_fewshot", *RED, *own).code == 0


def test_a_recorded_run_on_the_sample_data_is_repeated_on_it(
    cli: Any, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VRFT_BENCH_DATA")
    run = json.loads(cli("-t", "coco_fewshot", "-m", "mock/gold", "-L", "3", "--json").out)
    monkeypatch.setenv("VRFT_BENCH_DATA", str(root))
    again = json.loads(cli("-c", f"{run['folder']}/run.json", "--json").out)
    assert (again["reused"], again["data"]) == (True, "sample")


@pytest.mark.parametrize("verb", [("run", "-m", "mock/gold", "-t"), ("run", "--dry-run", "-t"), ("show",)])
def test_an_empty_data_root_is_a_mistake_and_an_empty_variable_is_none(
    cli: Any, monkeypatch: pytest.MonkeyPatch, verb: tuple[str, ...]
) -> None:
    outcome = cli(*verb, "coco_fewshot", "--data", "")
    assert outcome.code == 2
    assert "data = '': it is empty" in outcome.err
    assert "without it the sample data is used" in outcome.err
    monkeypatch.setenv("VRFT_BENCH_DATA", "")
    assert cli("show", "coco_fewshot").code == 0


def test_a_variable_that_names_no_folder_is_told(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRFT_BENCH_DATA", "absent")
    for argv in (("-t", "coco_fewshot", "-m", "mock/gold"), ("show", "coco_fewshot")):
        outcome = cli(*argv)
        assert outcome.code == 3
        assert "there is no data folder absent" in outcome.err


def test_a_run_is_scored_from_another_folder(
    cli: Any, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "plugin.py").write_text("# nothing to register\n")
    ids = [image["id"] for image in json.loads((root / "annotations/instances_val2017.json").read_text())["images"]]
    (tmp_path / "map.json").write_text(json.dumps({str(image): ["red circle"] for image in ids[:5]}))
    files = ("--annotations", "coco/annotations/instances_val2017.json", "--images", "coco/images/val2017")
    rest = ("--ask", "file:map.json", "--include", "plugin.py")
    command = ("-t", "detection", "-m", "mock/noisy", *files, *rest, "--json")
    run = json.loads(cli(*command).out)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    scored = cli("score", str(tmp_path / run["folder"] / "run.json"), "--json")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["report"] == run["report"]
    monkeypatch.chdir(tmp_path)  # runs are kept where the command is given
    repeated = json.loads(cli("-c", str(tmp_path / run["folder"] / "run.json"), "--json").out)
    assert (repeated["reused"], Path(repeated["folder"])) == (True, Path(run["folder"]))
