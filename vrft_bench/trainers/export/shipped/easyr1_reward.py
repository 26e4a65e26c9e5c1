"""The reward of this export, as EasyR1 calls it: a batch at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vrft_bench.trainers.export.scoring import exported_task

REWARD_NAME = "vrft_bench"
REWARD_TYPE = "batch"
TASK = exported_task(Path(__file__).parent)


def compute_score(reward_inputs: list[dict[str, Any]]) -> list[dict[str, float]]:
    """``overall`` is the total that is trained on; the components beside it are logged."""
    found = [TASK.score(item["response"], item["ground_truth"]) for item in reward_inputs]
    return [{"overall": scores.pop("total"), **scores} for scores in found]
