"""Few-shot detection on eight COCO categories (Visual-RFT, table 3).

One question per (image, category). An image of 640x480 pixels with a bus at (64, 48) to (320, 240), asked of a model
that speaks in thousandths::

    question    Find every 'bus' in the image. Give each one a bounding box [x1, y1, x2, y2] ...
    gold        <think>I look for bus.</think>
                <answer>[{'Position': [100, 100, 500, 500], 'Confidence': 1.0}]</answer>
    scores      iou 1, confidence 1, format 1, total 3

Data: COCO val2017 (``annotations/instances_val2017.json`` and its images). Every category is asked of every image
(``ask=all``), so that a box where there is nothing costs. Metric: AP over IoU .50:.95, mean over the categories.
Visual-RFT's training set: ``--split virft`` (ViRFT_COCO_8_cate_4_shot).

Lin et al., "Microsoft COCO: Common Objects in Context", ECCV 2014; Liu et al., "Visual-RFT", arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.data.sample import FEWSHOT_8
from vrft_bench.tasks.detection import DetectionTask

CATEGORIES = ("bus", "train", "fire hydrant", "stop sign", "cat", "dog", "bed", "toilet")


def coco_fewshot() -> DetectionTask:
    return DetectionTask(
        name="coco_fewshot",
        version="1",
        summary="few-shot detection, 8 COCO categories",
        layout="coco",
        categories=CATEGORIES,
        sample_categories=FEWSHOT_8,
    )
