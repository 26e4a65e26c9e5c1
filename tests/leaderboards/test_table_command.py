from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Make = Callable[..., Path]


def test_table_prints_real_runs_by_the_default_of_results(cli: Any, sample_cache: Path) -> None:
    for model in ("mock/gold", "mock/noisy"):
        assert cli("run", "--task", "lvis_fewshot", "--limit", "12", "--model", model).code == 0
    done = cli("table")
    assert done.code == 0, done.err
    assert "### few-shot detection, lvis_fewshot (protocol strict, SAMPLE DATA, PARTIAL)" in done.out
    assert "| mock/gold (PARTIAL, 12 samples) | base | **100.0** |" in done.out


def test_models_that_speak_different_coordinates_stand_in_one_table(cli: Any, sample_cache: Path) -> None:
    for profile in ("qwen2-vl", "abs_original", "norm_1"):
        assert (
            cli("run", "--task", "lvis_fewshot", "--limit", "6", "--model", "mock/gold", "--profile", profile).code == 0
        )
    (table,) = json.loads(cli("table", "--format", "json").out)["tables"]
    assert len(table["rows"]) == 3
    marks = {row["marks"][0].partition(":")[0] for row in table["rows"]}
    assert marks <= {"profile.name", "profile.convention", "profile.decimals", "profile.factor", "profile.axes"}


def test_tasks_are_chosen_by_names_groups_and_globs_with_commas(cli: Any, make_run: Make) -> None:
    for task in ("coco_fewshot", "lvis_fewshot", "coco_ovd", "lisa_grounding"):
        make_run(task, "hf/x/a", {"ap": 0.5})

    def shown(*argv: str) -> list[str]:
        done = cli("table", "--format", "json", "--no-published", *argv)
        return [table["table"] for table in json.loads(done.out)["tables"]]

    assert shown() == ["T3", "T4", "T6", "T7"]
    assert shown("--task", "coco_ovd,lvis_fewshot") == ["T4", "T7"]
    assert shown("-t", "fewshot_detection", "--tasks", "lisa*") == ["T3", "T4", "T6"]


def test_output_goes_to_a_file_and_a_failure_to_write_is_told(cli: Any, make_run: Make, tmp_path: Path) -> None:
    make_run("coco_fewshot", "hf/x/a", {"ap": 0.5})
    done = cli("table", "--format", "csv", "-o", "table.csv")
    assert (done.code, done.out) == (0, "table.csv\n")
    assert (tmp_path / "table.csv").read_text().startswith("table,title,data,model,")
    failed = cli("table", "-o", "nowhere/table.md")
    assert failed.code == 2
    assert "cannot write nowhere/table.md" in failed.err


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (("nowhere",), 3, "nowhere does not exist"),
        (("--task", "coco_fewshots"), 2, "unknown task 'coco_fewshots'"),
        (("--allow", "dat"), 2, "there is no such condition"),
        (("--allow", "protocol"), 2, "each protocol has a table of its own"),
        (("--baseline", "other"), 2, "no run of that name"),
        (("--label", "x"), 2, "WHICH=NAME,METHOD,SHOTS"),
        (("--sort", "x"), 2, "there is no such column"),
    ],
)
def test_a_mistake_is_one_message(cli: Any, make_run: Make, argv: tuple[str, ...], code: int, said: str) -> None:
    make_run("coco_fewshot", "hf/x/a", {"ap": 0.5})
    done = cli("table", *argv)
    assert done.code == code
    assert said in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_html_without_jinja2_says_what_to_install(cli: Any, make_run: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run("coco_fewshot", "hf/x/a", {"ap": 0.5})
    real = builtins.__import__

    def without(name: str, *args: Any, **options: Any) -> Any:
        if name == "jinja2":
            raise ImportError(name)
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    done = cli("table", "--format", "html")
    assert done.code == 2
    assert "pip install 'vrft-bench[report]'" in done.err
    assert cli("table", "--format", "latex").code == 0
