"""Open-vocabulary detection on COCO: trained on 65 base categories, judged on 15 novel ones (Visual-RFT, table 7).

Questions, answers and scores are those of ``coco_fewshot``, for all 80 categories::

    question    Find every 'frisbee' in the image. Give each one a bounding box [x1, y1, x2, y2] ...
    gold        <think>I look for frisbee.</think>
                <answer>No Objects</answer>
    scores      iou 1, confidence 1, format 1, total 3 (an image of 640x480 pixels without a frisbee)

Data: COCO val2017, every category asked of every image: 400,000 questions in all, so ``--limit``, ``--categories`` or
``--ask file:PATH`` are of use. Metric: AP over IoU .50:.95 for all, base and novel categories.
``--split train`` asks for base categories only. Visual-RFT's training set: ``--split virft`` (ViRFT_COCO_base65).

Lin et al., ECCV 2014; Liu et al., arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.data.sample import CATEGORIES as SAMPLE_CATEGORIES
from vrft_bench.tasks.data.sample import NOVEL_5
from vrft_bench.tasks.detection import DetectionTask

NOVEL = (
    "mouse", "fork", "hot dog", "cat", "airplane", "suitcase", "parking meter", "sandwich", "train", "hair drier",
    "toilet", "toaster", "snowboard", "frisbee", "bear",
)  # fmt: skip
BASE = (
    "person", "bicycle", "car", "motorcycle", "bus", "truck", "boat", "traffic light", "fire hydrant", "stop sign",
    "bench", "bird", "dog", "horse", "sheep", "cow", "elephant", "zebra", "giraffe", "backpack", "umbrella", "handbag",
    "tie", "skis", "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
    "bottle", "wine glass", "cup", "knife", "spoon", "bowl", "banana", "apple", "orange", "broccoli", "carrot", "pizza",
    "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "tv", "laptop", "remote", "keyboard",
    "cell phone", "microwave", "oven", "sink", "refrigerator", "book", "clock", "vase", "scissors", "teddy bear",
    "toothbrush",
)  # fmt: skip


def coco_ovd() -> DetectionTask:
    return DetectionTask(
        name="coco_ovd",
        version="1",
        summary="open-vocabulary detection, COCO 65 base + 15 novel",
        layout="coco",
        categories=BASE + NOVEL,
        groups={"novel": NOVEL, "base": BASE},
        base_group="base",
        sample_categories=SAMPLE_CATEGORIES,
        sample_groups={
            "novel": NOVEL_5,
            "base": tuple(name for name in SAMPLE_CATEGORIES if name not in NOVEL_5),
        },
    )
