"""Grounding by the paper's rules: the first integer box anywhere, the first shape only, a reward without bounds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from vrft_bench.tasks.base import Dataset, DataSpec, MaskTarget, Message, Metric, Prediction, Reward, Sample
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.grounding import GroundingTask
from vrft_bench.tasks.paper.parsing import parse_region
from vrft_bench.tasks.paper.prompts import SYSTEM_PROMPT, grounding_prompt
from vrft_bench.tasks.paper.rewards import BY_NAME, FORMAT, GIOU, region_solution
from vrft_bench.tasks.paper.symbolic import require_library


@dataclass(frozen=True)
class PaperGroundingTask(GroundingTask):
    """:class:`GroundingTask` under the ``paper`` protocol. Coordinates are thousandths for every profile.

    The reference looks for the box in the question too; here only the completion is read, which differs for an
    instruction that holds a box itself.
    """

    protocols = ("strict", "paper")
    first_shape_only: ClassVar[bool] = True
    max_tokens: ClassVar[int | None] = 128
    blind_bounds: ClassVar[Mapping[str, float]] = {"giou": 0.35, "metric": 0.35}

    def require_libraries(self) -> None:
        require_library()

    def load(self, spec: DataSpec) -> Dataset:
        self.require_libraries()
        return super().load(spec)

    def prompt(self, sample: Sample, profile: ModelProfile) -> str:  # noqa: ARG002 - one wording for all profiles
        return grounding_prompt(sample.fields["instruction"])

    def messages(self, sample: Sample, profile: ModelProfile) -> list[Message]:
        """The chat as the evaluation script builds it, with a system prompt that training does not have."""
        return [{"role": "system", "content": SYSTEM_PROMPT}, *super().messages(sample, profile)]

    def gold(self, sample: Sample, frame: Frame) -> str:
        answer = region_solution(cast(MaskTarget, sample.target), frame).replace("> (", ">(").replace(") <", ")<")
        return f"<think>I look for the region.</think>\n{answer}"

    def best_total(self, sample: Sample) -> float:  # noqa: ARG002 - the same for every truth
        """2 for the equal text, and the format: what is meant to be the maximum, and is none."""
        return 2.0 * self.weights.get(GIOU.name, 1.0) + self.weights.get(FORMAT.name, 1.0)

    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        return parse_region(text, frame, truncated=truncated)

    @property
    def reward_choices(self) -> Mapping[str, Reward]:
        return BY_NAME["grounding"]

    @property
    def default_rewards(self) -> tuple[Reward, ...]:
        return GIOU, FORMAT

    def metric(self, dataset: Dataset) -> Metric:
        from vrft_bench.tasks.paper.metrics import PaperGroundingMetric

        return PaperGroundingMetric(dataset)
