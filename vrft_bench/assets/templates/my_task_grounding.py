"""my_task: a grounding task for vrft-bench. One image, one instruction, one box.

    vrft-bench run --include my_task.py --task my_task
    vrft-bench run --include my_task.py --task my_task --images dir/ --model hf/PATH
    vrft-bench validate my_task --include my_task.py

The folder is in ReasonSeg's format, with a folder per split. An image of 1000x800 pixels whose region spans (100, 80)
to (600, 400), asked of a model that speaks in thousandths::

    question    Find the one region of the image that this refers to: what keeps the rain off?
    gold        <think>I look for the region.</think>
                <answer>(100,100),(600,500)</answer>
    scores      iou 1, format 1, total 2
"""

from __future__ import annotations

from vrft_bench.registry import TASKS
from vrft_bench.tasks.grounding import GroundingTask


def my_task() -> GroundingTask:
    return GroundingTask(
        name="my_task",
        version="1",  # another one whenever you change what can change a score
        summary="what it measures, in a line for `vrft-bench ls tasks`",
    )


TASKS.register("my_task", my_task, summary="what it measures, in a line for `vrft-bench ls tasks`")
