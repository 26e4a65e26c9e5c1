"""How a run was answered: statuses, failures, mean rewards, boxes out of range. Corpus metrics are the task's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vrft_bench.tasks.base import Prediction, Score, Status

LOUD_SHARE = 0.01
"""More boxes than this share outside the declared range means that the profile is probably wrong."""
_DIGITS = 10
"""Means are rounded so that they do not depend on the order in which completions came."""


@dataclass(frozen=True, slots=True)
class AnswerStats:
    """What :class:`AnswerTally` found.

    ``status`` counts completions by how they were read; ``failures`` are those without any text. ``reward`` is the mean
    of the weighted total and ``components`` of each reward, over all completions, failed ones included. ``boxes`` were
    readable numbers; ``boxes_out_of_range`` of them left the declared range, ``boxes_without_confidence`` of those that
    were kept stated no confidence.
    """

    completions: int
    failures: int
    status: Mapping[str, int]
    reward: float | None
    components: Mapping[str, float]
    boxes: int = 0
    boxes_out_of_range: int = 0
    boxes_without_confidence: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    notes: tuple[str, ...] = ()

    def share(self, *statuses: Status) -> float:
        """The share of all completions that were read with one of ``statuses``."""
        return sum(self.status.get(status.value, 0) for status in statuses) / max(self.completions, 1)

    @property
    def out_of_range_share(self) -> float:
        return self.boxes_out_of_range / max(self.boxes, 1)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "out_of_range_share": self.out_of_range_share}


@dataclass(slots=True)
class AnswerTally:
    """Counts completions one at a time and keeps none of them."""

    completions: int = 0
    failures: int = 0
    _status: Counter[Status] = field(default_factory=Counter)
    _total: float = 0.0
    _components: dict[str, float] = field(default_factory=dict)
    _boxes: int = 0
    _out_of_range: int = 0
    _without_confidence: int = 0
    _prompt_tokens: int = 0
    _completion_tokens: int = 0

    def add(self, prediction: Prediction, score: Score, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a completion that came back."""
        self._status[prediction.status] += 1
        self._boxes += prediction.boxes_read
        self._out_of_range += prediction.boxes_out_of_range
        for detection in prediction.detections:
            if detection.confidence is None:
                self._without_confidence += 1
        self._prompt_tokens += prompt_tokens
        self._completion_tokens += completion_tokens
        self._reward(score)

    def fail(self, score: Score) -> None:
        """Count a failed one, which is worth what no prediction is worth."""
        self.failures += 1
        self._reward(score)

    def stats(self, *notes: str) -> AnswerStats:
        """The figures so far; ``notes`` come before its own."""
        count = max(self.completions, 1)
        said = list(notes)
        share = self._out_of_range / max(self._boxes, 1)
        if share > LOUD_SHARE:
            said.append(
                f"{share:.1%} of the boxes ({self._out_of_range} of {self._boxes}) left the declared coordinate range: "
                "the profile is probably not the one that this model speaks (see --profile)"
            )
        if self.failures:
            said.append(f"{self.failures} of {self.completions} completions failed and count as no prediction")
        return AnswerStats(
            completions=self.completions,
            failures=self.failures,
            status={status.value: self._status[status] for status in Status if self._status[status]},
            reward=round(self._total / count, _DIGITS) if self.completions else None,
            components={name: round(value / count, _DIGITS) for name, value in self._components.items()},
            boxes=self._boxes,
            boxes_out_of_range=self._out_of_range,
            boxes_without_confidence=self._without_confidence,
            prompt_tokens=self._prompt_tokens,
            completion_tokens=self._completion_tokens,
            notes=tuple(said),
        )

    def _reward(self, score: Score) -> None:
        self.completions += 1
        self._total += score.total
        for name, value in score.components.items():
            self._components[name] = self._components.get(name, 0.0) + value
