"""The detection family: one question per (image, category), boxes with confidences as the answer, AP as the metric."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, cast

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import BoxTarget, Dataset, DataSpec, Metric, Prediction, ProtocolName, Reward, Sample, Task
from vrft_bench.tasks.coordinates import Box, Frame, ModelProfile
from vrft_bench.tasks.parsing import parse_detections
from vrft_bench.tasks.prompts import detection_prompt
from vrft_bench.tasks.rewards import CONFIDENCE, FORMAT, IOU

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class DetectionTask(Task):
    """Detection on COCO- or LVIS-format data.

    ``layout`` says where the real data lies under a data root (``None``: only files that the user names), and a task of
    LVIS's layout takes no other format.
    ``categories`` are asked by default, ``groups`` are averaged apart (novel and base); ``sample_categories`` and
    ``sample_groups`` are the same for the embedded sample data, which has categories of its own. ``ask`` is the default
    rule of which categories are asked of an image: ``all`` or ``present``.

    ``base_group`` names the group that the training split asks about, where the other categories are novel and must not
    be seen; ``trainable`` is off where all of them are.
    """

    layout: Literal["coco", "lvis"] | None = None
    categories: tuple[str, ...] = ()
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    sample_categories: tuple[str, ...] = ()
    sample_groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict, hash=False)
    ask: str = "all"
    base_group: str | None = None
    trainable: bool = True

    family: ClassVar[str] = "detection"
    target_type = BoxTarget
    blind_bounds: ClassVar[Mapping[str, float]] = {"iou": 0.1, "confidence": 0.1, "metric": 0.05}
    protocols = ("strict", "paper")
    rules: ClassVar[Mapping[ProtocolName, str]] = {
        "strict": "vrft_bench.tasks.detection:DetectionTask",
        "paper": "vrft_bench.tasks.paper.detection:PaperDetectionTask",
    }

    @property
    def reads_data_root(self) -> bool:
        return self.layout is not None

    def load(self, spec: DataSpec) -> Dataset:
        from vrft_bench.tasks.data.coco import load_detection
        from vrft_bench.tasks.data.layout import coco_files, lvis_files
        from vrft_bench.tasks.data.sample import sample_folder
        from vrft_bench.tasks.data.virft import rows_of

        spec.refuse_two_sources()
        if (rows := rows_of(spec, self.name, "detection")) is not None:
            return rows
        split = spec.split or "val"
        is_sample = spec.root is None and spec.annotations is None
        if split == "train" and not self.trainable and not spec.categories:
            raise UserError(
                f"{self.name!r} asks for categories that training must not see, so it has no training split",
                fix="train on another task (coco_ovd), or name the categories to train on with --categories",
            )
        if spec.annotations is not None or spec.images is not None:
            if spec.annotations is None or spec.images is None:
                missing = "--annotations" if spec.annotations is None else "--images"
                raise UserError(
                    f"your own data need annotations and images, and {missing} is not given",
                    fix="give both: --annotations FILE.json --images DIR",
                )
            annotations, images = spec.annotations, [spec.images]
        elif spec.root is not None and self.layout is None:
            raise UserError(
                f"task {self.name!r} reads your own files, not a data root",
                fix="give --annotations FILE.json --images DIR (and no --data)",
            )
        else:
            kind = self.layout or "coco"
            root = spec.root or sample_folder(kind, split)
            annotations, images = (coco_files if kind == "coco" else lvis_files)(root, split)
        dataset = load_detection(
            annotations,
            images,
            split=split,
            categories=spec.categories,
            default_categories=self._asked(split, is_sample=is_sample),
            ask=spec.ask or self.ask,
            is_sample=is_sample,
        )
        if self.layout == "lvis" and dataset.rules != "lvis":
            raise DataError(
                f"{annotations} is no LVIS file: none of its images says in 'neg_category_ids' what was verified to be "
                f"absent, and {self.name!r} is judged by LVIS's rules",
                fix="give LVIS's own annotations, or run `--task detection`, which judges such a file by COCO's rules",
            )
        return dataset

    def _asked(self, split: str, *, is_sample: bool) -> tuple[str, ...]:
        """The categories that are asked where the user names none."""
        if split == "train" and self.base_group is not None:
            return (self.sample_groups if is_sample else self.groups)[self.base_group]
        return self.sample_categories if is_sample else self.categories

    def prompt(self, sample: Sample, profile: ModelProfile) -> str:
        return detection_prompt(sample.fields["category"], Frame(profile, sample.image.width, sample.image.height))

    def gold(self, sample: Sample, frame: Frame) -> str:
        boxes = cast(BoxTarget, sample.target).findable
        return self.answer(boxes, [1.0] * len(boxes), sample, frame)

    def answer(self, boxes: Sequence[Box], confidences: Sequence[float | None], sample: Sample, frame: Frame) -> str:
        """A completion to ``sample`` that gives ``boxes`` (original pixels) as :meth:`parse` reads them."""
        return completion(boxes, confidences, frame, sample.fields["category"])

    def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
        return parse_detections(text, frame, truncated=truncated)

    @property
    def default_rewards(self) -> tuple[Reward, ...]:
        return IOU, CONFIDENCE, FORMAT

    def metric(self, dataset: Dataset) -> Metric:
        from vrft_bench.tasks.metrics.detection import DetectionMetric

        groups = self.sample_groups if dataset.is_sample else self.groups
        return DetectionMetric(dataset, groups)


def completion(boxes: Sequence[Box], confidences: Sequence[float | None], frame: Frame, category: str) -> str:
    """A completion in the asked layout that gives ``boxes`` (original pixels) in the frame's convention.

    A box that rounding would leave without area is widened to one unit of the model, inside the range.
    """
    opening, closing = frame.profile.think_tags
    thought = f"{opening}I look for {category.replace('_', ' ')}.{closing}"
    if not boxes:
        return f"{thought}\n<answer>No Objects</answer>"
    elements = []
    for box, confidence in zip(boxes, confidences, strict=True):
        stated = "" if confidence is None else f", 'Confidence': {round(confidence, 2)}"
        elements.append(f"{{'Position': {model_box(box, frame)}{stated}}}")
    return f"{thought}\n<answer>[{', '.join(elements)}]</answer>"


def model_box(box: Box, frame: Frame) -> list[float]:
    """``box`` as the model would write it, at least one unit wide and high."""
    values = list(frame.to_model(box))
    unit = 10.0**-frame.profile.decimals if frame.profile.decimals else 1
    max_x, max_y = frame.limits()
    limits = (max_y, max_x) if frame.profile.axes == "yxyx" else (max_x, max_y)
    for low, limit in enumerate(limits):
        if values[low] >= values[low + 2]:
            values[low + 2] = min(values[low] + unit, limit)
            values[low] = values[low + 2] - unit
    return values
