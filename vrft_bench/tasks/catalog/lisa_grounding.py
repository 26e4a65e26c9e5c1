"""Reasoning grounding on ReasonSeg (Visual-RFT, table 6).

One question per image. An image of 1000x800 pixels whose target spans (100, 80) to (600, 400), asked of a model that
speaks in thousandths::

    question    Find the one region of the image that this refers to: what keeps the rain off?
                Give its bounding box as (x1,y1),(x2,y2) ...
    gold        <think>I look for the region.</think>
                <answer>(100,100),(600,500)</answer>
    scores      iou 1, format 1, total 2

Data: ReasonSeg as published (``val/*.jpg`` with ``val/*.json``); all target polygons of an image are one region.
Metric: mean IoU of the box.

Lai et al., "LISA: Reasoning Segmentation via Large Language Model", CVPR 2024; Liu et al., arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.grounding import GroundingTask


def lisa_grounding() -> GroundingTask:
    return GroundingTask(name="lisa_grounding", version="1", summary="reasoning grounding on ReasonSeg")
