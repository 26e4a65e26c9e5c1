"""my_task: a detection task for vrft-bench. One question per image and category.

    vrft-bench run --include my_task.py --task my_task
    vrft-bench run --include my_task.py --task my_task --annotations my.json --images dir/ --model hf/PATH
    vrft-bench validate my_task --include my_task.py

An image of 640x480 pixels with a bus at (64, 48) to (320, 240), asked of a model that speaks in thousandths::

    question    Find every 'bus' in the image. Give each one a bounding box [x1, y1, x2, y2] ...
    gold        <think>I look for bus.</think>
                <answer>[{'Position': [100, 100, 500, 500], 'Confidence': 1.0}]</answer>
    scores      iou 1, confidence 1, format 1, total 3
"""

from __future__ import annotations

from vrft_bench.registry import TASKS
from vrft_bench.tasks.detection import DetectionTask


def my_task() -> DetectionTask:
    return DetectionTask(
        name="my_task",
        version="1",  # another one whenever you change what can change a score
        summary="what it measures, in a line for `vrft-bench ls tasks`",
        layout="coco",  # where COCO lies under --data; "lvis" for LVIS; None: only --annotations and --images
        categories=("bus", "train"),
        sample_categories=("red circle", "blue square"),  # what is asked of the sample data
    )


TASKS.register("my_task", my_task, summary="what it measures, in a line for `vrft-bench ls tasks`")
