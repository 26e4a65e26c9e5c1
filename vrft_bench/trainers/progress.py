"""What a training says while it runs: a line per logged step, on stderr, by the first process alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vrft_bench.harness.cli.printing import stderr
from vrft_bench.tasks.base import UNPARSABLE
from vrft_bench.trainers.processes import is_first


def say(text: str) -> None:
    """Print one line for the person who trains."""
    if is_first():
        stderr().print(text, markup=False, highlight=False, soft_wrap=True)


def step_line(step: int, steps: int, logs: Mapping[str, Any]) -> str:
    """``step 12/200  loss 0.0384  reward 1.869 (sd 1.220)  unparsable 6%  24 tokens  lr 4.2e-05``."""
    parts = [f"step {step}/{steps}", f"loss {float(logs['loss']):.4f}"]
    if "reward" in logs:
        parts.append(f"reward {float(logs['reward']):.3f} (sd {float(logs['reward_std']):.3f})")
    unread = [float(logs[name]) for status in UNPARSABLE if (name := f"status/{status.value}") in logs]
    if unread:
        parts.append(f"unparsable {sum(unread):.0%}")
    if (length := logs.get("completions/mean_length")) is not None:
        parts.append(f"{float(length):.0f} tokens")
    parts.append(f"lr {float(logs['learning_rate']):.2g}")
    return "  ".join(parts)
