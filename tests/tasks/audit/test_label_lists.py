"""On the label lists of the four benchmarks the audit finds what PAPER.md lists, and the sound rules give nothing."""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.audit.battery import AuditReport, Result, audit_labels
from vrft_bench.tasks.data.label_list import load_label_list
from vrft_bench.tasks.profiles import QWEN2_VL

FILES = {
    "flower102_fewshot": "oxford_flowers",
    "pets37_fewshot": "pets",
    "fgvc_aircraft_fewshot": "fgvc_aircraft",
    "cars196_fewshot": "stanford_cars",
}
SAMPLES = {"flower102_fewshot": 2463, "pets37_fewshot": 3669, "fgvc_aircraft_fewshot": 3333, "cars196_fewshot": 8041}
LARGEST_SHARE = {
    "flower102_fewshot": 77 / 2463,
    "pets37_fewshot": 100 / 3669,
    "fgvc_aircraft_fewshot": 34 / 3333,
    "cars196_fewshot": 68 / 8041,
}
DOCUMENTED = {
    "empty answer": "empty answer",
    "every class joined": "every class joined",
    "best of 1 character": "constants of 1",
    "best of 2 characters": "constants of 2",
    "best of 3 characters": "constants of 3",
    "best of 4 characters": "constants of 4",
    "best word": "words of class names",
}
"""What the documentation calls a trick or a family of tricks; a row that is not named here is the best of all."""


@pytest.fixture
def lists(shared_data: Path) -> Path:
    folder = shared_data / "visual_rft_labels"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/visual_rft_labels beside the repository, which is not there")
    return folder


@cache
def report_on(task: str, protocol: str, path: Path) -> AuditReport:
    return audit_labels(get_task(task, protocol), path, QWEN2_VL)


def paper_results(lists: Path, task: str) -> dict[str, Result]:
    pytest.importorskip("math_verify", reason="needs math-verify (the extra [paper])")
    report = report_on(task, "paper", lists / f"{FILES[task]}.csv")
    assert (report.passed, report.data, report.headline) == (False, "labels", "accuracy")
    return {result.trick.name: result for result in report.results}


@pytest.mark.parametrize("task", FILES)
def test_the_papers_rules_pay_100_for_an_empty_answer_and_for_all_names_joined(lists: Path, task: str) -> None:
    found = paper_results(lists, task)
    for name in ("empty answer", "tags only", "every class listed", "every class joined"):
        assert found[name].metric == found[name].means["accuracy"] == 1.0, name
        assert found[name].verdict.above == ("accuracy", "metric"), name
    assert found["empty completion"].metric == 0.0, "evaluation wants tags"
    assert found["empty completion"].means["accuracy"] == 1.0, "training does not"


@pytest.mark.parametrize(
    ("task", "constant", "per_cent"),
    [
        ("flower102_fewshot", "e", 72.3),
        ("flower102_fewshot", "er", 26.6),
        ("pets37_fewshot", "a", 78.3),
        ("pets37_fewshot", "er", 40.5),
        ("fgvc_aircraft_fewshot", "-", 66.0),
        ("fgvc_aircraft_fewshot", "00", 43.0),
        ("fgvc_aircraft_fewshot", "200", 13.1),
        ("cars196_fewshot", "0", 96.7),
        ("cars196_fewshot", "20", 93.9),
        ("cars196_fewshot", "2012", 59.1),
    ],
)
def test_the_search_finds_the_most_profitable_constant_of_each_length(
    lists: Path, task: str, constant: str, per_cent: float
) -> None:
    found = paper_results(lists, task)
    best = max(
        (result for result in found.values() if result.trick.family == f"constants of {len(constant)}"),
        key=lambda result: result.metric or 0.0,
    )
    assert best.trick.name == f"the constant {constant!r}"
    assert round(100 * (best.metric or 0.0), 1) == round(100 * best.means["accuracy"], 1) == per_cent


