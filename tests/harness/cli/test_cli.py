"""The command line as a user types it: output, exit codes and messages."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.harness.cli.app import arguments, main
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec

pytestmark = pytest.mark.usefixtures("sample_cache")


def test_run_is_the_default_verb_and_underscores_parse() -> None:
    assert arguments(["--task", "x", "--max_tokens=5"]) == ["run", "--task", "x", "--max-tokens=5"]
    assert arguments(["-t", "coco_fewshot"]) == ["run", "-t", "coco_fewshot"]
    assert arguments(["ls", "tasks"]) == ["ls", "tasks"]
    assert arguments(["--help"]) == ["--help"]
    assert arguments(["run", "--", "--a_b"]) == ["run", "--", "--a_b"]


def test_a_run_prints_a_table_and_ends_with_its_folder(cli: Any) -> None:
    outcome = cli("--task", "coco_fewshot", "--model", "mock/gold", "--plain")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[0] == "coco_fewshot  |  mock/gold  |  profile abs_original  |  protocol strict  |  data: sample"
    headings = ["category", "truths", "asked", "AP", "95% interval", "AP50", "precision", "recall", "F1"]
    assert re.split(r"\s{2,}", lines[1]) == headings
    mean = next(line for line in lines if line.startswith("all "))
    assert mean.split()[3] == "1.000"
    assert any(line.startswith("answers: ") and "repaired 0.0%" in line and "unparsable 0.0%" in line for line in lines)
    folder = Path(lines[-1])
    assert {file.name for file in folder.iterdir()} >= {"run.json", "samples.jsonl", "metrics.json"}


def test_json_is_one_line_per_run_and_repeating_reuses_the_run(cli: Any) -> None:
    command = ("run", "-t", "lisa_grounding,classification", "-m", "mock/noisy", "-L", "30", "--json")
    first = [json.loads(line) for line in cli(*command).out.splitlines()]
    assert [run["task"] for run in first] == ["lisa_grounding", "classification"]
    assert [run["reused"] for run in first] == [False, False]
    again = [json.loads(line) for line in cli(*command).out.splitlines()]
    assert [run["reused"] for run in again] == [True, True]
    assert [run["folder"] for run in again] == [run["folder"] for run in first]
    fresh = [json.loads(line) for line in cli(*command, "--fresh").out.splitlines()]
    assert all(new["folder"] != old["folder"] for new, old in zip(fresh, first, strict=True))
    assert [run["report"] for run in fresh] == [run["report"] for run in first]


def test_score_gives_the_same_figures_without_a_model(cli: Any) -> None:
    run = json.loads(cli("-t", "lvis_fewshot", "-m", "mock/noisy", "--json").out)
    scored = json.loads(cli("score", run["folder"], "--json").out)
    assert scored["report"] == run["report"]
    assert scored["answers"] == run["answers"]


def test_a_dry_run_tells_and_leaves_nothing_behind(cli: Any, tmp_path: Path) -> None:
    outcome = cli("-t", "lvis_fewshot", "-m", "mock/gold", "--dry-run")
    assert outcome.code == 0
    for word in ("questions", "fingerprint", "abs_original", "greedy", "Find every"):
        assert word in outcome.out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_in_json_prints_a_line_of_json_per_task_and_nothing_else(cli: Any, tmp_path: Path) -> None:
    outcome = cli("-t", "lvis_fewshot,lisa_grounding", "-m", "mock/gold", "--dry-run", "--json")
    assert outcome.code == 0
    views = [json.loads(line) for line in outcome.out.splitlines()]
    assert [view["task"] for view in views] == ["lvis_fewshot", "lisa_grounding"]
    assert views[0]["identity"]["model"] == {"name": "mock/gold"}
    assert views[0]["first_question"]["prompt"].startswith("Find every")
    assert views[0]["questions"] == views[0]["completions"] > 0
    assert list(tmp_path.iterdir()) == []
    run = json.loads(cli("-t", "lvis_fewshot", "-m", "mock/gold", "--json").out)
    assert run["fingerprint"] == views[0]["fingerprint"]


def test_a_category_that_is_named_twice_is_asked_once(cli: Any) -> None:
    argv = ("-t", "coco_fewshot", "-m", "mock/gold", "--dry-run", "--json", "--categories")
    view = json.loads(cli(*argv, "green square,red_circle,Red Circle,green square").out)
    assert view["categories"] == ["green square", "red circle"]


def test_sample_ids_beyond_the_limit_are_known(cli: Any) -> None:
    argv = ("-t", "classification", "-m", "mock/gold", "--dry-run", "--json")
    first = json.loads(cli(*argv, "-L", "1").out)["first_question"]["id"]
    chosen = cli(*argv, "-L", "1", "--sample-id", "nope", "--sample-id", first)
    assert chosen.code == 2
    assert "unknown sample id 'nope'" in chosen.err
    last = [sample.id for sample in get_task("classification").load(DataSpec()).samples()][-1]
    assert json.loads(cli(*argv, "-L", "1", "--sample-id", last, "--sample-id", first).out)["questions"] == 1


@pytest.mark.parametrize("task", ["coco_fewshot", "lvis_ovd", "classification", "lisa_grounding", "cars196_fewshot"])
def test_show_goes_from_question_to_score(cli: Any, task: str) -> None:
    outcome = cli("show", task)
    assert outcome.code == 0, outcome.err
    for heading in ("prompt", "chat messages", "truth, in original pixels", "gold completion", "scores of the gold"):
        assert f"\n{heading}" in outcome.out
    view = json.loads(cli("show", task, "--json", "--profile", "abs_original").out)
    assert view["scores"]["total"] == len(view["scores"]) - 1


def test_ls_runs_lists_what_ran(cli: Any) -> None:
    assert "no runs in results" in cli("ls", "runs").out
    folder = cli("-t", "lisa_grounding", "-m", "mock/gold", "-L", "5").out.splitlines()[-1]
    row = json.loads(cli("ls", "runs", "--json").out)[0]
    assert row["protocol"] == "strict"
    assert (row["run"], row["status"], row["data"], row["headline"]) == (folder, "complete", "sample", "miou 1.000")
    assert row["done"] == "5/5"
    assert "reason" not in cli("ls", "runs").out
    (Path(folder) / "run.json").write_text("{")
    outcome = cli("ls", "runs")
    assert outcome.code == 0
    assert "damaged" in outcome.out
    assert "run.json is damaged or of another version: invalid JSON" in outcome.out


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "1 / 0", "import no_such_module"])
def test_ls_goes_on_after_a_file_that_cannot_be_included(cli: Any, tmp_path: Path, code: str) -> None:
    (tmp_path / "bad.py").write_text(code)
    outcome = cli("ls", "tasks", "--include", "bad.py", "--include", "absent.py", "--json")
    assert outcome.code == 0, outcome.err
    rows = {row["name"]: row["what"] for row in json.loads(outcome.out)}
    assert "coco_fewshot" in rows
    assert rows["bad.py"].startswith("BROKEN: --include 'bad.py' failed: ")
    assert rows["absent.py"] == "BROKEN: --include 'absent.py': no such file"
    assert cli("run", "-t", "coco_fewshot", "-m", "mock/gold", "--include", "bad.py").code == 2


def test_settings_come_from_a_file_and_flags_win(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("task: lisa_grounding\nmodel: mock/gold\nlimit: 7\nseed: 3\n")
    run = json.loads(cli("-c", "run.yaml", "--limit", "4", "--json").out)
    record = json.loads((Path(run["folder"]) / "run.json").read_text())
    assert (record["config"]["limit"], record["config"]["seed"]) == (4, 3)
    again = json.loads(cli("-c", f"{run['folder']}/run.json", "--json").out)
    assert again["reused"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        ((), 2, ("no task is given",)),
        (("-t", "coco_fewsho"), 2, ("unknown task 'coco_fewsho'", "did you mean 'coco_fewshot'", "fix:")),
        (("-t", "coco_fewshot", "-m", "nope/x"), 2, ("names no backend", "hf/nope/x")),
        (("-t", "coco_fewshot", "-m", "mock/golden"), 2, ("golden", "did you mean 'gold'")),
        (("-t", "coco_fewshot", "-m", "mock/noisy", "-M", "jitters=1"), 2, ("jitters", "jitter")),
        (("-t", "coco_fewshot", "-m", "mock/gold", "-M", "x"), 2, ("not of the form name=value",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--profile", "qwen2vl"), 2, ("did you mean 'qwen2-vl'",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--protocol", "loose"), 2, ("protocol", "strict")),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--categories", "red circel"), 2, ("did you mean 'red circle'",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--sample-id", "nope"), 2, ("unknown sample id 'nope'",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--ask", "some"), 2, ("present",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--data", "absent"), 3, ("no data folder absent",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--data", "."), 3, ("instances_val2017.json", "cocodataset.org")),
        (("-t", "detection", "-m", "mock/gold", "--annotations", "no.json", "--images", "."), 3, ("no.json",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "-c", "absent.yaml"), 2, ("no such file",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--limit", "0"), 2, ("limit takes a whole number of at least 1",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "-L", "3", "--sample-id", "nope"), 2, ("unknown sample id 'nope'",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--temperature", "inf"), 2, ("temperature = inf", "finite number")),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--temperature", "nan"), 2, ("temperature = nan",)),
        (("-t", "coco_fewshot", "-m", "mock/noisy", "-M", "jitter=1e999"), 2, ("cannot be written as JSON",)),
        (("-t", "coco_fewshot", "-m", ""), 2, ("model = '': it is empty", "backend/name")),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--categories", ""), 2, ("categories = '': it names nothing",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "--annotations", ""), 2, ("annotations = '': it is empty",)),
        (("-t", "coco_fewshot", "-m", "mock/gold", "-o", ""), 2, ("output_dir = '': it is empty",)),
        (("score", "absent"), 3, ("absent",)),
        (("ls", "tusks"), 2, ("tasks",)),
    ],
)
def test_a_users_mistake_is_one_message_with_its_fix(
    cli: Any, tmp_path: Path, argv: tuple[str, ...], code: int, words: tuple[str, ...]
) -> None:
    outcome = cli(*(argv or ("run",)))
    assert outcome.code == code, outcome.err
    assert "Traceback" not in outcome.err
    for word in words:
        assert word in outcome.err
    assert list(tmp_path.rglob("*")) == []


def test_debug_shows_the_traceback(cli: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from vrft_bench.errors import UserError

    monkeypatch.setattr(sys, "argv", ["vrft-bench", "-t", "nope", "--debug"])
    with pytest.raises(UserError, match="unknown task"):
        main()


def test_a_folder_that_the_system_refuses_is_one_message(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The superuser may read everything, so the system's answer is given for it."""
    closed = tmp_path / "ReasonSeg" / "val"
    closed.mkdir(parents=True)
    look = Path.iterdir

    def refusing(folder: Path) -> Any:
        if folder == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return look(folder)

    monkeypatch.setattr(Path, "iterdir", refusing)
    command = ("data", "check", "lisa_grounding", "--data", str(tmp_path))
    outcome = cli(*command)
    assert outcome.code == 3
    assert outcome.err == f"error: {closed}: Permission denied\n  fix: get the right to it, or name another\n"
    monkeypatch.setattr(sys, "argv", ["vrft-bench", *command, "--debug"])
    with pytest.raises(PermissionError):
        main()


