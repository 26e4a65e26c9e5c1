"""Ctrl-C and SIGTERM during a training: the step at hand is finished and saved, then the training ends.

Where several processes train, SIGINT asks for that; each notes it, and all of them end after the same step. SIGTERM
ends them at once: it is what torchrun sends the others when one of them has died, and no step could be finished then.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from types import FrameType
from typing import Any

from vrft_bench.trainers.processes import any_says, is_first, process_count


@contextlib.contextmanager
def handling(signals: Iterable[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """``handler`` takes these signals meanwhile. Only in the main thread."""
    before = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


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
        signals = (signal.SIGINT, signal.SIGTERM) if process_count() == 1 else (signal.SIGINT,)
        with handling(signals, self._note):
            yield

    def _note(self, number: int, _: FrameType | None) -> None:
        alone = process_count() == 1
        if self.asked and alone and number == signal.SIGINT:
            raise KeyboardInterrupt
        first, self.asked = not self.asked, True
        if first and is_first():
            said = f"ending after this step, with a checkpoint{'; Ctrl-C again ends it at once' if alone else ''}\n"
            with contextlib.suppress(OSError):
                os.write(2, said.encode())  # Python's own streams must not write here: one may be in the middle of it


def end_when_asked(interrupts: Interrupts, unit: int) -> Any:
    """The callback of transformers' Trainer that heeds them, after a step that is a multiple of ``unit``."""
    from transformers import TrainerCallback

    class EndWhenAsked(TrainerCallback):  # type: ignore[misc]
        """Saves a checkpoint and ends the training."""

        def on_step_end(self, _: Any, state: Any, control: Any, **__: Any) -> None:
            if state.global_step % unit == 0 and any_says(interrupts.asked):
                control.should_save = control.should_training_stop = True

    return EndWhenAsked()
