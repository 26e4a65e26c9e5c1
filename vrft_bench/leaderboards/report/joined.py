"""A run's stored answers beside the questions that they answer, as the run left them: nothing is parsed or judged anew.

What is missing takes nothing else away: without the data, answers are shown without images and truth; where the data
have changed, they are shown with a warning; without ``samples.jsonl``, only the figures are left.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.harness.records import Key, Record, RecordIndex
from vrft_bench.harness.store import SAMPLES
from vrft_bench.leaderboards.report.masks import MaskKey, read_masks
from vrft_bench.leaderboards.report.thumbnails import without_folders
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.registry import include
from vrft_bench.tasks.base import Detection, Prediction, Sample, Status
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.metrics.outcomes import COCO_RULES, LVIS_RULES, Rules


@dataclass(frozen=True)
class JoinedRun:
    """A run with its questions by id, in the data's order, and its records by (question, completion).

    ``samples`` is empty where the data cannot be read. ``family`` is that of the task, or ``""`` where nobody knows the
    task any more. ``prompt`` is the first question as it was asked, ``masks`` what a segmenter made of the boxes.
    """

    row: RunRow
    family: str
    samples: Mapping[str, Sample]
    records: Mapping[Key, Record]
    notes: tuple[str, ...]
    prompt: str = ""
    masks: Mapping[MaskKey, str] = field(default_factory=dict)

    @property
    def categories(self) -> tuple[str, ...]:
        """The categories of the data, as the run recorded them."""
        return tuple(map(str, self.row.manifest.identity["data"].get("categories") or ()))

    @property
    def rules(self) -> Rules:
        """Whose rules say which boxes count."""
        return LVIS_RULES if self.row.manifest.identity["data"].get("rules") == "lvis" else COCO_RULES

    @property
    def think_tags(self) -> tuple[str, str]:
        """The tags between which the model thinks."""
        return ModelProfile.from_json(self.row.manifest.identity["profile"]).think_tags


def join_run(row: RunRow) -> JoinedRun:
    """Read the answers of ``row``, and the data that they are about. Whatever cannot be read becomes a note."""
    notes = [f"{problem[:1].upper()}{problem[1:]}" for problem in row.problems]
    try:
        records = _read_records(row)
    except UserError as error:
        records = {}
        notes.append(f"Answers cannot be shown: {' '.join(error.message.split())}")
    family, plan = "", None
    try:
        for file in row.manifest.config.include:
            include(file)
        task = choose_task(row.manifest.task, row.manifest.config)
        family = task.family
        plan = make_plan(task, ModelProfile.from_json(row.manifest.identity["profile"]), row.manifest.config)
    except UserError as error:
        notes.append(f"Images and truth cannot be shown, for the data are not here: {' '.join(error.message.split())}")
    samples: dict[str, Sample] = {}
    prompt = ""
    if plan is not None:
        samples = {sample.id: sample for sample in plan.walk()}
        first = next(iter(samples.values()), None)
        prompt = "" if first is None else plan.task.prompt(first, plan.profile)
        notes += _changes(row, plan)
        if strangers := sum(1 for sample_id, _ in records if sample_id not in samples):
            notes.append(f"{strangers} stored answers belong to no question of the data that are here")
    masks = read_masks(row.folder) if family == "grounding" else {}
    if missing := row.manifest.completions - len(records):
        notes.append(f"Partial: {missing} of {row.manifest.completions} answers are not stored")
    return JoinedRun(row, family, samples, records, tuple(map(without_folders, notes)), prompt, masks)


def prediction_of(record: Record) -> Prediction:
    """The prediction as it is stored: boxes in original pixels to a thousandth. A failed answer is no answer."""
    stored: Mapping[str, Any] = record.get("prediction") or {}
    boxes = stored.get("boxes") or ()
    confidences = stored.get("confidences") or [None] * len(boxes)
    label = stored.get("label")
    return Prediction(
        status=_status(stored.get("status")),
        label=label if isinstance(label, str) else None,
        detections=tuple(
            Detection((float(x1), float(y1), float(x2), float(y2)), None if stated is None else float(stated))
            for (x1, y1, x2, y2), stated in zip(boxes, confidences, strict=True)
        ),
        well_formed=bool(stored.get("well_formed")),
        boxes_out_of_range=int(stored.get("boxes_out_of_range") or 0),
        notes=tuple(map(str, stored.get("notes") or ())),
    )


def _status(stored: object) -> Status:
    try:
        return Status(str(stored))
    except ValueError:
        return Status.NO_ANSWER


def _read_records(row: RunRow) -> dict[Key, Record]:
    """The records that count, by key; a file that is not there holds none."""
    with contextlib.closing(RecordIndex(row.folder / SAMPLES)) as index:
        places = index.answered | index.failed
        return {key: index.read(offset) for key, offset in places.items()}


def _changes(row: RunRow, plan: RunPlan) -> list[str]:
    """What a reader must know where the data are not those that the run was made with."""
    there = row.manifest.identity["data"]["sha256"]
    if plan.survey.sha256 == there:
        return []
    if any(sample.image.path is not None and not sample.image.path.is_file() for sample in plan.walk()):
        return ["The data are not as the run had them: images are missing"]
    return ["The data are not as the run had them: truth and images may be other than those that it was judged by"]
