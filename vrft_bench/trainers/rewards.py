"""The task's score as the callables that TRL takes: one per reward component, named after it, with its weight.

TRL then shows each component's mean and deviation, and sums them as the task does. The callables are picklable, hold no
state that matters, and return finite numbers, since a task's rewards do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from vrft_bench.tasks.base import Prediction, Score, Status, Task

Message = dict[str, Any]

_KEPT = 4096


class BatchScorer:
    """Scores completions, each once: the callables of all components share one and are asked about the same batch."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self._kept: dict[tuple[str, str], tuple[Prediction, Score]] = {}

    def __call__(self, completion: str, ground_truth: str) -> tuple[Prediction, Score]:
        key = completion, ground_truth
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            found = self._kept[key] = self.task.assess(completion, ground_truth)
        return found

    def __getstate__(self) -> Task:
        return self.task

    def __setstate__(self, task: Task) -> None:
        self.__init__(task)  # type: ignore[misc]


class ComponentReward:
    """One reward component of a task, as TRL calls it.

    ``completions`` are texts, or chat messages whose ``content`` is the text; ``ground_truth`` the portable truth of
    each. ``opening`` is what the chat template has written of the completion already (a thinking tag).
    """

    def __init__(self, scorer: BatchScorer, name: str, *, reports: bool = False, opening: str = "") -> None:
        self.scorer = scorer
        self.name = self.__name__ = name
        self.reports = reports
        self.opening = opening

    def __call__(
        self,
        completions: Sequence[str | Sequence[Message]],
        ground_truth: Sequence[str],
        *,
        log_metric: Callable[[str, float], None] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        **columns: Any,
    ) -> list[float]:
        """The component's value for each completion: finite, and inside its declared range."""
        texts = [self.opening + _text(completion) for completion in completions]
        scored = [self.scorer(text, truth) for text, truth in zip(texts, ground_truth, strict=True)]
        if self.reports and log_metric is not None:
            statuses = Counter(prediction.status for prediction, _ in scored)
            for status in Status:
                log_metric(f"status/{status.value}", statuses[status] / max(len(scored), 1))
        if self.reports and log_extra is not None:
            log_extra("sample_id", list(columns.get("sample_id", [""] * len(scored))))
            log_extra("status", [prediction.status.value for prediction, _ in scored])
            log_extra("total", [score.total for _, score in scored])
        return [score.components[self.name] for _, score in scored]


def reward_functions(task: Task, *, opening: str = "") -> list[ComponentReward]:
    """A callable per reward component of ``task``.

    Only the first one reports shares of parse statuses and rows for the table of completions.
    """
    scorer = BatchScorer(task)
    return [
        ComponentReward(scorer, reward.name, reports=index == 0, opening=opening)
        for index, reward in enumerate(task.rewards)
    ]


def reward_weights(task: Task) -> list[float]:
    """A weight per callable; the weighted sum of what they return is the task's total."""
    return [task.weights.get(reward.name, 1.0) for reward in task.rewards]


def _text(completion: str | Sequence[Message]) -> str:
    """The assistant's text; a message's content may be a list of parts."""
    if isinstance(completion, str):
        return completion
    content = completion[-1]["content"] if completion else ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content)