@pytest.mark.parametrize(
    ("task", "word", "per_cent"),
    [("flower102_fewshot", "flower", 11.7), ("pets37_fewshot", "terrier", 13.3), ("cars196_fewshot", "2012", 59.1)],
)
def test_the_search_finds_the_most_profitable_word(lists: Path, task: str, word: str, per_cent: float) -> None:
    result = paper_results(lists, task)[f"the word {word!r}"]
    assert round(100 * (result.metric or 0.0), 1) == per_cent


@pytest.mark.parametrize("task", FILES)
def test_no_constant_beats_the_search(lists: Path, task: str) -> None:
    """Every string of one and two characters that any name holds, against what the search kept."""
    found = paper_results(lists, task)
    targets = Counter(sample.target for sample in load_label_list(lists / f"{FILES[task]}.csv").samples())
    names = {target: target.label.replace(" ", "").replace("_", "").lower() for target in targets}
    for length in (1, 2):
        candidates = {name[at : at + length] for name in names.values() for at in range(len(name) - length + 1)}
        best = (
            max(sum(count for target, count in targets.items() if text in names[target]) for text in candidates)
            / targets.total()
        )
        kept = [item.metric or 0.0 for item in found.values() if item.trick.family == f"constants of {length}"]
        assert max(kept) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("task", FILES)
def test_under_strict_nothing_earns_more_than_the_largest_class(lists: Path, task: str) -> None:
    report = report_on(task, "strict", lists / f"{FILES[task]}.csv")
    assert report.passed
    assert report.bounds.samples == pytest.approx(
        {"accuracy": LARGEST_SHARE[task], "metric": LARGEST_SHARE[task]}, abs=1e-12
    )
    earned = [max(result.metric or 0.0, result.means["accuracy"]) for result in report.results]
    assert max(earned) == pytest.approx(LARGEST_SHARE[task], abs=1e-12)
    assert report.samples == report.with_truth == SAMPLES[task]


def test_a_part_of_the_labels_is_drawn_by_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text(json.dumps([f"class {number % 7}" for number in range(500)]))
    task = get_task("classification")
    reports = [audit_labels(task, path, QWEN2_VL, limit=20, seed=seed) for seed in (0, 0, 1)]
    assert [report.samples for report in reports] == [20, 20, 20]
    drawn = [{result.best_sample for result in report.results} for report in reports]
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("task", ["coco_fewshot", "lisa_grounding"])
def test_a_task_that_is_no_classification_has_no_label_list(tmp_path: Path, task: str) -> None:
    with pytest.raises(UserError, match=f"task '{task}' is (detection|grounding): a list of labels does not say where"):
        audit_labels(get_task(task), tmp_path / "labels.csv", QWEN2_VL)


def test_two_names_that_match_alike_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("Egg_Roll\negg roll\n")
    with pytest.raises(DataError, match="are one name to the scorer"):
        audit_labels(get_task("classification"), path, QWEN2_VL)


def test_the_table_in_the_documentation_is_what_the_audit_finds(lists: Path) -> None:
    pytest.importorskip("math_verify", reason="needs math-verify (the extra [paper])")
    text = (Path(__file__).parents[3] / "docs" / "audit.md").read_text()
    rows = re.findall(r"^\| `(paper|strict)`: (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert len(rows) == 8
    for protocol, name, cells in rows:
        for task, cell in zip(FILES, cells.split(" | "), strict=True):
            results = report_on(task, protocol, lists / f"{FILES[task]}.csv").results
            if (meant := DOCUMENTED.get(name)) is not None:
                results = tuple(item for item in results if meant in (item.trick.name, item.trick.family))
            best = max(results, key=lambda item: item.metric or 0.0)
            said = re.findall(r"'(.*)'", best.trick.name) if "`" in cell else []
            figure = f"{100 * (best.metric or 0.0):.1f}"
            assert cell == " ".join([*(f"`{text}`" for text in said), figure]), (name, task)
