"""What comes after a run: its mistakes explained, its masks judged, its rewards chosen."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.app import app
from vrft_bench.harness.diagnose import diagnose_run

pytestmark = pytest.mark.usefixtures("sample_cache")


def run_of(tmp_path: Path, *flags: str) -> dict[str, object]:
    outcome = CliRunner().invoke(app, ["run", "-o", str(tmp_path), "-L", "60", "--json", *flags])
    assert outcome.exit_code == 0, outcome.output
    value: dict[str, object] = json.loads(outcome.stdout.splitlines()[-1])
    return value


def test_a_perfect_run_has_no_mistake_and_a_noisy_one_has(tmp_path: Path) -> None:
    gold = diagnose_run(str(run_of(tmp_path, "-t", "lvis_fewshot", "-m", "mock/gold")["folder"]))
    assert gold.figures["ap_self_reported"].value == 1.0
    assert gold.figures["count_error"].value == 0.0
    folder = Path(str(run_of(tmp_path, "-t", "lvis_fewshot", "-m", "mock/noisy")["folder"]))
    noisy = diagnose_run(folder)
    assert (noisy.figures["olrp"].value or 0) > (gold.figures["olrp"].value or 0) + 0.1
    stored = json.loads((folder / "diagnosis.json").read_text())["report"]
    assert stored == json.loads(json.dumps(noisy.to_json()))


def test_the_ap_that_is_explained_is_the_runs(tmp_path: Path) -> None:
    run = run_of(tmp_path, "-t", "coco_fewshot", "-m", "mock/noisy")
    report = diagnose_run(str(run["folder"]))
    assert report.figures["ap_self_reported"].value == pytest.approx(
        run["report"]["figures"]["ap"]["value"],  # type: ignore[index]
        abs=1e-12,
    )


@pytest.mark.parametrize("protocol", ["strict", "paper"])
def test_boxes_whose_tokens_are_as_likely_as_the_stated_confidence_have_the_same_ap(
    tmp_path: Path, protocol: str
) -> None:
    if protocol == "paper":
        pytest.importorskip("math_verify")
    folder = Path(str(run_of(tmp_path, "-t", "lvis_fewshot", "-m", "mock/noisy", "--protocol", protocol)["folder"]))
    assert "ap_logprob" not in diagnose_run(folder).figures
    samples = folder / "samples.jsonl"
    records = [json.loads(line) for line in samples.read_text().splitlines()]
    for record in records:
        likely = [0.0] * len(record["text"])
        for element in re.finditer(r"\[(\d[\d., ]*)\], 'Confidence': ([\d.]+)", record["text"]):
            own = range(*element.span(1))
            likely[own.start : own.stop] = [math.log(max(float(element[2]), 1e-9))] * len(own)
        record["token_logprobs"] = list(enumerate(likely, 1))
    samples.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    figures = diagnose_run(folder).figures
    assert figures["ap_logprob"].value == pytest.approx(figures["ap_self_reported"].value, abs=1e-12)
    assert figures["ap_constant"].value != pytest.approx(figures["ap_self_reported"].value, abs=1e-6)
    spoke = next(record for record in records if "[{" in record["text"])
    del spoke["token_logprobs"]
    samples.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    report = diagnose_run(folder)
    assert 0.0 < (report.figures["ap_logprob"].value or 0.0) != figures["ap_logprob"].value
    assert any("is not known: they come last in AP logprob" in note for note in report.notes)


def test_a_model_ranks_its_boxes_by_the_log_probabilities_that_its_run_keeps(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = run_of(tmp_path, "-t", "lvis_fewshot", "-m", "hf/tiny", "-M", "logprobs=true")
    figures = diagnose_run(str(run["folder"])).figures
    assert 0.0 < (figures["ap_logprob"].value or 0.0) <= (figures["ap_boxes_right"].value or 0.0)
    replayed = run_of(tmp_path, "-t", "lvis_fewshot", "-m", f"mock/replay:{run['folder']}")
    assert diagnose_run(str(replayed["folder"])).figures["ap_logprob"] == figures["ap_logprob"]
    samples = Path(str(run["folder"])) / "samples.jsonl"
    records = [json.loads(line) for line in samples.read_text().splitlines()]
    samples.write_text("".join(f"{json.dumps(record | {'token_logprobs': []})}\n" for record in records))
    report = diagnose_run(str(run["folder"]))
    assert "ap_logprob" not in report.figures
    assert any("is not known: there is no AP logprob" in note for note in report.notes)


def test_a_grounding_run_is_judged_by_masks_and_has_no_ap_to_explain(tmp_path: Path) -> None:
    folder = str(run_of(tmp_path, "-t", "lisa_grounding", "-m", "mock/gold")["folder"])
    with pytest.raises(UserError, match="no AP to explain"):
        diagnose_run(folder)
    outcome = CliRunner().invoke(app, ["diagnose", folder, "--segmenter", "box"])
    assert outcome.exit_code == 0, outcome.output
    assert "giou ceiling" in outcome.output
    assert outcome.output.splitlines()[-1].endswith("masks-box.json")


def test_a_run_with_chosen_rewards_is_another_run_and_is_scored_by_them_again(tmp_path: Path) -> None:
    own = run_of(tmp_path, "-t", "lvis_fewshot", "-m", "mock/noisy")
    chosen = run_of(tmp_path, "-t", "lvis_fewshot", "-m", "mock/noisy", "--reward", "soft_iou=1,format=0.5")
    assert own["folder"] != chosen["folder"]
    records = [json.loads(line) for line in (Path(str(chosen["folder"])) / "samples.jsonl").read_text().splitlines()]
    for record in records:
        score = record["score"]
        assert set(score) == {"soft_iou", "format", "total"}
        assert score["total"] == pytest.approx(score["soft_iou"] + 0.5 * score["format"])
    again = CliRunner().invoke(app, ["score", str(chosen["folder"]), "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout.splitlines()[-1])["answers"] == chosen["answers"]


def test_rewards_in_a_config_file_are_those_of_the_flag(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("task: [lvis_fewshot]\nmodel: mock/noisy\nreward: iou=1,format=0.5\n")
    by_file = run_of(tmp_path / "file", "-c", str(tmp_path / "run.yaml"))
    by_flag = run_of(tmp_path / "flag", "-t", "lvis_fewshot", "-m", "mock/noisy", "--reward", "iou=1,format=0.5")
    assert by_file["answers"] == by_flag["answers"]
    names = [Path(str(run["folder"])).name.rsplit("-", 1)[-1] for run in (by_file, by_flag)]
    assert names[0] == names[1], "the fingerprint"


def test_an_unknown_reward_names_the_nearest(tmp_path: Path) -> None:
    outcome = CliRunner().invoke(app, ["run", "-o", str(tmp_path), "-t", "lvis_fewshot", "--reward", "iuo"])
    assert isinstance(outcome.exception, UserError)
    assert "did you mean 'iou'" in str(outcome.exception)
    assert not any(tmp_path.iterdir())


def test_the_papers_rewards_are_chosen_under_the_papers_protocol(tmp_path: Path) -> None:
    pytest.importorskip("math_verify", reason="needs math-verify (the extra [paper])")
    run = run_of(
        tmp_path, "-t", "coco_fewshot", "-m", "mock/gold", "--protocol", "paper", "--reward", "iou_v1", "-L", "5"
    )
    assert set(run["answers"]["components"]) == {"iou_v1"}  # type: ignore[index]
