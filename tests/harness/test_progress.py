from __future__ import annotations

import io
import re
import sys

import pytest

from vrft_bench.harness.progress import PlainProgress, RichProgress, make_progress


def test_plain_lines_show_rate_time_left_reward_and_failures() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, interval=0.0)
    progress.begin("coco_fewshot", 100, 40)
    for reward in (1.0, 0.5, None):
        progress.advance(reward)
    progress.end()
    lines = stream.getvalue().splitlines()
    assert re.fullmatch(r"coco_fewshot: 43/100  [\d,.]+/s  0:00 left  reward 0\.750  failed 1", lines[2])
    assert len(lines) == 4


def test_plain_lines_are_seconds_apart() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, interval=60.0)
    progress.begin("t", 1000)
    for _ in range(1000):
        progress.advance(1.0)
    progress.end()
    progress.end()
    assert len(stream.getvalue().splitlines()) == 1


def test_a_pipe_gets_plain_lines_and_a_terminal_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert isinstance(make_progress(), PlainProgress)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert isinstance(make_progress(), RichProgress)
    assert isinstance(make_progress(plain=True), PlainProgress)


def test_the_bar_goes_to_stderr_and_shows_what_the_lines_show(capsys: pytest.CaptureFixture[str]) -> None:
    progress = RichProgress()
    progress.begin("lisa_grounding", 4, 1)
    progress.note("a [note] stays")
    for reward in (1.0, 0.0, None):
        progress.advance(reward)
    progress.end()
    progress.end()
    out, said = capsys.readouterr()
    assert out == ""
    assert "a [note] stays" in said
    assert "lisa_grounding" in said
    assert "4/4" in said
    assert "reward 0.500" in said
    assert "failed 1" in said
