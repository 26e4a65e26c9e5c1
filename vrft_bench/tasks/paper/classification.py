"""Classification by the paper's rules: a question without options, and a match of either text within the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from vrft_bench.tasks.base import ClassTarget, Dataset, DataSpec, Message, Metric, Prediction, Reward, Sample
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.paper.parsing import parse_label
from vrft_bench.tasks.paper.prompts import IMAGE_MARK, classification_prompt
from vrft_bench.tasks.paper.rewards import ACCURACY, BY_NAME, FORMAT, evaluated_accuracy
from vrft_bench.tasks.paper.symbolic import require_library


@dataclass(frozen=True)
class PaperClassificationTask(ClassificationTask):
    """:class:`ClassificationTask` under the ``paper`` protocol."""

    protocols = ("strict", "paper")

    def require_libraries(self) -> None:
        require_library()

    def load(self, spec: DataSpec) -> Dataset:
        self.require_libraries()
        return super().load(spec)

    def prompt(self, sample: Sample, profile: ModelProfile) -> str:  # noqa: ARG002 - one wording for all profiles
        """The question as the training data hold it."""
        own = sample.fields.get("subject")
        return classification_prompt(*((f"a {own}", f"name of the {own}") if own else self.paper_subject))

    def messages(self, sample: Sample, profile: ModelProfile) -> list[Message]:
        """The chat as the evaluation script builds it."""
        text = {"type": "text", "text": IMAGE_MARK + self.prompt(sample, profile)}
        return [{"role": "user", "content": [{"type": "image"}, text]}]

    def gold(self, sample: Sample, frame: Frame) -> str:  # noqa: ARG002 - the paper's tags are the same for all
        label = cast(ClassTarget, sample.target).label
        return f"<think>I look at the image.</think>\n<answer>{label}</answer>"

    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        return parse_label(text, frame, truncated=truncated)

    @property
    def reward_choices(self) -> Mapping[str, Reward]:
        return BY_NAME["classification"]

    @property
    def default_rewards(self) -> tuple[Reward, ...]:
        return ACCURACY, FORMAT

    def metric(self, dataset: Dataset) -> Metric:
        from vrft_bench.tasks.metrics.accuracy import AccuracyMetric

        return AccuracyMetric(dataset, evaluated_accuracy)
