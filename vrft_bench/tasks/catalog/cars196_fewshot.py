"""Few-shot fine-grained classification: 196 car models (Visual-RFT, table 2).

One question per image, of any size::

    question    What is the model of the car in the image? It is one of: ..., 2012 Ferrari 458 Italia Convertible, ....
    gold        <think>I look at the model of the car.</think>
                <answer>2012 Ferrari 458 Italia Convertible</answer>
    scores      accuracy 1, format 1, total 2

Data: under ``cars196/`` of the data root, as the owners publish it or a folder per class (``docs/data.md``).
Metric: top-1 accuracy of the exact name.
Visual-RFT's training set: ``--split virft`` (ViRFT_CLS_car196_4shot).

Krause et al., "3D Object Representations for Fine-Grained Categorization", 3dRR 2013; Liu et al., arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.classification import ClassificationTask


def cars196_fewshot() -> ClassificationTask:
    return ClassificationTask(
        name="cars196_fewshot",
        version="1",
        summary="few-shot classification, 196 car models",
        subject="model of the car",
        folder="cars196",
        paper_subject=("a car", "model of the car"),
    )
