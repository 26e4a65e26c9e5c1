"""The generic tasks: the user's own data in a standard format.

``detection``: COCO- or LVIS-format annotations (``--annotations my.json --images dir/``), every category of the file.
``classification``: a folder of class folders (``--images dir/``). ``grounding``: a ReasonSeg-format folder
(``--images dir/``). Without files they run on the embedded sample data. A square image of 84 pixels with a red circle
in its upper left cell, asked by ``detection`` of a model that speaks in thousandths::

    question    Find every 'red circle' in the image. Give each one a bounding box [x1, y1, x2, y2] ...
    gold        <think>I look for red circle.</think>
                <answer>[{'Position': [0, 0, 333, 333], 'Confidence': 1.0}]</answer>
    scores      iou .998 (333 thousandths are not quite 28 pixels), confidence 1, format 1
"""

from __future__ import annotations

from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.grounding import GroundingTask


def detection() -> DetectionTask:
    return DetectionTask(name="detection", version="1", summary="your own COCO- or LVIS-format annotations")


def classification() -> ClassificationTask:
    return ClassificationTask(name="classification", version="1", summary="your own folder of class folders")


def grounding() -> GroundingTask:
    return GroundingTask(name="grounding", version="1", summary="your own ReasonSeg-format folder", layout=False)
