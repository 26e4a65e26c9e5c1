"""The reward of this export, as verl calls it: a sample at a time, in threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vrft_bench.trainers.export.scoring import exported_task

TASK = exported_task(Path(__file__).parent)


def compute_score(
    data_source: str,  # noqa: ARG001 - given by verl
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,  # noqa: ARG001 - given by verl
    **further: Any,  # noqa: ARG001 - given by verl where a reward model runs
) -> dict[str, float]:
    """``score`` is the total that is trained on; the components beside it are shown by verl's validation."""
    scores = TASK.score(solution_str, ground_truth)
    return {"score": scores.pop("total"), **scores}
