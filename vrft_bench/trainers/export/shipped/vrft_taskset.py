"""This export as a taskset of verifiers: its questions with their images, and its score."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import verifiers.v1 as vf  # type: ignore[import-not-found]

from vrft_bench.trainers.export.scoring import exported_task

FOLDER = Path(__file__).parent
TASK = exported_task(FOLDER)


class VrftData(vf.TaskData):  # type: ignore[misc]
    """A question; ``ground_truth`` is its portable truth."""

    ground_truth: str


class VrftTask(vf.Task[VrftData]):  # type: ignore[misc]
    """A question that is judged by the task's own score."""

    @vf.reward(weight=1.0)  # type: ignore[untyped-decorator]
    async def total(self, trace: vf.Trace) -> float:
        """What is trained on."""
        return self._scores(trace)["total"]

    @vf.metric  # type: ignore[untyped-decorator]
    async def components(self, trace: vf.Trace) -> dict[str, float]:
        """What the total is made of."""
        scores = self._scores(trace)
        return {name: value for name, value in scores.items() if name != "total"}

    def _scores(self, trace: vf.Trace) -> dict[str, float]:
        said = trace.assistant_messages
        return TASK.score((said[-1].content or "") if said else "", self.data.ground_truth)


class VrftTaskset(vf.Taskset[VrftTask]):  # type: ignore[misc]
    """The questions of ``data/train.jsonl``, in order."""

    def load(self) -> Iterator[VrftTask]:
        """A task per line, with its image as a data URL."""
        with (FOLDER / "data" / "train.jsonl").open(encoding="utf-8") as lines:
            for row in map(json.loads, lines):
                yield VrftTask(
                    VrftData(id=row["sample_id"], prompt=_prompt(row), ground_truth=row["ground_truth"]),
                    self.config.task,
                )


def _prompt(row: dict[str, object]) -> list[dict[str, object]]:
    """The messages with each ``<image>`` replaced by the row's image."""
    images = iter(row["images"])  # type: ignore[call-overload]
    messages = []
    for message in row["messages"]:  # type: ignore[attr-defined]
        parts: list[dict[str, object]] = []
        for index, text in enumerate(message["content"].split("<image>")):
            if index:
                encoded = base64.b64encode((FOLDER / next(images)).read_bytes()).decode()
                parts.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}})
            if text:
                parts.append({"type": "text", "text": text})
        messages.append({"role": message["role"], "content": parts})
    return messages


__all__ = ["VrftTaskset"]
