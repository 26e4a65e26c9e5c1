from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.leaderboards.comparability import parse_allow
from vrft_bench.leaderboards.labels import parse_labels
from vrft_bench.leaderboards.runs import open_runs
from vrft_bench.leaderboards.table_build import build_tables
from vrft_bench.leaderboards.tables import Row, Table, TableOptions, Tables
from vrft_bench.registry import TASK_GROUPS

Make = Callable[..., Path]
COCO = ("bus", "train", "fire hydrant", "stop sign", "cat", "dog", "bed", "toilet")
AS_PAPER: dict[str, Any] = {"protocol": "paper", "ask": "file:", "samples": 1608}


@pytest.fixture
def tables(tmp_path: Path) -> Callable[..., Tables]:
    return lambda **options: build_tables(open_runs([tmp_path / "results"]), TableOptions(**options))


def values(table: Table, heading: str) -> dict[str, float | None]:
    """A column's figures by the rows' names, marks included."""
    place = [column.heading for column in table.columns].index(heading)
    return {named(row): row.cells[place].value for row in table.rows}


def named(row: Row) -> str:
    return " | ".join((row.label.name, *row.marks)) + (" (published)" if row.origin == "published" else "")


def ap(value: float) -> dict[str, Any]:
    return {"figures": {"ap": value}, "by_category": {name: {"ap": value} for name in COCO}}


def test_a_run_by_the_papers_rules_stands_beside_the_papers_figures(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/Qwen/Qwen2-VL-2B-Instruct", **ap(0.25), **AS_PAPER)
    (table,) = tables().tables
    assert table.title == "T3: few-shot detection, 8 COCO categories, AP (protocol paper)"
    column = values(table, "mAP")
    assert column["Qwen/Qwen2-VL-2B-Instruct, base"] == 25.0
    assert column["Qwen2-VL-2B, base (published)"] == 19.6
    assert column["Qwen2-VL-7B, rft, 4 shots (published)"] == 54.3
    assert len(table.rows) == 1 + 14
    assert values(table, "fire hydrant")["Qwen2-VL-2B, base (published)"] == 25.8


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": "strict"}, "protocol: strict here, paper there"),
        ({"ask": "all", "samples": 40_000}, "ask: all here, file: there; data: 40000 samples, "),
        ({"samples": 48}, "there (--allow data puts them beside)"),
        ({"sampling": {"temperature": 1.0}}, "sampling: temperature 1, top-p 1, at most 1024 tokens here"),
        ({"split": "train"}, "split: train here, val there"),
        ({"kind": "sample"}, "sample data stand beside nothing else"),
    ],
)
def test_published_rows_stand_apart_where_the_conditions_differ(
    make_run: Make, tables: Any, changes: dict[str, Any], why: str
) -> None:
    make_run("coco_fewshot", "hf/a/b", **ap(0.25), **AS_PAPER | changes)
    (own,) = tables().tables
    assert {row.origin for row in own.rows} == {"own"}
    assert any(note.startswith("published rows do not stand here: ") and why in note for note in own.notes), own.notes
    both = tables(tasks=("coco_fewshot",)).tables
    assert [table.kind for table in both] == [own.kind, "published"]


