"""``vrft-bench score --predictions`` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from results_files import random_files

from vrft_bench.harness.score_predictions import score_predictions


def test_the_command_prints_the_report(cli: Any, tmp_path: Path) -> None:
    annotations, predictions = random_files(tmp_path, 0, lvis=True)
    files = ("--predictions", str(predictions), "--annotations", str(annotations))
    wanted = score_predictions(predictions, annotations, protocol="paper", categories=["c2", "c1"])
    options = (*files, "--protocol", "paper", "--categories", "c2, c1")
    code, out, _ = cli("score", *options, "--json")
    assert (code, json.loads(out)) == (0, json.loads(json.dumps(wanted.to_json())))
    assert json.loads(out)["rules"] == "lvis"
    code, out, _ = cli("score", *options, "--plain")
    lines = [line.split() for line in out.splitlines()]
    assert ["ap", "areas", "(headline)", f"{wanted.report.figures['ap_areas'].value:.3f}"] in lines
    assert ["best", "f1", f"{wanted.report.figures['best_f1'].value:.3f}"] in lines
    assert f"the best ones those of score {wanted.best_score!r} and more" in out
    row = wanted.report.by_category["c2"]
    assert ["c2", str(row["truths"]), str(row["detections"]), f"{row['ap'].value:.3f}"] in [line[:4] for line in lines]


@pytest.mark.parametrize(
    ("argv", "code", "says"),
    [
        ((), 2, "neither is given"),
        (("run", "--predictions", "p.json"), 2, "both are given"),
        (("--predictions", "p.json"), 2, "needs the truth"),
        (("run", "--rules", "coco"), 2, "--rules goes with --predictions"),
        (("run", "--score-threshold", "0"), 2, "--score-threshold goes with --predictions"),
        (("--predictions", "p.json", "--annotations", "none.json"), 3, "there is no file none.json"),
    ],
)
def test_a_command_that_is_not_whole_is_one_message(argv: tuple[str, ...], code: int, says: str, cli: Any) -> None:
    outcome = cli("score", *argv)
    assert outcome.code == code
    assert says in outcome.err
