"""Few-shot detection on six rare LVIS categories (Visual-RFT, table 4).

One question per (image, category). An image of 500x400 pixels with a die at (50, 40) to (100, 80), asked of a model
that speaks in thousandths::

    question    Find every 'die' in the image. Give each one a bounding box [x1, y1, x2, y2] ...
    gold        <think>I look for die.</think>
                <answer>[{'Position': [100, 100, 200, 200], 'Confidence': 1.0}]</answer>
    scores      iou 1, confidence 1, format 1, total 3

Data: LVIS v1 val (``lvis_v1_val.json`` and the COCO images it names). LVIS is federated: a category is judged only in
the images where it was verified to be present or absent, so only those pairs are asked (``ask=all``); no other pair can
change the figure. Metric: LVIS AP over IoU .50:.95, mean over the categories.
Visual-RFT's training set: ``--split virft`` (ViRFT_LVIS_few_shot).

Gupta et al., "LVIS: A Dataset for Large Vocabulary Instance Segmentation", CVPR 2019; Liu et al., arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.data.sample import LVIS_FEWSHOT_6
from vrft_bench.tasks.detection import DetectionTask

CATEGORIES = ("horse_buggy", "die", "kitchen_table", "omelet", "papaya", "stepladder")


def lvis_fewshot() -> DetectionTask:
    return DetectionTask(
        name="lvis_fewshot",
        version="1",
        summary="few-shot detection, 6 rare LVIS categories",
        layout="lvis",
        categories=CATEGORIES,
        sample_categories=LVIS_FEWSHOT_6,
    )
