"""What the gallery shows: a card per question and completion, with the truth and the answer of every run.

Cards are plain lists and numbers with short keys, because thousands of them are part of the page:

* image: ``[url, width, height, why there is none]``
* card: ``id``, ``n``, ``i`` (place of its image, or -1), ``c`` (category), ``q`` (question), ``t`` (truth), ``r`` (an
  answer, or null, per run)
* truth: ``b`` (boxes), ``p`` (polygons), ``x`` (regions that do not count: boxes, then polygons), ``l`` (label)
* answer: ``t`` (what was thought, what was said), ``s`` (status), ``y`` (scores), ``b`` (boxes as x1, y1, x2, y2,
  confidence, kind, IoU), ``l`` (label), ``e`` (mistakes), ``ok``, ``f`` (finish reason), ``k`` (tokens), ``m`` (notes),
  ``g`` (mask)

Boxes are xyxy in original pixels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vrft_bench.harness.records import Key
from vrft_bench.leaderboards.report.joined import JoinedRun
from vrft_bench.leaderboards.report.masks import ShownMask, shown_mask
from vrft_bench.leaderboards.report.verdicts import KINDS, NOT_COUNTED, RIGHT, BoxVerdict, Verdict
from vrft_bench.tasks.base import (
    BoxTarget,
    ClassTarget,
    Detection,
    ImageRef,
    MaskTarget,
    Prediction,
    Sample,
    Status,
    Target,
)

TEXT_LIMITS = (1_000, 20_000)
"""Characters that a card shows of what was thought, and of what was said: at least, and at most. The run keeps all."""
TEXT_BUDGET = 40_000_000
"""Characters of all cards together, as far as the least of each allows: a page of more opens slowly."""
BOX_LIMIT = 200
"""Predicted boxes that a card draws."""
BOX_KINDS = (RIGHT, NOT_COUNTED, *KINDS)
STATUSES = tuple(status.value for status in Status)


@dataclass
class Gallery:
    """The cards, and the images that they are about, each once."""

    cards: list[dict[str, Any]]
    images: list[ImageRef]
    categories: list[str]
    _seen: dict[Any, int] = field(default_factory=dict, repr=False)

    def image(self, ref: ImageRef) -> int:
        """The place of an image."""
        source = ref.path if ref.data is None else hashlib.sha256(ref.data).digest()
        key = (source, ref.width, ref.height)
        if key not in self._seen:
            self._seen[key] = len(self.images)
            self.images.append(ref)
        return self._seen[key]


def make_gallery(
    runs: Sequence[JoinedRun], verdicts: Sequence[Mapping[Key, Verdict]], components: Sequence[str]
) -> Gallery:
    """The cards of ``runs``, in the data's order; scores are the total and ``components``."""
    gallery = Gallery([], [], [])
    least, most = TEXT_LIMITS
    limit = min(max(TEXT_BUDGET // max(sum(len(run.records) for run in runs), 1), least), most)
    categories: dict[str, int] = {}
    for key in _keys(runs):
        sample = next((run.samples[key[0]] for run in runs if key[0] in run.samples), None)
        card: dict[str, Any] = {"id": key[0], "n": key[1], "i": -1, "c": -1, "q": "", "t": {}}
        if sample is not None:
            category, card["q"] = _question(sample)
            if category is not None:
                card["c"] = categories.setdefault(category, len(categories))
            card["i"] = gallery.image(sample.image)
            card["t"] = _truth(sample.target)
        card["r"] = [
            _answer(run, key, found[key], components, limit) if key in run.records else None
            for run, found in zip(runs, verdicts, strict=True)
        ]
        gallery.cards.append(card)
    gallery.categories = list(categories)
    return gallery


def split_thought(text: str, tags: tuple[str, str]) -> tuple[str, str]:
    """What was thought, and what was said, of a completion: all up to the last closing tag is thought, and so is what
    follows an opening one that is never closed."""
    opening, closing = tags[0].lower(), tags[1].lower()
    lower = text.lower()
    if len(lower) != len(text):  # a letter whose lower case is longer would shift every place
        lower = text
    end = lower.rfind(closing) if closing else -1
    start = lower.find(opening) if opening else -1
    if end >= 0:
        begin = start + len(opening) if 0 <= start < end else 0
        return text[begin:end].strip(), text[end + len(closing) :].strip()
    if start >= 0:
        return text[start + len(opening) :].strip(), text[:start].strip()
    return "", text.strip()


def shortened(text: str, limit: int) -> str:
    """``text`` without its middle where it is longer than ``limit``: both how it began and what it came to are seen."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n\n[... {len(text) - 2 * half:,} characters are not shown ...]\n\n{text[-half:]}"


def _keys(runs: Sequence[JoinedRun]) -> list[Key]:
    """Every stored answer's key, in the order of the data where these are known."""
    order: dict[str, int] = {}
    for run in runs:
        for sample_id in run.samples:
            order.setdefault(sample_id, len(order))
        for sample_id, _ in run.records:
            order.setdefault(sample_id, len(order))
    return sorted({key for run in runs for key in run.records}, key=lambda key: (order[key[0]], key[1]))


def _question(sample: Sample) -> tuple[str | None, str]:
    """The category that cards are filtered by, and what the card is headed with."""
    if isinstance(sample.target, ClassTarget):
        return sample.target.label, ""
    category = sample.fields.get("category")
    return category, sample.fields.get("instruction") or category or ""


def _truth(target: Target) -> dict[str, Any]:
    match target:
        case ClassTarget(label=label):
            return {"l": label}
        case MaskTarget(box=box, polygons=polygons, ignore=ignore):
            truth: dict[str, Any] = {"b": [_rounded(box)], "p": [_rounded(item) for item in polygons]}
            return truth | ({"x": [[], [_rounded(item) for item in ignore]]} if ignore else {})
        case BoxTarget(boxes=boxes, crowd=crowd):
            truth = {"b": [_rounded(box) for box in boxes]}
            return truth | ({"x": [[_rounded(box) for box in crowd], []]} if crowd else {})


def _answer(run: JoinedRun, key: Key, verdict: Verdict, components: Sequence[str], limit: int) -> dict[str, Any]:
    record, prediction = run.records[key], verdict.prediction
    notes = list(prediction.notes)
    if len(prediction.detections) > BOX_LIMIT:
        notes.append(f"drawn are the first {BOX_LIMIT} of {len(prediction.detections)} boxes")
    if prediction.boxes_out_of_range:
        notes.append(f"boxes outside the declared coordinate range: {prediction.boxes_out_of_range}")
    if "error" in record:
        notes.append(shortened(str(record["error"]), limit))
    score = record.get("score") or {}
    answer: dict[str, Any] = {
        "t": [shortened(part, limit) for part in split_thought(str(record.get("text", "")), run.think_tags)],
        "s": -1 if "error" in record else STATUSES.index(prediction.status.value),
        "y": [_score(score.get(name)) for name in ("total", *components)],
        "ok": verdict.right,
    }
    pairs = list(zip(prediction.detections, verdict.boxes, strict=True))[:BOX_LIMIT]
    optional = {
        "b": [_box(found, box) for found, box in pairs],
        "l": prediction.label,
        "e": [KINDS.index(kind) for kind in verdict.errors],
        "f": record.get("finish_reason"),
        "k": record.get("completion_tokens"),
        "m": notes,
        "g": _mask(run, key, prediction),
    }
    answer.update((key, value) for key, value in optional.items() if value not in (None, []))
    return answer


def _mask(run: JoinedRun, key: Key, prediction: Prediction) -> ShownMask | None:
    sample = run.samples.get(key[0])
    if sample is None or not prediction.detections:
        return None
    return shown_mask(run.masks, sample.image, prediction.detections[0].box)


def _box(found: Detection, verdict: BoxVerdict) -> list[Any]:
    return [*_rounded(found.box), found.confidence, BOX_KINDS.index(verdict.kind), round(verdict.iou, 3)]


def _score(value: object) -> float | None:
    return round(float(value), 4) if isinstance(value, int | float) else None


def _rounded(numbers: Sequence[float]) -> list[float]:
    """To a hundredth of a pixel, whole numbers without a point."""
    return [int(value) if value == int(value) else round(value, 2) for value in numbers]
