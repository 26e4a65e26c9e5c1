"""my_task: a classification task for vrft-bench. One question per image, with the names of the classes in it.

    vrft-bench run --include my_task.py --task my_task
    vrft-bench run --include my_task.py --task my_task --images dir/ --model hf/PATH
    vrft-bench validate my_task --include my_task.py

The folder holds a folder per class::

    question    What is the kind of bird in the image? It is one of: crow, owl, wren.
    gold        <think>I look at the kind of bird.</think>
                <answer>owl</answer>
    scores      accuracy 1, format 1, total 2
"""

from __future__ import annotations

from vrft_bench.registry import TASKS
from vrft_bench.tasks.classification import ClassificationTask


def my_task() -> ClassificationTask:
    return ClassificationTask(
        name="my_task",
        version="1",  # another one whenever you change what can change a score
        summary="what it measures, in a line for `vrft-bench ls tasks`",
        subject="kind of bird",
        folder="my_task",  # under --data; None: only --images
    )


TASKS.register("my_task", my_task, summary="what it measures, in a line for `vrft-bench ls tasks`")
