"""Few-shot fine-grained classification: 102 flower species (Visual-RFT, table 2).

One question per image, of any size::

    question    What is the species of the flower in the image? It is one of: ..., passion flower, ....
    gold        <think>I look at the species of the flower.</think>
                <answer>passion flower</answer>
    scores      accuracy 1, format 1, total 2

Data: under ``flower102/`` of the data root, as the owners publish it or a folder per class (``docs/data.md``).
Metric: top-1 accuracy of the exact name.
Visual-RFT's training set: ``--split virft`` (ViRFT_CLS_flower_4_shot).

Nilsback and Zisserman, "Automated Flower Classification over a Large Number of Classes", ICVGIP 2008; Liu et al., arXiv
2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.classification import ClassificationTask


def flower102_fewshot() -> ClassificationTask:
    return ClassificationTask(
        name="flower102_fewshot",
        version="1",
        summary="few-shot classification, 102 flower species",
        subject="species of the flower",
        folder="flower102",
        paper_subject=("a plant", "species of the plant"),
    )
