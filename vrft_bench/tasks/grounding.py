"""The grounding family: one image, one instruction, one box as the answer, mean box IoU as the metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, cast

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import Dataset, DataSpec, MaskTarget, Metric, Prediction, ProtocolName, Reward, Sample, Task
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.detection import model_box
from vrft_bench.tasks.parsing import parse_region
from vrft_bench.tasks.prompts import region_prompt
from vrft_bench.tasks.rewards import FORMAT, REGION_IOU


@dataclass(frozen=True)
class GroundingTask(Task):
    """Grounding on ReasonSeg-format folders. ``layout`` is false where only the user's own folder can be read."""

    layout: bool = True

    family: ClassVar[str] = "grounding"
    first_shape_only: ClassVar[bool] = False
    """Whether the first shape of a ReasonSeg annotation is the whole truth, whatever its label."""
    target_type = MaskTarget
    blind_bounds: ClassVar[Mapping[str, float]] = {"iou": 0.35, "metric": 0.35}
    protocols = ("strict", "paper")
    rules: ClassVar[Mapping[ProtocolName, str]] = {
        "strict": "vrft_bench.tasks.grounding:GroundingTask",
        "paper": "vrft_bench.tasks.paper.grounding:PaperGroundingTask",
    }

    @property
    def reads_data_root(self) -> bool:
        return self.layout

    def load(self, spec: DataSpec) -> Dataset:
        from vrft_bench.tasks.data.layout import reasonseg_root
        from vrft_bench.tasks.data.reasonseg import load_reasonseg
        from vrft_bench.tasks.data.sample import sample_folder
        from vrft_bench.tasks.data.virft import rows_of

        spec.refuse_two_sources()
        if (rows := rows_of(spec, self.name, "grounding")) is not None:
            return rows
        split = spec.split or "val"
        spec.refuse_ask(self.name)
        if spec.categories or spec.annotations is not None:
            raise UserError(
                f"task {self.name!r} has no categories, and takes --annotations only for rows of image, problem and "
                "solution",
                fix="leave them out; --images DIR names a ReasonSeg-format folder",
            )
        first_shape_only = self.first_shape_only
        if spec.images is not None:
            return load_reasonseg(spec.images, split, first_shape_only=first_shape_only)
        if spec.root is None:
            folder = sample_folder("reasonseg", split) / split
            return load_reasonseg(folder, split, is_sample=True, first_shape_only=first_shape_only)
        if not self.layout:
            raise UserError(
                f"task {self.name!r} reads your own files, not a data root",
                fix="give --images DIR, a ReasonSeg-format folder (and no --data)",
            )
        return load_reasonseg(reasonseg_root(spec.root) / split, split, first_shape_only=first_shape_only)

    def prompt(self, sample: Sample, profile: ModelProfile) -> str:
        return region_prompt(sample.fields["instruction"], Frame(profile, sample.image.width, sample.image.height))

    def gold(self, sample: Sample, frame: Frame) -> str:
        target = cast(MaskTarget, sample.target)
        opening, closing = frame.profile.think_tags
        a, b, c, d = model_box(target.box, frame)
        return f"{opening}I look for the region.{closing}\n<answer>({a},{b}),({c},{d})</answer>"

    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        return parse_region(text, frame, truncated=truncated)

    @property
    def default_rewards(self) -> tuple[Reward, ...]:
        return REGION_IOU, FORMAT

    def metric(self, dataset: Dataset) -> Metric:
        from vrft_bench.tasks.metrics.grounding import GroundingMetric

        return GroundingMetric(dataset)
