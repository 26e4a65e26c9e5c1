"""Scores a COCO-format results file against annotations: no run folder, no model, no images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.answers import LOUD_SHARE
from vrft_bench.tasks.base import MetricReport, ProtocolName
from vrft_bench.tasks.data.annotations import ROUNDED_OUT

if TYPE_CHECKING:
    from vrft_bench.tasks.data.coco_results import Floats, ResultColumns

RulesName = Literal["coco", "lvis"]
ENGINES = ("own", "pycocotools")


@dataclass(frozen=True, slots=True)
class PredictionsScore:
    """What a results file scores, and by which rules.

    Precision, recall and F1 count detections of at least ``score_threshold``; where none was chosen, all of them, and
    once more those of at least ``best_score``.
    """

    predictions: Path
    annotations: Path
    rules: RulesName
    protocol: ProtocolName
    engine: str
    report: MetricReport
    score_threshold: float | None
    best_score: float | None

    def to_json(self) -> dict[str, Any]:
        """What ``vrft-bench score --predictions --json`` prints."""
        return {
            "predictions": str(self.predictions),
            "annotations": str(self.annotations),
            "rules": self.rules,
            "protocol": self.protocol,
            "ap_engine": self.engine,
            "score_threshold": self.score_threshold,
            "best_score": self.best_score,
            "report": self.report.to_json(),
        }


def score_predictions(
    predictions: Path,
    annotations: Path,
    *,
    rules: str | None = None,
    protocol: str = "strict",
    categories: Sequence[str] = (),
    engine: str = "own",
    intervals: bool = False,
    score_threshold: float | None = None,
) -> PredictionsScore:
    """AP of a results file, and its precision, recall and F1 at IoU .5.

    Args:
        predictions: A JSON list of detections (see :mod:`~vrft_bench.tasks.data.coco_results`).
        annotations: The COCO- or LVIS-format truth that they were made for.
        rules: ``coco`` or ``lvis``; by default what the annotations are.
        protocol: ``paper`` has AP by LVIS's rules averaged over the area ranges too, as Visual-RFT's tables do. By
            COCO's rules both protocols are the same.
        categories: Only these, by name; every category of the annotations if empty. LVIS's limit of 300 detections per
            image counts those of all categories.
        engine: ``own``, or ``pycocotools`` for a second opinion (COCO's rules only, no intervals).
        intervals: Whether to add bootstrap intervals and the range over orders of equal scores; they take longer than
            all the rest.
        score_threshold: The least score of a detection that counts for precision, recall and F1; it changes no AP. By
            default they are given twice: of all detections, and of those above the score of the highest mean F1.

    Raises:
        DataError: A file is missing, or an entry is not what its format promises.
        UserError: An option has no such value, or does not go with the others.
    """
    for name, value, valid in (
        ("rules", rules, (None, "coco", "lvis")),
        ("protocol", protocol, ("strict", "paper")),
        ("ap-engine", engine, ENGINES),
    ):
        if value not in valid:
            names = [item for item in valid if item]
            raise UserError(
                f"unknown {name} {value!r}{did_you_mean(str(value), names)}", fix=f"use {' or '.join(names)}"
            )
    if score_threshold is not None and not math.isfinite(score_threshold):
        raise UserError(f"the score threshold {score_threshold} is no finite number", fix="give one, such as 0.5")
    # Imported here, so that numpy does not slow the command line down.
    import numpy as np

    from vrft_bench.tasks.data.annotations import read_document
    from vrft_bench.tasks.data.coco_results import image_numbers, image_sizes, read_results, truth_columns
    from vrft_bench.tasks.data.questions import choose_categories
    from vrft_bench.tasks.metrics.bulk_outcomes import bulk_outcomes
    from vrft_bench.tasks.metrics.outcomes import COCO_RULES, LVIS_RULES
    from vrft_bench.tasks.metrics.results_report import RECALL_LIMITS, results_figures, results_report

    document = read_document(annotations)
    chosen = choose_categories(categories, document.categories, document.path)
    known = document.categories
    applied: RulesName = document.rules if rules is None else "lvis" if rules == "lvis" else "coco"
    if engine == "pycocotools" and (applied == "lvis" or intervals):
        raise UserError(
            "pycocotools knows neither LVIS's rules nor intervals", fix="use --ap-engine own, which knows both"
        )
    numbers = image_numbers(document)
    truth = truth_columns(document, numbers, chosen, applied)
    sizes = image_sizes(document, numbers)
    del document  # A large annotation file needs more memory than all that follows.
    results = read_results(predictions, numbers, known, chosen)

    over_areas = applied == "lvis" and protocol == "paper"
    notes = []
    if engine == "pycocotools":
        from vrft_bench.tasks.metrics.reference_ap import reference_figures

        figures = reference_figures(truth, results)
    else:
        outcomes = bulk_outcomes(truth, results, LVIS_RULES if applied == "lvis" else COCO_RULES)
        figures = results_figures(
            outcomes,
            len(chosen),
            truth.images,
            intervals=intervals,
            over_areas=over_areas,
            recall_limits=RECALL_LIMITS if applied == "coco" else (),
        )
        limit = "300 most confident of an image" if applied == "lvis" else "100 most confident of an image and category"
        if outcomes.cut:
            notes.append(f"{outcomes.cut:,} detections beyond the {limit} do not count")
        if outcomes.unverified:
            notes.append(f"{outcomes.unverified:,} detections of unverified image-category pairs count for nothing")
    if silent := truth.images - len(np.unique(results.image)):
        notes.append(f"{silent:,} of {truth.images:,} images have no detection: their objects count as missed")
    if unsized := int((results.box[results.category >= 0, 2:] < 0.0).any(axis=1).sum()):
        notes.append(f"{unsized:,} detections have a negative width or height and can match nothing")
    notes += _outside(results, sizes)
    best_score = figures.judged.best_score() if score_threshold is None else None
    report = results_report(
        figures,
        [category.name for category in chosen],
        groups={letter: [item.name for item in chosen if item.frequency == letter] for letter in "rcf"}
        if applied == "lvis"
        else None,
        score_threshold=score_threshold,
        best_score=best_score,
        notes=notes,
    )
    return PredictionsScore(
        predictions=predictions,
        annotations=annotations,
        rules=applied,
        protocol="paper" if protocol == "paper" else "strict",
        engine=engine,
        report=report,
        score_threshold=score_threshold,
        best_score=best_score,
    )


def _outside(results: ResultColumns, sizes: Floats) -> list[str]:
    """A note where more than a few of the chosen detections leave their image by more than rounding."""
    from vrft_bench.tasks.data.coco_results import pixels_outside

    pixels = pixels_outside(results, sizes)[results.category >= 0]
    outside = int((pixels > ROUNDED_OUT).sum())
    if outside <= LOUD_SHARE * len(pixels):
        return []
    said = f"{outside:,} of {len(pixels):,} detections leave their image"
    return [
        f"{said}: are the boxes corners? They are read as [x, y, width, height]" if 2 * outside > len(pixels) else said
    ]
