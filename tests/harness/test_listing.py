from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.listing import ListedRun, list_runs
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.store import RunStore

MakeConfig = Callable[..., RunConfig]


def stopped(questions: Any, answers: Any, config: RunConfig) -> Path:
    """A run whose backend died after 5 answers and one failure."""
    replies = {("1:cat", 0): {"error": "busy"}, ("3:cat", 0): BackendError("gone")}
    with pytest.raises(BackendError):
        evaluate(questions, answers(replies), config)
    (folder,) = config.output_dir.glob("*/*/*")
    return folder


def only(output_dir: Path) -> ListedRun:
    (run,) = list_runs(output_dir)
    return run


def test_a_finished_run_is_listed_with_its_report(questions: Any, answers: Any, config: MakeConfig) -> None:
    result = evaluate(questions, answers(), config())
    run = only(config().output_dir)
    assert (run.folder, run.status, run.data) == (result.folder, "complete", "real")
    assert (run.done, run.completions, run.report, run.reason) == (60, 60, result.report, "")


def test_an_unfinished_run_is_listed_with_what_it_has_answered(
    questions: Any, answers: Any, config: MakeConfig
) -> None:
    folder = stopped(questions, answers, config())
    run = only(config().output_dir)
    assert (run.status, run.done, run.completions, run.report) == ("failed", 5, 60, None)
    with RunStore(folder) as store:
        store.begin_session()
        assert only(config().output_dir).status == "running"
    assert only(config().output_dir).status == "killed", "its process is gone and did not say how it ended"
    assert only(config().output_dir).done == 5


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: (run / "run.json").write_text("{"), "run.json is damaged or of another version: invalid JSON"),
        (lambda run: (run / "run.json").unlink(), "is not a run: it has no run.json"),
        (lambda run: (run / "run.json").write_bytes(b"\xff"), "run.json is damaged"),
        (lambda run: (run / "metrics.json").write_text("[]"), "metrics.json is missing or damaged"),
        (lambda run: (run / "metrics.json").unlink(), "metrics.json is missing or damaged: No such file"),
        (lambda run: (run / "samples.jsonl").unlink(), "has lost its samples.jsonl"),
        (lambda run: [item.unlink() for item in run.iterdir()], "is not a run: it has no run.json"),
    ],
)
def test_a_damaged_run_is_listed_with_its_reason_and_hides_no_other(
    questions: Any, answers: Any, config: MakeConfig, damage: Callable[[Path], object], said: str
) -> None:
    whole = evaluate(questions, answers(), config()).folder
    broken = shutil.copytree(whole, whole.with_name(f"20000101T000000Z-{whole.name[-8:]}"))
    damage(broken)
    first, second = list_runs(config().output_dir)
    assert (first.folder, first.status, first.report) == (broken, "damaged", None)
    assert said in first.reason
    assert (second.folder, second.status) == (whole, "complete")


def test_a_damaged_record_of_an_unfinished_run_is_named(questions: Any, answers: Any, config: MakeConfig) -> None:
    folder = stopped(questions, answers, config())
    with (folder / "samples.jsonl").open("a") as file:
        file.write("{}\n")
    run = only(config().output_dir)
    assert (run.status, run.data) == ("damaged", "real")
    assert "samples.jsonl, line 7: damaged" in run.reason


def test_other_folders_are_no_runs(tmp_path: Path) -> None:
    (tmp_path / "some" / "other" / "folder").mkdir(parents=True)
    assert list(list_runs(tmp_path)) == []
    assert list(list_runs(tmp_path / "absent")) == []


def test_listing_runs_imports_nothing_heavy(questions: Any, answers: Any, config: MakeConfig) -> None:
    evaluate(questions, answers(), config())
    code = (
        "import sys\nfrom pathlib import Path\nfrom vrft_bench.harness.cli.ls import _runs\n"
        "assert len(_runs(Path(sys.argv[1]))) == 1\n"
        "assert not {'numpy', 'torch', 'PIL', 'pycocotools'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(config().output_dir)], check=True)
