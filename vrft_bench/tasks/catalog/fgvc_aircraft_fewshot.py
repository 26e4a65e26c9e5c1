"""Few-shot fine-grained classification: 100 aircraft variants (Visual-RFT, table 2).

One question per image, of any size::

    question    What is the model of the aircraft in the image? It is one of: ..., 737-200, ....
    gold        <think>I look at the model of the aircraft.</think>
                <answer>737-200</answer>
    scores      accuracy 1, format 1, total 2

Data: under ``fgvc_aircraft/`` of the data root, as the owners publish it or a folder per class (``docs/data.md``).
Metric: top-1 accuracy of the exact name.
Visual-RFT's training set: ``--split virft`` (ViRFT_CLS_fgvc_aircraft_4_shot).

Maji et al., "Fine-Grained Visual Classification of Aircraft", arXiv 1306.5151; Liu et al., arXiv 2503.01785.
"""

from __future__ import annotations

from vrft_bench.tasks.classification import ClassificationTask


def fgvc_aircraft_fewshot() -> ClassificationTask:
    return ClassificationTask(
        name="fgvc_aircraft_fewshot",
        version="1",
        summary="few-shot classification, 100 aircraft variants",
        subject="model of the aircraft",
        folder="fgvc_aircraft",
        paper_subject=("an aircraft", "model of the aircraft"),
    )
