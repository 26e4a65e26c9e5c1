"""From completions to figures: the one place of the harness that calls ``task.parse`` and ``task.judge``.

Evaluation, resuming and re-scoring feed the same :class:`Scorer`, so a stored text is worth what it was worth when it
came.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vrft_bench.harness.answers import AnswerStats, AnswerTally
from vrft_bench.harness.models.base import Completion
from vrft_bench.harness.models.token_logprobs import TokenLogprobs
from vrft_bench.harness.plan import RunPlan
from vrft_bench.harness.records import Record
from vrft_bench.tasks.base import NO_PREDICTION, UNASKED, MetricReport, Prediction, Sample, Score
from vrft_bench.tasks.coordinates import Frame, ModelProfile


class Scorer:
    """Judges completions one at a time, in any order, and keeps only what the metric keeps."""

    def __init__(self, plan: RunPlan) -> None:
        self._task = plan.task
        self._profile = plan.profile
        self._dataset = plan.dataset
        self._completions_per_sample = plan.config.samples
        self._metric = plan.task.metric(plan.dataset)
        self.tally = AnswerTally()

    def complete(self, sample: Sample, completion: Completion) -> tuple[Record, float]:
        """The record of a completion with text, and its total reward."""
        record: Record = {
            "id": sample.id,
            "n": completion.n,
            "text": completion.text,
            "finish_reason": completion.finish_reason,
        }
        optional = {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "processed": completion.processed,
            "image_sha256": completion.image_sha256,
            "seconds": None if completion.seconds is None else round(completion.seconds, 4),
            "token_logprobs": _rounded(completion.token_logprobs),
        }
        record.update((key, value) for key, value in optional.items() if value is not None)
        score = self.replay(sample, record)
        return record, score.total

    def replay(self, sample: Sample, record: Record) -> Score:
        """Read the text of ``record`` again, count it, and put prediction and score into it."""
        prediction, score = self.read(sample, record)
        record["prediction"] = prediction.to_json()
        record["score"] = score.to_json()
        self._metric.update(sample, prediction, record["n"])
        self.tally.add(prediction, score, record.get("prompt_tokens", 0), record.get("completion_tokens", 0))
        return score

    def fail(self, sample: Sample, n: int) -> None:
        """Count a completion that never came: no prediction, with all of the sample's truth missed."""
        self._metric.update(sample, NO_PREDICTION, n)
        self.tally.fail(self._task.judge(NO_PREDICTION, sample.target))

    def finish(self, unasked: Iterable[Sample], *notes: str) -> tuple[MetricReport, AnswerStats]:
        """The figures over everything counted, with the truth of ``unasked`` questions missed."""
        for sample in unasked:
            for n in range(self._completions_per_sample):
                self._metric.update(sample, UNASKED, n)
        return self._metric.compute(), self.tally.stats(*self._dataset.notes, *notes)

    def read(self, sample: Sample, record: Record) -> tuple[Prediction, Score]:
        """What the text of ``record`` says, and what that is worth; nothing is counted."""
        frame = frame_of(sample, record, self._profile)
        prediction = self._task.parse(record["text"], frame, truncated=record["finish_reason"] == "length")
        return prediction, self._task.judge(prediction, sample.target)


def frame_of(sample: Sample, record: Record, profile: ModelProfile) -> Frame:
    """The frame that the text of ``record`` is read in: that of the image as the processor really had it."""
    size: Any = record.get("processed")
    processed = (int(size[0]), int(size[1])) if size else None
    return Frame(profile, sample.image.width, sample.image.height, processed)


def _rounded(logprobs: TokenLogprobs | None) -> list[list[float]] | None:
    return None if logprobs is None else [[end, round(logprob, 4) or 0.0] for end, logprob in logprobs]
