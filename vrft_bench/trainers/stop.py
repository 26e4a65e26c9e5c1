"""A file that asks a training to stop: ``STOP`` in its folder, with the reason in it.

Anyone may write it; ``vrft-bench watch --stop-on-hacking`` does. A training of our own saves a checkpoint and ends
after the step at hand; with another engine, let the job script look for the file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vrft_bench.errors import PartialRunError, UserError
from vrft_bench.trainers.processes import any_says

STOP = "STOP"


def request_stop(folder: Path, reason: str) -> None:
    """Ask the training in ``folder`` to stop."""
    (folder / STOP).write_text(f"{reason}\n", encoding="utf-8")


def refuse_stopped(folder: Path) -> None:
    """Raise :class:`UserError` where the training in ``folder`` was asked to stop and nobody took that back."""
    if (folder / STOP).is_file():
        raise UserError(
            f"{folder} was asked to stop: {_reason(folder)}", fix=f"remove {folder / STOP} to train on all the same"
        )


def raise_if_stopped(folder: Path, step: int) -> None:
    """Raise :class:`PartialRunError` where a training ended at ``step`` because it was asked to."""
    if (folder / STOP).is_file():
        raise PartialRunError(
            f"stopped at step {step} by {folder / STOP}: {_reason(folder)}",
            fix=f"its checkpoints are kept; remove {STOP} and repeat the command to train on all the same",
        )


def stop_on_request(folder: Path, unit: int) -> Any:
    """The callback of transformers' Trainer that heeds the file, after a step that is a multiple of ``unit``."""
    from transformers import TrainerCallback

    class StopOnRequest(TrainerCallback):  # type: ignore[misc]
        """Saves a checkpoint and ends the training. Whichever process sees the file first, all end after one step."""

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if state.global_step % unit == 0 and any_says((folder / STOP).is_file()):
                control.should_save = control.should_training_stop = True

    return StopOnRequest()


def _reason(folder: Path) -> str:
    return (folder / STOP).read_text(encoding="utf-8").strip() or "no reason is given"
