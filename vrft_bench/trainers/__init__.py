"""Trainers: what improves a model on a task. No training algorithm is written here; each module connects one engine.

The reward of a training is the task's own score, and its data are the task's own questions and truths.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vrft_bench.registry import TRAINERS

if TYPE_CHECKING:
    from vrft_bench.trainers.base import Trainer

__all__ = ["load_trainer"]


def load_trainer(name: str) -> Trainer:
    """The trainer called ``name``. Raises :class:`~vrft_bench.errors.UserError` for one that is not registered."""
    trainer: Trainer = TRAINERS.get(name)()
    return trainer
