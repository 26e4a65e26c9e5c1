"""Few-shot fine-grained classification: 37 pet breeds (Visual-RFT, table 2).

One question per image, of any size::

    question    What is the breed of the pet in the image? It is one of: abyssinian, ....
    gold        <think>I look at the breed of the pet.</think>
                <answer>abyssinian</answer>
    scores      accuracy 1, format 1, total 2

Data: under ``pets37/`` of the data root, as the owners publish it or a folder per class (``docs/data.md``).
Metric: top-1 accuracy of the exact name.
Visual-RFT's training set: ``--split virft`` (ViRFT_CLS_pets37_4shot).

Parkhi et al., "Cats and Dogs", CVPR 2012; Liu et al., arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.classification import ClassificationTask


def pets37_fewshot() -> ClassificationTask:
    return ClassificationTask(
        name="pets37_fewshot",
        version="1",
        summary="few-shot classification, 37 pet breeds",
        subject="breed of the pet",
        folder="pets37",
        paper_subject=("a pet", "species of the pet"),
    )