def test_an_error_of_the_system_about_no_file_is_a_defect_and_keeps_its_traceback(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ReasonSeg" / "val").mkdir(parents=True)

    def failing(folder: Path) -> Any:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "iterdir", failing)
    with pytest.raises(OSError, match="Input/output error"):
        cli("data", "check", "lisa_grounding", "--data", str(tmp_path))


class TestRealCoco:
    """The main job on real COCO images and annotations."""

    CATEGORIES = "toilet,bus,person"

    @pytest.mark.parametrize("split", ["val", "train"])
    def test_gold_scores_ap_1(self, cli: Any, tinycoco: Path, split: str) -> None:
        outcome = cli(
            *("run", "--task", "coco_fewshot", "--data", str(tinycoco), "--model", "mock/gold"),
            *("--categories", self.CATEGORIES, "--split", split, "--json"),
        )
        run = json.loads(outcome.out)
        assert run["report"]["figures"]["ap"]["value"] == pytest.approx(1.0, abs=1e-12)
        assert run["data"] == "real"
        asked = {name: row["images"] for name, row in run["report"]["by_category"].items()}
        assert asked == dict.fromkeys(("toilet", "bus", "person"), 6 if split == "val" else 32)

    def test_noisy_scores_what_pycocotools_gives_for_the_same_boxes(
        self, cli: Any, tinycoco: Path, tmp_path: Path
    ) -> None:
        import numpy as np
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval

        outcome = cli(
            *("run", "--task", "coco_fewshot", "--data", str(tinycoco), "--model", "mock/noisy"),
            *("--categories", self.CATEGORIES, "--split", "train", "--json"),
        )
        run = json.loads(outcome.out)
        truth = COCO(str(tinycoco / "annotations" / "instances_train2017.json"))
        ids = {category["name"]: category["id"] for category in truth.loadCats(truth.getCatIds())}
        results = []
        for line in (Path(run["folder"]) / "samples.jsonl").read_text().splitlines():
            record = json.loads(line)
            image_id, _, category = record["id"].partition(":")
            boxes, scores = record["prediction"].get("boxes", ()), record["prediction"].get("confidences", ())
            results += [
                {"image_id": int(image_id), "category_id": ids[category], "bbox": [a, b, c - a, d - b], "score": score}
                for (a, b, c, d), score in zip(boxes, scores, strict=True)
            ]
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.params.catIds = sorted(ids[name] for name in self.CATEGORIES.split(","))
        evaluation.evaluate()
        evaluation.accumulate()
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        assert run["report"]["figures"]["ap"]["value"] == pytest.approx(precision[precision > -1].mean(), abs=1e-6)
        assert 0.05 < run["report"]["figures"]["ap"]["value"] < 0.95
        for index, category_id in enumerate(evaluation.params.catIds):
            name = truth.loadCats([category_id])[0]["name"]
            own = precision[:, :, index]
            expected = np.mean(own[own > -1])
            assert run["report"]["by_category"][name]["ap"]["value"] == pytest.approx(expected, abs=1e-6)

    def test_the_original_layout_is_read_too(self, cli: Any, tinycoco: Path, tmp_path: Path) -> None:
        root = tmp_path / "coco"
        root.mkdir()
        (root / "annotations").symlink_to(tinycoco / "annotations")
        (root / "val2017").symlink_to(tinycoco / "images" / "val2017")
        run = json.loads(
            cli("-t", "coco_fewshot", "--data", str(root), "-m", "mock/gold", "--categories", "person", "--json").out
        )
        assert run["report"]["figures"]["ap"]["value"] == pytest.approx(1.0, abs=1e-12)

    def test_the_environment_variable_is_recorded(
        self, cli: Any, tinycoco: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("VRFT_BENCH_DATA", str(tinycoco))
        run = json.loads(cli("-t", "coco_fewshot", "-m", "mock/gold", "--categories", "person", "--json").out)
        assert run["data"] == "real"
        assert json.loads((Path(run["folder"]) / "run.json").read_text())["config"]["data"] == str(tinycoco)
