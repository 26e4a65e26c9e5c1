from __future__ import annotations

import json
from pathlib import Path

import pytest

from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.provenance import trainings_of
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.store import read_manifest
from vrft_bench.tasks import get_task


def training(folder: Path, trainer: str, model: str, **config: object) -> Path:
    """What a training leaves: its record, and the folder of its result, which is returned."""
    (folder / "final").mkdir(parents=True)
    record = {"trainer": trainer, "task": "coco_fewshot", "model": model, "fingerprint": "f" * 64, "config": config}
    (folder / "train.json").write_text(json.dumps(record))
    return folder / "final"


def test_the_trainings_behind_a_checkpoint_are_told_from_the_first_to_the_last(tmp_path: Path) -> None:
    first = training(tmp_path / "one", "sft", "Qwen/Qwen2-VL-2B-Instruct", shots=4)
    second = training(tmp_path / "two", "grpo", str(first), split="virft")
    told = [(item.trainer, item.base, item.shots, item.split) for item in trainings_of(f"hf/{second}")]
    assert told == [("sft", "Qwen/Qwen2-VL-2B-Instruct", 4, None), ("grpo", "final", None, "virft")]
    assert trainings_of(str(tmp_path / "two")) == trainings_of(str(second))


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"trainer": "sft"}', '{"config": [], "model": 1}', "[" * 5000])
def test_a_record_that_cannot_be_read_tells_nothing(tmp_path: Path, damage: str) -> None:
    folder = training(tmp_path / "one", "sft", "tiny")
    (tmp_path / "one" / "train.json").write_text(damage)
    assert trainings_of(f"hf/{folder}") == []


def test_a_training_whose_base_is_itself_ends(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    training(folder, "sft", str(folder))
    assert len(trainings_of(str(folder))) == 8


def test_a_model_of_which_nothing_is_known_has_none() -> None:
    assert [trainings_of(model) for model in ("mock/gold", "hf/Qwen/Qwen2-VL-2B-Instruct", "hf/tiny")] == [[], [], []]


def test_a_run_keeps_them(tmp_path: Path, sample_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    training(tmp_path / "gold", "grpo", "tiny", shots=1)
    monkeypatch.setattr("vrft_bench.harness.run.trainings_of", lambda model: trainings_of(str(tmp_path / "gold")))
    config = RunConfig(model="mock/gold", limit=2, output_dir=tmp_path / "runs")
    result = evaluate(get_task("lvis_fewshot"), load_backend("mock/gold"), config)
    (kept,) = read_manifest(result.folder).trainings
    assert (kept.trainer, kept.shots, kept.base) == ("grpo", 1, "tiny")
