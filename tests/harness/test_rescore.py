from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError, DataError, UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models.mock import mock_backend
from vrft_bench.harness.rescore import rescore
from vrft_bench.harness.results import read_result
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.store import METRICS, SAMPLES, RunStore, read_manifest
from vrft_bench.registry import TASKS

MakeConfig = Callable[..., RunConfig]
Records = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def install(questions: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a changed task in the place of ``questions``."""

    def put(**changes: Any) -> None:
        monkeypatch.setattr(TASKS, "_entries", {k: v for k, v in TASKS._entries.items() if k != "questions"})
        task = replace(questions, **changes)
        TASKS.register("questions", lambda: task)

    return put


def test_rescoring_an_unchanged_run_changes_no_figure_no_score_and_no_text(questions: Any, config: MakeConfig) -> None:
    result = evaluate(questions, mock_backend("noisy", {}), config(samples=2))
    before = {name: (result.folder / name).read_bytes() for name in (SAMPLES, METRICS)}
    again = rescore(result.folder)
    assert again.report == result.report
    assert again.answers == result.answers
    assert {name: (result.folder / name).read_bytes() for name in before} == before
    assert [entry["changes"] for entry in read_manifest(result.folder).rescored] == [[]]
    assert read_result(result.folder, again.manifest).answers == result.answers
    assert read_result(result.folder, again.manifest).report == result.report


def test_damaged_metrics_are_mended_by_rescoring(questions: Any, config: MakeConfig) -> None:
    result = evaluate(questions, mock_backend("noisy", {}), config())
    (result.folder / METRICS).write_text("{")
    with pytest.raises(DataError, match=r"metrics\.json is missing or damaged") as caught:
        evaluate(questions, mock_backend("noisy", {}), config())
    assert f"vrft-bench score {result.folder}" in (caught.value.fix or "")
    rescore(result.folder)
    assert read_result(result.folder, result.manifest).report == result.report


@pytest.mark.parametrize(
    ("where", "value", "said"),
    [
        (("report",), None, "report: input should be"),
        (("report", "figures"), [], "report.figures: input should be"),
        (("report", "figures", "ap"), {"value": "high"}, "report.figures.ap.value: input should be a valid number"),
        (("report", "headline"), "map", "report.headline: there is no figure 'map'"),
        (("report", "by_category", "cat"), 3, "report.by_category.cat: input should be"),
        (("answers", "completions"), "all", "answers.completions: input should be a valid integer"),
        (("answers", "status"), ..., "answers.status: field required"),
    ],
)
def test_metrics_that_were_edited_by_hand_are_a_data_error_that_names_the_place(
    questions: Any, config: MakeConfig, where: tuple[str, ...], value: object, said: str
) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    written = part = json.loads((result.folder / METRICS).read_text())
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    if value is ...:
        del part[where[-1]]
    (result.folder / METRICS).write_text(json.dumps(written))
    with pytest.raises(DataError, match=r"metrics\.json is missing or damaged") as caught:
        read_result(result.folder, result.manifest)
    assert said in caught.value.message


def test_a_file_of_a_run_stands_for_its_folder(questions: Any, config: MakeConfig, tmp_path: Path) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    assert rescore(result.folder / "run.json").folder == result.folder
    assert rescore(result.folder / SAMPLES).folder == result.folder
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(DataError, match=f"{tmp_path / 'notes.txt'} is not a run"):
        rescore(tmp_path / "notes.txt")


def test_a_run_json_that_contradicts_itself_is_neither_resumed_nor_scored(questions: Any, config: MakeConfig) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    path = result.folder / "run.json"
    written = json.loads(path.read_text())
    written["status"], written["identity"]["task"]["version"] = "interrupted", "2"
    path.write_text(json.dumps(written))
    for act in (lambda: evaluate(questions, mock_backend("gold", {}), config()), lambda: rescore(result.folder)):
        with pytest.raises(DataError, match=r"run\.json is damaged or of another version: fingerprint is"):
            act()
    assert evaluate(questions, mock_backend("gold", {}), config(fresh=True)).status == "complete"
    assert evaluate(questions, mock_backend("gold", {}), config()).reused


def test_scores_follow_a_changed_task_and_the_text_stays(
    questions: Any, config: MakeConfig, records: Records, install: Callable[..., None]
) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    texts = [record["text"] for record in records(result.folder)]
    install(version="2", weights={"format": 5.0})
    with pytest.raises(UserError, match="task version 1 there, 2 here"):
        rescore(result.folder)
    assert records(result.folder)[0]["score"]["total"] == 3.0
    again = rescore(result.folder, allow_changed=True)
    assert again.answers.reward == 7.0
    assert "scored after a change: task version 1 there, 2 here" in again.answers.notes
    assert [record["score"]["total"] for record in records(result.folder)] == [7.0] * 60
    assert [record["text"] for record in records(result.folder)] == texts
    assert read_manifest(result.folder).rescored[0]["task_version"] == "2"


def test_changed_data_are_refused_and_with_leave_no_text_is_lost(
    questions: Any, config: MakeConfig, records: Records, install: Callable[..., None]
) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    install(size=50)
    with pytest.raises(
        UserError, match=r"data hash [0-9a-f]{12} \(60 samples\) there, [0-9a-f]{12} \(50 samples\) here"
    ):
        rescore(result.folder)
    again = rescore(result.folder, allow_changed=True)
    assert again.answers.completions == 50
    assert "10 stored completions belong to no sample of this data: kept, not scored" in again.answers.notes
    assert len(records(result.folder)) == 60


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"groups": {"novel": ("cat",)}}, r"task\.groups\.novel: None there, \['cat'\] here"),
        ({"rules": "lvis"}, r"data\.rules: 'coco' there, 'lvis' here"),
        ({"frequency": {"cat": "r"}}, r"data\.frequency\.cat: None there, 'r' here"),
    ],
)
def test_what_the_figures_depend_on_beside_the_samples_is_compared_too(
    questions: Any, config: MakeConfig, install: Callable[..., None], changes: dict[str, Any], said: str
) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    install(**changes)
    with pytest.raises(UserError, match=said):
        rescore(result.folder)


def test_a_changed_plugin_is_a_change(questions: Any, config: MakeConfig, tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("# a plugin\n")
    result = evaluate(questions, mock_backend("gold", {}), config(include=str(plugin)))
    rescore(result.folder)
    plugin.write_text("# another\n")
    with pytest.raises(UserError, match="the files that --include names have changed"):
        rescore(result.folder)


def test_missing_data_are_a_data_error(questions: Any, config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())

    def gone(*_: Any) -> None:
        raise DataError("instances_val2017.json is not there", fix="put it there")

    monkeypatch.setattr(type(questions), "load", gone)
    with pytest.raises(DataError, match="is not there"):
        rescore(result.folder)


def test_a_partial_run_is_scored_over_what_it_has_and_says_so(questions: Any, answers: Any, config: MakeConfig) -> None:
    replies = {("2:cat", 0): {"error": "busy"}, ("5:cat", 0): BackendError("gone")}
    with pytest.raises(BackendError):
        evaluate(questions, answers(replies), config())
    (file,) = config().output_dir.glob("*/*/*/run.json")
    scored = rescore(file.parent)
    assert scored.status == "failed"
    assert (scored.answers.completions, scored.answers.failures) == (10, 1)
    assert "partial: 50 of 60 completions are not there, and count for nothing" in scored.answers.notes
    backend = answers()
    assert evaluate(questions, backend, config()).report.figures["ap"].value == 1.0
    assert len(backend.asked) == 51


def test_a_run_that_is_being_written_is_not_rescored(questions: Any, config: MakeConfig) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    with RunStore(result.folder), pytest.raises(UserError, match="being written by another process"):
        rescore(result.folder)


def test_a_defect_while_rescoring_leaves_the_run_as_it_was(
    questions: Any, config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = evaluate(questions, mock_backend("gold", {}), config())
    before = (result.folder / SAMPLES).read_bytes()
    names = sorted(file.name for file in result.folder.iterdir())
    calls = iter(range(1000))

    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError(next(calls))

    monkeypatch.setattr(type(questions), "parse", broken)
    with pytest.raises(ZeroDivisionError):
        rescore(result.folder)
    assert (result.folder / SAMPLES).read_bytes() == before
    assert sorted(file.name for file in result.folder.iterdir()) == names
    assert json.loads((result.folder / METRICS).read_text())["answers"]["reward"] == 3.0
