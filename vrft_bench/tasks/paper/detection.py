"""Detection by the paper's rules: its prompt, its repair of answers, its rewards, its AP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from vrft_bench.tasks.base import BoxTarget, Dataset, DataSpec, Message, Metric, Prediction, Reward, Sample
from vrft_bench.tasks.coordinates import Box, Frame, ModelProfile
from vrft_bench.tasks.detection import DetectionTask, completion
from vrft_bench.tasks.paper.parsing import parse_detections
from vrft_bench.tasks.paper.prediction import thousandths
from vrft_bench.tasks.paper.prompts import IMAGE_MARK, detection_prompt
from vrft_bench.tasks.paper.rewards import BY_NAME, CONFIDENCE, FORMAT, IOU
from vrft_bench.tasks.paper.symbolic import require_library


@dataclass(frozen=True)
class PaperDetectionTask(DetectionTask):
    """:class:`DetectionTask` under the ``paper`` protocol. Coordinates are thousandths for every profile."""

    protocols = ("strict", "paper")

    def require_libraries(self) -> None:
        require_library()

    def load(self, spec: DataSpec) -> Dataset:
        self.require_libraries()
        dataset = super().load(spec)
        if dataset.ask is None or dataset.ask.startswith("file:"):
            return dataset
        note = (
            f"asked by the rule {dataset.ask!r}; the paper asks of each image the categories that its base model said "
            "are there (--ask file:MAP)"
        )
        return replace(dataset, notes=(*dataset.notes, note))

    def prompt(self, sample: Sample, profile: ModelProfile) -> str:  # noqa: ARG002 - one wording for all profiles
        """The question as the training data hold it."""
        return detection_prompt(sample.fields["category"])

    def messages(self, sample: Sample, profile: ModelProfile) -> list[Message]:
        """The chat as the evaluation script builds it."""
        text = {"type": "text", "text": IMAGE_MARK + self.prompt(sample, profile)}
        return [{"role": "user", "content": [{"type": "image"}, text]}]

    def answer(self, boxes: Sequence[Box], confidences: Sequence[float | None], sample: Sample, frame: Frame) -> str:
        return completion(boxes, confidences, thousandths(frame), sample.fields["category"])

    def best_total(self, sample: Sample) -> float:
        """Where the category is absent, no answer earns more than the format."""
        if cast(BoxTarget, sample.target).boxes:
            return super().best_total(sample)
        return self.weights.get(FORMAT.name, 1.0)

    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        return parse_detections(text, frame, truncated=truncated)

    @property
    def reward_choices(self) -> Mapping[str, Reward]:
        return BY_NAME["detection"]

    @property
    def default_rewards(self) -> tuple[Reward, ...]:
        return IOU, CONFIDENCE, FORMAT

    def metric(self, dataset: Dataset) -> Metric:
        from vrft_bench.tasks.paper.metrics import PaperDetectionMetric

        groups = self.sample_groups if dataset.is_sample else self.groups
        return PaperDetectionMetric(dataset, groups, over_areas=dataset.rules == "lvis")
