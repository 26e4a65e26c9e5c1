"""``--shots``: a run over a few-shot split that was drawn before, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sample_cache: Path) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_run_asks_the_samples_of_the_split_that_was_drawn(cli: Any) -> None:
    drawn = cli("data", "split", "classification", "--shots", "1,2", "--seeds", "0,1")
    assert drawn.code == 0, drawn.err
    runs = {}
    for seed in ("0", "1"):
        outcome = cli("-t", "classification", "-m", "mock/gold", "--shots", "2", "--split-seed", seed, "--json")
        assert outcome.code == 0, outcome.err
        runs[seed] = json.loads(outcome.out)
        records = (Path(runs[seed]["folder"]) / "samples.jsonl").read_text().splitlines()
        assert len(records) == 16  # two of each of eight classes
    assert runs["0"]["folder"] != runs["1"]["folder"]
    again = cli("score", runs["0"]["folder"], "--json")
    assert json.loads(again.out)["report"] == runs["0"]["report"]


def test_a_split_that_was_not_drawn_names_the_command_that_draws_it(cli: Any) -> None:
    outcome = cli("-t", "classification", "-m", "mock/gold", "--shots", "4")
    assert outcome.code == 3
    assert "data split classification --shots 4 --seeds 0" in outcome.err
