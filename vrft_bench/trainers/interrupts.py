"""Ctrl-C and SIGTERM during a training: the step at hand is finished and saved, then the training ends.

Where several processes train, each notes the signal, and all of them end after the same step.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from vrft_bench.trainers.processes import any_says, process_count
from vrft_bench.trainers.progress import say

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """Whether somebody asked to end. In a single process a second Ctrl-C ends at once, without saving."""

    def __init__(self) -> None:
        self.asked = False

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Take note of the signals. Only the main thread may; elsewhere they do what they always do."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._note) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked and process_count() == 1 and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked:
            again = "; Ctrl-C again ends it at once" if process_count() == 1 else ""
            say(f"ending after this step, with a checkpoint{again}")
        self.asked = True


def end_when_asked(interrupts: Interrupts, unit: int) -> Any:
    """The callback of transformers' Trainer that heeds them, after a step that is a multiple of ``unit``."""
    from transformers import TrainerCallback

    class EndWhenAsked(TrainerCallback):  # type: ignore[misc]
        """Saves a checkpoint and ends the training."""

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if state.global_step % unit == 0 and any_says(interrupts.asked):
                control.should_save = control.should_training_stop = True

    return EndWhenAsked()
