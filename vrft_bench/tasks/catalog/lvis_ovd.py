"""Open-vocabulary detection on thirteen rare LVIS categories (Visual-RFT, table 8).

Questions, answers, scores and metric are those of ``lvis_fewshot``::

    question    Find every 'egg roll' in the image. Give each one a bounding box [x1, y1, x2, y2] ...
    gold        <think>I look for egg roll.</think>
                <answer>[{'Position': [250, 0, 500, 250], 'Confidence': 1.0}]</answer>
    scores      iou 1, confidence 1, format 1, total 3 (an image of 400x400 pixels, box (100, 0) to (200, 100))

Data: LVIS v1 val, the pairs that LVIS judges. There is no training split: all thirteen are novel.
Visual-RFT's training set: ``--split virft`` (ViRFT_COCO_base65, COCO's base categories).

Gupta et al., CVPR 2019; Liu et al., arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.data.sample import LVIS_RARE_13
from vrft_bench.tasks.detection import DetectionTask

CATEGORIES = (
    "casserole", "die", "egg_roll", "futon", "garbage", "handsaw", "hippopotamus", "kitchen_table", "mallet", "omelet",
    "shot_glass", "stepladder", "sugar_bowl",
)  # fmt: skip


def lvis_ovd() -> DetectionTask:
    return DetectionTask(
        name="lvis_ovd",
        version="1",
        summary="open-vocabulary detection, 13 rare LVIS categories",
        layout="lvis",
        categories=CATEGORIES,
        trainable=False,
        sample_categories=LVIS_RARE_13,
    )
