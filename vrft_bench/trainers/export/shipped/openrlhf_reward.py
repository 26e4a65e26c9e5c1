"""The reward of this export, as OpenRLHF calls it: lists of one, in threads.

OpenRLHF logs and then forgets whatever is raised here; what can be wrong for every sample is therefore raised when this
file is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vrft_bench.trainers.export.scoring import completion_of, exported_task

TASK = exported_task(Path(__file__).parent)


def reward_func(queries: list[str], prompts: list[str], labels: list[str]) -> dict[str, Any]:
    """``rewards`` is the total that is trained on, ``scores`` the same for filters, ``extra_logs`` the components."""
    ((query, prompt, label),) = zip(queries, prompts, labels, strict=True)
    scores = TASK.score(completion_of(query, prompt), label)
    total = scores.pop("total")
    return {"rewards": total, "scores": total, "extra_logs": scores}