def test_allow_puts_them_together_and_marks_what_differs(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/a/b", **ap(0.25), **AS_PAPER | {"split": "train"})
    (table,) = tables(allowed=parse_allow(["split"])).tables
    assert values(table, "mAP")["a/b, base | split: train"] == 25.0
    assert {row.origin for row in table.rows} == {"own", "published"}
    assert "allowed to differ: split" in table.conditions


def test_whatever_is_allowed_each_protocol_has_a_table_of_its_own(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/a/b", **ap(0.25), **AS_PAPER)
    make_run("coco_fewshot", "hf/a/b", **ap(0.25), **AS_PAPER | {"protocol": "strict"})
    found = tables(allowed=parse_allow(["version,data,split,ask,prompt,sampling,plugins"])).tables
    own = [[row.label.model for row in table.rows if row.origin == "own"] for table in found]
    assert own == [["a/b"], ["a/b"]]
    assert [("protocol paper" in table.title, "protocol strict" in table.title) for table in found] in (
        [(True, False), (False, True)],
        [(False, True), (True, False)],
    )
    assert not any("--allow" in note for table in found for note in table.notes)


def test_sample_data_and_published_rows_are_kept_apart_whatever_is_allowed(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/a/b", **ap(0.25), **AS_PAPER | {"kind": "sample"})
    make_run("coco_fewshot", "hf/a/b", **ap(0.25), **AS_PAPER)
    everything = parse_allow(["version,data,split,ask,prompt,sampling,plugins"])
    real, sample = tables(allowed=everything).tables
    assert "SAMPLE DATA" in sample.title
    assert {row.origin for row in sample.rows} == {"own"}
    assert "SAMPLE DATA" not in real.title
    assert len([row for row in real.rows if row.origin == "own"]) == 1


@pytest.mark.parametrize(
    "changes",
    [{"version": "2"}, {"data": "other"}, {"ask": "present"}, {"sampling": {"n": 4}}],
)
def test_runs_that_may_not_be_compared_are_in_two_tables(make_run: Make, tables: Any, changes: dict[str, Any]) -> None:
    make_run("coco_fewshot", "hf/a/b", **ap(0.25))
    make_run("coco_fewshot", "hf/a/c", **ap(0.5), **changes)
    assert [len(table.rows) for table in tables().tables] == [1, 1]
    assert len(tables(allowed=parse_allow(changes), published=False).tables) == 1


def test_a_table_beside_another_says_what_sets_it_apart(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/a/b", **ap(0.25), version="2")
    make_run("coco_fewshot", "hf/a/c", **ap(0.25), version="2")
    make_run("coco_fewshot", "hf/a/d", **ap(0.25))
    _, second = tables(published=False).tables
    assert "version: 1 here, 2 there (--allow version joins them)" in second.notes[0]


def test_a_partial_run_has_a_table_of_its_own_and_says_so(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/a/b", **ap(0.25))
    make_run("coco_fewshot", "hf/a/c", **ap(0.9), limit=7, samples=7)
    whole, partial = tables(published=False).tables
    assert "PARTIAL" in partial.title
    assert "PARTIAL" not in whole.title
    assert list(values(partial, "mAP")) == ["a/c, base | PARTIAL, 7 samples"]
    (joined,) = tables(published=False, allowed=parse_allow(["data"])).tables
    assert [named(row) for row in joined.rows][1].startswith("a/c, base | data: 7 samples, ")


def test_classification_joins_four_tasks_into_one_row(make_run: Make, tables: Any, trained: Any) -> None:
    """A model is trained on each data set, as in the paper: four checkpoints of one label make one row."""
    names = TASK_GROUPS["fewshot_classification"]
    for place, task in enumerate(names):
        make_run(task, "hf/Qwen/Qwen2-VL-2B-Instruct", {"accuracy": 0.5}, weights="base")
        rft = [trained("grpo", shots=4)]
        make_run(task, f"hf/{task}/final", {"accuracy": 0.6 + place / 10}, weights=task, trainings=rft)
    (table,) = tables().tables
    assert values(table, "average") == {
        "Qwen/Qwen2-VL-2B-Instruct, base": 50.0,
        "Qwen/Qwen2-VL-2B-Instruct, rft, 4 shots": pytest.approx(75.0),
    }
    assert len(table.rows[1].folders) == 4


def test_two_trained_models_of_one_label_are_told_apart(make_run: Make, tables: Any, trained: Any) -> None:
    for weights in ("one", "two"):
        make_run("coco_fewshot", "hf/ckpt/final", **ap(0.25), weights=weights, trainings=[trained("sft", shots=4)])
    (table,) = tables(published=False).tables
    marks = [row.marks for row in table.rows]
    assert len({row.label for row in table.rows}) == 1
    assert marks[0] != marks[1]
    assert all(mark[0].startswith("files.model.safetensors: ") for mark in marks)


def test_rows_are_ordered_by_shots_and_method(make_run: Make, tables: Any, trained: Any) -> None:
    for trainer, shots in (("grpo", 16), ("sft", 4), ("grpo", 4), ("sft", 16), ("grpo", None)):
        training = [trained(trainer, shots=shots)]
        make_run("coco_fewshot", "hf/x/final", **ap(0.1), weights=f"{trainer}{shots}", trainings=training)
    make_run("coco_fewshot", "hf/Qwen/Qwen2-VL-2B-Instruct", **ap(0.1), weights="base")
    (table,) = tables(published=False).tables
    told = [(row.label.method, row.label.shots) for row in table.rows]
    assert told == [("base", 0), ("sft", 4), ("rft", 4), ("sft", 16), ("rft", 16), ("rft", None)]


def test_a_chain_of_trainings_and_a_folder_of_unknown_past_are_called_what_they_are(
    make_run: Make, tables: Any, trained: Any
) -> None:
    chain = [trained("sft", shots=4), trained("grpo", base="final", shots=16)]
    make_run("coco_fewshot", "hf/x/final", **ap(0.1), weights="chain", trainings=chain)
    make_run("coco_fewshot", "hf//home/someone/models/checkpoint-20", **ap(0.1), weights="folder")
    (table,) = tables(published=False).tables
    assert [row.label.name for row in table.rows] == [
        "models/checkpoint-20",
        "Qwen/Qwen2-VL-2B-Instruct, sft+rft, 16 shots",
    ]


def test_label_says_what_no_record_does(make_run: Make, tables: Any) -> None:
    one = make_run("coco_fewshot", "hf/./ckpt/final", **ap(0.1), weights="one")
    make_run("coco_fewshot", "hf/./other", **ap(0.1), weights="two")
    rules = parse_labels([f"{one}=Qwen2-VL-2B,rft,4", "hf/*other=Mine,base"])
    (table,) = tables(published=False, labels=rules).tables
    assert [row.label.name for row in table.rows] == ["Mine, base", "Qwen2-VL-2B, rft, 4 shots"]
    for wrong in ("x", "=y", "x=", "x=a,b,c", "x=a,b,-1", "x=a,b,1,2", "x=a,,1"):
        with pytest.raises(UserError, match="is not of the form WHICH=NAME,METHOD,SHOTS"):
            parse_labels([wrong])


def test_the_best_own_figures_are_marked_ties_included_and_published_ones_never(make_run: Make, tables: Any) -> None:
    """44.04 and 43.96 print alike, so both are best; the paper's 54.3 takes no part."""
    for name, value in (("a", 0.4404), ("b", 0.4396), ("c", 0.1)):
        make_run("coco_fewshot", f"hf/x/{name}", **ap(value), **AS_PAPER, weights=name)
    (table,) = tables().tables
    best = {named(row) for row in table.rows if row.cells[0].best}
    assert best == {"x/a, base", "x/b, base"}


def test_a_lone_run_is_not_the_best_of_anything(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/x/a", **ap(0.5), **AS_PAPER)
    (table,) = tables().tables
    assert not any(cell.best for row in table.rows for cell in row.cells)


def test_gains_over_the_base_stay_with_one_model_and_one_origin(make_run: Make, tables: Any, trained: Any) -> None:
    make_run("coco_fewshot", "hf/Qwen/Qwen2-VL-2B-Instruct", **ap(0.25), **AS_PAPER, weights="base")
    make_run("coco_fewshot", "hf/c/final", **ap(0.4), **AS_PAPER, weights="rft", trainings=[trained("grpo", shots=4)])
    make_run("coco_fewshot", "hf/c/final", **ap(0.4), **AS_PAPER, weights="odd", trainings=[trained("grpo", base="Z")])
    (table,) = tables(baseline="base").tables
    gains = {named(row): row.cells[0].gain for row in table.rows}
    assert gains["Qwen/Qwen2-VL-2B-Instruct, rft, 4 shots"] == pytest.approx(15.0)
    assert gains["Qwen/Qwen2-VL-2B-Instruct, base"] is None
    assert gains["Z, rft"] is None
    assert gains["Qwen2-VL-7B, rft, 4 shots (published)"] == pytest.approx(54.3 - 43.0)


def test_a_model_with_two_base_rows_gains_over_neither(make_run: Make, tables: Any, trained: Any) -> None:
    for weights, value in (("w", 0.2), ("of 4 bits", 0.1)):
        make_run("coco_fewshot", "hf/Qwen/Qwen2-VL-2B-Instruct", **ap(value), weights=weights)
    make_run("coco_fewshot", "hf/./ckpt", **ap(0.4), trainings=[trained("grpo", shots=4)])
    make_run("coco_fewshot", "hf/a/b", **ap(0.4))
    make_run("coco_fewshot", "hf/./other", **ap(0.5), trainings=[trained("sft", base="a/b", shots=4)])
    (table,) = tables(baseline="base", published=False, sort="mAP").tables
    gains = {row.label.name: row.cells[0].gain for row in table.rows}
    assert gains.pop("a/b, sft, 4 shots") == pytest.approx(10)
    assert set(gains.values()) == {None}
    assert "Qwen/Qwen2-VL-2B-Instruct has 2 base rows: its gains are over none of them" in " ".join(table.notes)


def test_gains_over_a_named_row_or_run_are_for_own_rows_alone(make_run: Make, tables: Any) -> None:
    base = make_run("coco_fewshot", "hf/x/a", **ap(0.25), **AS_PAPER, weights="a")
    make_run("coco_fewshot", "hf/x/b", **ap(0.2), **AS_PAPER, weights="b")
    for name in ("x/a", "X/A, base", str(base)):
        (table,) = tables(baseline=name).tables
        gains = {named(row): row.cells[0].gain for row in table.rows if row.cells[0].gain is not None}
        assert gains == {"x/b, base": pytest.approx(-5.0)}
    with pytest.raises(UserError, match="--baseline 'x/aa': no run of that name"):
        tables(baseline="x/aa")


def test_a_baseline_that_means_two_rows_is_refused(make_run: Make, tables: Any, trained: Any) -> None:
    make_run("coco_fewshot", "hf/Qwen/Qwen2-VL-2B-Instruct", **ap(0.2), weights="a")
    make_run("coco_fewshot", "hf/c/final", **ap(0.3), weights="b", trainings=[trained("grpo")])
    with pytest.raises(UserError, match="may mean Qwen/Qwen2-VL-2B-Instruct, base; Qwen/Qwen2-VL-2B-Instruct, rft"):
        tables(baseline="Qwen/Qwen2-VL-2B-Instruct")


def test_the_newest_run_of_a_model_is_shown_and_every_one_on_demand(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/x/a", **ap(0.2), created="2026-01-03T00:00:00+00:00")
    make_run("coco_fewshot", "hf/x/a", **ap(0.3), created="2026-01-04T00:00:00+00:00", sampling={"seed": 1})
    (table,) = tables(published=False).tables
    assert values(table, "mAP") == {"x/a, base": 30.0}
    assert "1 older run(s) of the same models are not shown; --all shows them" in table.notes
    (table,) = tables(published=False, every_run=True).tables
    assert values(table, "mAP") == {
        "x/a, base | run of 2026-01-03T00:00:00+00:00": 20.0,
        "x/a, base | run of 2026-01-04T00:00:00+00:00": 30.0,
    }


def test_sort_puts_the_best_first_and_refuses_an_unknown_column(make_run: Make, tables: Any) -> None:
    for name, value in (("a", 0.1), ("b", 0.3), ("c", 0.2)):
        make_run("coco_fewshot", f"hf/x/{name}", **ap(value), weights=name)
    (table,) = tables(published=False, sort="MAP").tables
    assert [row.label.model for row in table.rows] == ["x/b", "x/c", "x/a"]
    with pytest.raises(UserError, match="there is no such column"):
        tables(published=False, sort="mAPs")


def test_grounding_has_a_column_per_split_and_the_masks_of_a_segmenter(make_run: Make, tables: Any) -> None:
    val = make_run("lisa_grounding", "hf/x/a", {"miou": 0.3}, split="val", samples=200)
    test = make_run("lisa_grounding", "hf/x/a", {"miou": 0.4}, split="test", samples=779)
    masks = '{"report": {"headline": "giou", "figures": {"giou": {"value": 0.2}}}}'
    (test / "masks-box.json").write_text(masks)
    (table,) = tables().tables
    assert [column.heading for column in table.columns] == ["mIoU test", "mIoU val"]
    (test / "masks-sam-01234567.json").write_text(masks)
    (val / "masks-sam-01234567.json").write_text("{")
    (table,) = tables().tables
    assert [(column.heading, cell.value) for column, cell in zip(table.columns, table.rows[0].cells, strict=True)] == [
        ("mIoU test", 40.0),
        ("mIoU val", 30.0),
        ("gIoU test", 20.0),
    ]


def test_open_vocabulary_detection_shows_its_groups(make_run: Make, tables: Any) -> None:
    make_run("coco_ovd", "hf/x/a", {"ap": 0.3, "ap_novel": 0.2, "ap_base": 0.4})
    (table,) = tables().tables
    assert [cell.value for cell in table.rows[0].cells] == [20.0, 40.0, 30.0]


def test_any_other_task_gets_its_headline_and_its_categories(make_run: Make, tables: Any) -> None:
    make_run("detection", "hf/x/a", {"ap": 0.3}, {"cat": {"ap": 0.3, "n": 5}, "dog": {"ap": None}, "cow": {"n": 3}})
    (table,) = tables().tables
    assert [column.heading for column in table.columns] == ["AP", "cat", "dog"]
    assert [cell.value for cell in table.rows[0].cells] == [30.0, 30.0, None]


def test_a_figure_that_a_run_lacks_is_no_figure(make_run: Make, tables: Any) -> None:
    make_run("coco_ovd", "hf/x/a", {"ap": 0.3})
    (table,) = tables().tables
    assert [cell.value for cell in table.rows[0].cells] == [None, None, 30.0]


def test_all_tables_of_the_paper_are_shown_where_all_are_asked_for(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/x/a", **ap(0.3))
    found = tables(tasks=TASK_GROUPS["visual_rft"]).tables
    numbers = [(table.layout.table, table.kind) for table in found]
    published = [(f"T{number}", "published") for number in range(2, 9)]
    assert numbers == [published[0], ("T3", "real"), *published[1:]]
    assert len(tables(tasks=TASK_GROUPS["visual_rft"], published=False).tables) == 1


def test_runs_that_stand_in_no_table_are_named_with_their_reason(make_run: Make, tables: Any) -> None:
    make_run("coco_fewshot", "hf/x/a", **ap(0.3))
    torn = make_run("coco_fewshot", "hf/x/b", **ap(0.3))
    (torn / "run.json").write_text("{")
    unfinished = make_run("coco_fewshot", "hf/x/c", **ap(0.3), status="interrupted")
    empty = make_run("coco_fewshot", "hf/x/d", {"ap": None}, samples=0)
    found = tables(published=False)
    assert [len(table.rows) for table in found.tables] == [1]
    reasons = {item.folder: item.reason for item in found.left_out}
    assert set(reasons) == {torn, unfinished, empty}
    assert reasons[unfinished] == "unfinished: its status is 'interrupted'"
    assert reasons[empty] == "it has no samples"
