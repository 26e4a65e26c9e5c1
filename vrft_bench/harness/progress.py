"""What a user sees while a run works: a bar on a terminal, a line every few seconds elsewhere, nothing in tests.

Everything goes to stderr, so that stdout holds results only.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichBar


class Progress(Protocol):
    """Told of every finished completion; decides by itself how often to show it."""

    def begin(self, label: str, total: int, done: int = 0, *, scored: bool = True) -> None:
        """``done`` of ``total`` completions are there from an earlier session; they do not count in the rate.

        Not ``scored``: what is worked on is worth no reward, as the drawing of an image.
        """

    def advance(self, reward: float | None) -> None:
        """One more is finished, worth ``reward``; ``None``: it failed."""

    def note(self, text: str) -> None:
        """A line that stays: a resumed run, a loud warning."""

    def end(self) -> None:
        """The run is over, however it ended. May be called twice."""


class SilentProgress:
    """Shows nothing."""

    def begin(self, label: str, total: int, done: int = 0, *, scored: bool = True) -> None: ...

    def advance(self, reward: float | None) -> None: ...

    def note(self, text: str) -> None: ...

    def end(self) -> None: ...


@dataclass(slots=True)
class _Count:
    """What both visible kinds count."""

    total: int
    done: int
    scored: bool = True
    finished: int = 0
    failed: int = 0
    reward: float = 0.0
    started: float = 0.0
    shown: float = 0.0

    def add(self, reward: float | None) -> None:
        self.finished += 1
        if reward is None:
            self.failed += 1
        else:
            self.reward += reward

    @property
    def rate(self) -> float:
        return self.finished / max(time.monotonic() - self.started, 1e-9)

    @property
    def mean_reward(self) -> str:
        scored = self.finished - self.failed
        return f"{self.reward / scored:.3f}" if scored else "-"

    @property
    def outcome(self) -> str:
        return f"reward {self.mean_reward}  failed {self.failed}" if self.scored else f"failed {self.failed}"


class PlainProgress:
    """A line every ``interval`` seconds, for logs and pipes."""

    def __init__(self, stream: TextIO | None = None, interval: float = 5.0) -> None:
        self._stream = stream or sys.stderr
        self._interval = interval
        self._label = ""
        self._count: _Count | None = None

    def begin(self, label: str, total: int, done: int = 0, *, scored: bool = True) -> None:
        now = time.monotonic()
        self._label, self._count = label, _Count(total, done, scored, started=now, shown=now)

    def advance(self, reward: float | None) -> None:
        if (count := self._count) is None:
            return
        count.add(reward)
        now = time.monotonic()
        if now - count.shown >= self._interval:
            count.shown = now
            self._show(count)

    def note(self, text: str) -> None:
        self._stream.write(f"{text}\n")
        self._stream.flush()

    def end(self) -> None:
        if self._count is not None and self._count.finished:
            self._show(self._count)
        self._count = None

    def _show(self, count: _Count) -> None:
        done = count.done + count.finished
        left = round((count.total - done) / count.rate)
        self.note(
            f"{self._label}: {done:,}/{count.total:,}  {count.rate:,.1f}/s  {left // 60}:{left % 60:02d} left  "
            f"{count.outcome}"
        )


class RichProgress:
    """A bar with rate, time left, running mean reward and failures."""

    _REFRESH = 0.1

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bar: RichBar | None = None
        self._task: Any = None
        self._count = _Count(0, 0)

    def begin(self, label: str, total: int, done: int = 0, *, scored: bool = True) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self.end()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
        )
        self._count = _Count(total, done, scored, started=time.monotonic())
        self._task = self._bar.add_task(label, total=total, completed=done, status="")
        self._bar.start()

    def advance(self, reward: float | None) -> None:
        self._count.add(reward)
        now = time.monotonic()
        if now - self._count.shown >= self._REFRESH:  # rich's own update costs more than scoring a sample
            self._count.shown = now
            self._show()

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    def end(self) -> None:
        if self._bar is not None:
            self._show()
            self._bar.stop()
            self._bar = None

    def _show(self) -> None:
        if self._bar is None:
            return
        count = self._count
        done = count.done + count.finished
        left = round((count.total - done) / count.rate) if count.finished else 0
        status = f"{count.rate:,.1f}/s  {left // 60}:{left % 60:02d} left  {count.outcome}"
        self._bar.update(self._task, completed=done, status=status)


def make_progress(*, plain: bool = False, stream: TextIO | None = None) -> Progress:
    """The bar on a terminal; plain lines with ``plain``, in a pipe or in a log."""
    target = stream or sys.stderr
    return RichProgress() if not plain and target is sys.stderr and target.isatty() else PlainProgress(target)
