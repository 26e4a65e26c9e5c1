"""How many images, annotations and categories each data set has, as its owners publish it.

Splits are called as in this project: ``val`` of the four classification sets is the owners' test list, and their own
validation list is ``validation`` (see :mod:`~vrft_bench.tasks.data.class_lists`). A set that is published in two ways
has an entry for each.
"""

from __future__ import annotations

from collections.abc import Mapping

from vrft_bench.tasks.base import Task
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.data.survey import ANNOTATIONS, CATEGORIES, IMAGES, QUESTIONS
from vrft_bench.tasks.data.virft import SPLIT as VIRFT
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.grounding import GroundingTask

Counts = Mapping[str, int]


def published_counts(task: Task, split: str, categories: int) -> dict[str, Counts]:
    """What a split of the real data holds, by who says so; empty where nothing sure is known.

    ``categories`` is how many of a detection set's categories the task asks.
    """
    if split == VIRFT:
        rows = _VIRFT_ROWS.get(task.name)
        return {} if rows is None else {"the card of Visual-RFT's data set": {QUESTIONS: rows}}
    match task:
        case DetectionTask(layout="coco"):
            coco = _COCO.get(split, {})
            if task.ask != "all":
                return dict(coco)
            return {name: {**counts, QUESTIONS: counts[IMAGES] * categories} for name, counts in coco.items()}
        case DetectionTask(layout="lvis"):
            return dict(_LVIS.get(split, {}))
        case ClassificationTask(folder=str(name)) if name in _CLASSES:
            classes, by_source = _CLASSES[name]
            return {
                source: {IMAGES: splits[split], CATEGORIES: classes}
                for source, splits in by_source.items()
                if split in splits
            }
        case GroundingTask(layout=True) if split in _REASONSEG:
            return {"LISA's README": {IMAGES: _REASONSEG[split]}}
    return {}


_COCO: dict[str, dict[str, Counts]] = {
    "train": {"COCO 2017": {IMAGES: 118_287, ANNOTATIONS: 860_001, CATEGORIES: 80}},
    "val": {"COCO 2017": {IMAGES: 5_000, ANNOTATIONS: 36_781, CATEGORIES: 80}},
}
_LVIS: dict[str, dict[str, Counts]] = {
    "train": {"LVIS v1": {IMAGES: 100_170, ANNOTATIONS: 1_270_141, CATEGORIES: 1_203}},
    "val": {"LVIS v1": {IMAGES: 19_809, ANNOTATIONS: 244_707, CATEGORIES: 1_203}},
}
_REASONSEG = {"train": 239, "val": 200, "test": 779}

_OWNERS, _COOP = "the owners' lists", "CoOp's split file"
_CLASSES: dict[str, tuple[int, dict[str, dict[str, int]]]] = {
    "flower102": (
        102,
        {
            _OWNERS: {"train": 1_020, "validation": 1_020, "trainval": 2_040, "val": 6_149, "test": 6_149},
            _COOP: {"train": 4_093, "validation": 1_633, "val": 2_463, "test": 2_463},
        },
    ),
    "pets37": (
        37,
        {
            _OWNERS: {"train": 3_680, "trainval": 3_680, "val": 3_669, "test": 3_669},
            _COOP: {"train": 2_944, "validation": 736, "val": 3_669, "test": 3_669},
        },
    ),
    "fgvc_aircraft": (
        100,
        {_OWNERS: {"train": 3_334, "validation": 3_333, "trainval": 6_667, "val": 3_333, "test": 3_333}},
    ),
    "cars196": (
        196,
        {
            _OWNERS: {"train": 8_144, "val": 8_041, "test": 8_041},
            _COOP: {"train": 6_509, "validation": 1_635, "val": 8_041, "test": 8_041},
        },
    ),
}
"""Classes, and images per split, by the list that is read. CoOp's test list of Flowers102 is the one of the paper."""

_VIRFT_ROWS = {
    "coco_fewshot": 32,
    "lvis_fewshot": 65,
    "flower102_fewshot": 408,
    "pets37_fewshot": 148,
    "fgvc_aircraft_fewshot": 400,
    "cars196_fewshot": 784,
}
"""Rows of the training sets that Visual-RFT published, where the card gives an exact number."""
