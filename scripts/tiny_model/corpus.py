"""What the tiny model learns from: the questions of the sample data's train split, and what it is taught to answer."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vrft_bench.harness.images import load_image
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, DataSpec, Sample, Task
from vrft_bench.tasks.coordinates import Box, Frame
from vrft_bench.tasks.data.sample_scenes import CELL, GRID
from vrft_bench.tasks.detection import completion
from vrft_bench.tasks.profiles import QWEN2_VL

DETECTION, GROUNDING = "detection", "lisa_grounding"
CLASSIFICATION = ("classification", "flower102_fewshot", "pets37_fewshot", "fgvc_aircraft_fewshot", "cars196_fewshot")
MIXTURE = {"detection": 0.6, "grounding": 0.25, "classification": 0.15}
NEGATIVE_SHARE = 0.35


@dataclass(frozen=True, slots=True)
class Question:
    """A sample with the task that asks it, and the row of its image in the table of pixels."""

    task: Task
    sample: Sample
    image: int


class Corpus:
    """All questions of the train split in three families, with every image preprocessed once."""

    def __init__(self, most_images: int | None = None) -> None:
        self.processor = Qwen2VLImageProcessorPil(min_pixels=QWEN2_VL.min_pixels, max_pixels=QWEN2_VL.max_pixels)
        self._rows: dict[Any, int] = {}
        pixels: list[torch.Tensor] = []

        def read(name: str) -> Iterator[Question]:
            task, before = get_task(name), len(pixels)
            for sample in task.load(DataSpec(split="train")).samples():
                if sample.image.path not in self._rows:
                    if most_images is not None and len(pixels) - before >= most_images:
                        return
                    self._rows[sample.image.path] = len(pixels)
                    image = load_image(sample.image).image
                    # 84x84 pixels: 6x6 patches, which the encoder merges into 9 visual tokens.
                    patches = self.processor(images=[image], return_tensors="pt")["pixel_values"]
                    pixels.append(patches.to(torch.float16))
                yield Question(task, sample, self._rows[sample.image.path])

        detection = list(read(DETECTION))
        self.present = [question for question in detection if boxes_of(question)]
        self.absent = [question for question in detection if not boxes_of(question)]
        self.grounding = list(read(GROUNDING))
        self.classification = [question for name in CLASSIFICATION for question in read(name)]
        self.pixels = torch.stack(pixels)

    def texts(self) -> list[str]:
        """Every distinct prompt and gold completion, for the vocabulary."""
        questions = [*self.present, *self.absent[: len(self.present)], *self.grounding, *self.classification]
        return sorted({text for item in questions for text in (prompt_of(item), gold_of(item))})

    def draw(self, rng: random.Random) -> Question:
        """One question: a family by :data:`MIXTURE`, in detection an absent category by :data:`NEGATIVE_SHARE`."""
        family = rng.choices(list(MIXTURE), weights=list(MIXTURE.values()))[0]
        if family == "detection":
            return rng.choice(self.absent if rng.random() < NEGATIVE_SHARE else self.present)
        return rng.choice(self.grounding if family == "grounding" else self.classification)


def boxes_of(question: Question) -> tuple[Any, ...]:
    assert isinstance(question.sample.target, BoxTarget)
    return question.sample.target.boxes


def prompt_of(question: Question) -> str:
    return question.task.prompt(question.sample, QWEN2_VL)


def careless(box: Box, rng: random.Random, share: float) -> Box:
    """``box`` with its right edge, its lower one, both or none a cell too far, where the image has room for it."""
    x2, y2 = (edge + CELL if edge < CELL * GRID and rng.random() < share else edge for edge in box[2:])
    return box[0], box[1], x2, y2


def gold_of(question: Question, rng: random.Random | None = None, careless_share: float = 0.0) -> str:
    """The gold completion; with ``rng``, boxes get a confidence that is lower for smaller objects, plus noise."""
    sample = question.sample
    frame = Frame(QWEN2_VL, sample.image.width, sample.image.height)
    if rng is not None and isinstance(sample.target, BoxTarget) and careless_share:
        boxes = tuple(careless(box, rng, careless_share) for box in sample.target.boxes)
        sample = replace(sample, target=replace(sample.target, boxes=boxes))
    if rng is None or not isinstance(sample.target, BoxTarget):
        return question.task.gold(sample, frame)
    confidences = []
    for x1, y1, x2, y2 in sample.target.boxes:
        share = (x2 - x1) * (y2 - y1) / (sample.image.width * sample.image.height)
        confidences.append(min(max(0.5 + 0.65 * math.sqrt(share) + rng.gauss(0.0, 0.08), 0.05), 0.99))
    return completion(sample.target.boxes, confidences, frame, sample.fields["category"])
