"""Rewards beside the defaults, and how a user chooses among all of a family's: ``--reward iou=1,format=0.5``.

Pure functions of (prediction, target), standard library only, all in [0, 1]. Boxes are compared as the default rewards
compare them (:func:`~vrft_bench.tasks.rewards.compare`): one to one, boxes that may show something unannotated free up
to a limit. A question about a category that LVIS never verified in the image earns nothing. Where there is no truth, a
readable answer without a box that counts earns 1, and any other 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from heapq import nlargest
from operator import itemgetter
from types import MappingProxyType

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.tasks.base import BoxTarget, Detection, MaskTarget, Prediction, Reward
from vrft_bench.tasks.boxes import area, intersection, iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.matching import Match, match_boxes
from vrft_bench.tasks.rewards import (
    ACCURACY,
    CONFIDENCE,
    FORMAT,
    IOU,
    MATCH_IOU,
    REGION_IOU,
    compare,
    iou_reward,
)

COCO_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))

EXACT_PAIRS = 10_000
"""Up to so many pairs of box and truth, overlaps of any size are matched exactly."""

Matches = tuple[tuple[Detection, float], ...]
Extras = tuple[Detection, ...]


def soft_iou_reward(prediction: Prediction, target: BoxTarget) -> float:
    """Sum of IoU over the best one-to-one matching of any overlap, over max(number of truths, number of boxes).

    ``iou`` without its threshold: a box that is nearly right earns a little, so that there is something to climb where
    ``iou`` is 0 everywhere. What counts as an extra is decided at IoU .5, as for ``iou``; a box that the default rule
    sets free is not compared at all. Beyond :data:`EXACT_PAIRS` pairs of box and truth the matching is greedy, since
    the exact one would hold up a trainer. IoU itself as the thing to optimise: Yu et al. 2016 (UnitBox).
    """
    return _where_there_is_truth(prediction, target, _soft_iou)


def _soft_iou(matches: Matches, extras: Extras, target: BoxTarget) -> float:
    boxes = sorted([item.box for item, _ in matches] + [item.box for item in extras])
    truths = target.findable
    pairs = match_boxes(boxes, truths, 0.0) if len(boxes) * len(truths) <= EXACT_PAIRS else _greedy(boxes, truths)
    return math.fsum(overlap for _, _, overlap in pairs) / max(len(truths), len(boxes))


def _greedy(boxes: list[Box], truths: tuple[Box, ...]) -> list[Match]:
    """A one-to-one matching of boxes and truths that takes the greatest IoU first."""
    near: list[Match] = []
    for column, truth in enumerate(truths):
        own = ((row, column, overlap) for row, box in enumerate(boxes) if (overlap := iou(box, truth)) > 0.0)
        near += nlargest(len(truths), own, key=itemgetter(2))  # the others take fewer than that
    taken: set[int] = set()
    found: dict[int, Match] = {}
    for row, column, overlap in sorted(near, key=lambda pair: (-pair[2], pair[0])):
        if row not in taken and column not in found:
            taken.add(row)
            found[column] = row, column, overlap
    return list(found.values())


def coco_reward(prediction: Prediction, target: BoxTarget) -> float:
    """Mean over the IoU thresholds .50, .55, ..., .95 of F1 = 2 TP / (number of truths + number of boxes).

    COCO's thresholds (Lin et al. 2014) on the pairs of the one-to-one matching, without a ranking by confidence: what
    AP rewards in the boxes of one answer, with extras that cost whatever their confidence.
    """
    return _where_there_is_truth(prediction, target, _coco)


def _coco(matches: Matches, extras: Extras, target: BoxTarget) -> float:
    reached = sum(overlap >= threshold for _, overlap in matches for threshold in COCO_THRESHOLDS)
    return 2.0 * reached / (len(COCO_THRESHOLDS) * (len(target.findable) + len(matches) + len(extras)))


def length_penalised_reward(prediction: Prediction, target: BoxTarget) -> float:
    """min(1, number of truths / number of boxes) x AP of the one answer, averaged over IoU .50, .55, ..., .95.

    After the ``odLength`` reward of VLM-R1 (Shen et al. 2025, arXiv 2504.07615): AP alone lets a policy append boxes of
    low confidence at no cost. AP is the area under the interpolated precision of the answer's boxes in descending order
    of confidence; boxes of equal confidence share one step of the curve, so that their order in the text earns nothing.
    A box that states no confidence counts as 1.
    """
    return _where_there_is_truth(prediction, target, _length_penalised)


def _length_penalised(matches: Matches, extras: Extras, target: BoxTarget) -> float:
    truths, boxes = len(target.findable), len(matches) + len(extras)
    if not boxes:
        return 0.0
    found = [(_confidence(item), overlap) for item, overlap in matches] + [(_confidence(item), 0.0) for item in extras]
    found.sort(reverse=True)
    ap = math.fsum(_answer_ap(found, truths, threshold) for threshold in COCO_THRESHOLDS) / len(COCO_THRESHOLDS)
    return min(1.0, truths / boxes) * ap


def _answer_ap(found: list[tuple[float, float]], truths: int, threshold: float) -> float:
    """Area under the interpolated precision of (confidence, IoU) by descending confidence."""
    points = []
    hits = 0
    for rank, (confidence, overlap) in enumerate(found, 1):
        hits += overlap >= threshold
        if rank == len(found) or found[rank][0] < confidence:
            points.append((hits, hits / rank))
    total, best = 0.0, 0.0
    for (hits, precision), before in zip(reversed(points), [*(hits for hits, _ in points[-2::-1]), 0], strict=True):
        best = max(best, precision)
        total += best * (hits - before)
    return total / truths


def lrp_reward(prediction: Prediction, target: BoxTarget) -> float:
    """1 - LRP of the answer, whatever its confidences (localisation-recall-precision error, Oksuz et al. 2018).

    LRP = (sum over matched boxes of (1 - IoU) / (1 - .5) + extras + misses) / (matched + extras + misses). A matched
    box of IoU .5 earns nothing, so that only good boxes are worth a place in the answer.
    """
    return _where_there_is_truth(prediction, target, _lrp)


def _lrp(matches: Matches, extras: Extras, target: BoxTarget) -> float:
    cost = math.fsum((1.0 - overlap) / (1.0 - MATCH_IOU) for _, overlap in matches)
    misses = len(target.findable) - len(matches)
    return 1.0 - (cost + len(extras) + misses) / (len(matches) + len(extras) + misses)


def optimal_lrp_reward(prediction: Prediction, target: BoxTarget) -> float:
    """1 - optimal LRP: :func:`lrp_reward` of the boxes above the one confidence that is best for this answer.

    Oksuz et al. 2018 and 2021 (oLRP). It rewards a ranking that puts right boxes above wrong ones. Extras that are less
    confident than all right boxes cost nothing: pair it with a reward that counts boxes, such as ``lrp`` or ``iou``.
    Boxes are matched anew for each confidence; beyond :data:`EXACT_PAIRS` pairs of box and truth for all confidences
    together they are matched once, since more would hold up a trainer.
    """
    if not target.verified or not target.findable:
        return iou_reward(prediction, target)
    given = prediction.detections
    thresholds = {_confidence(item) for item in given}
    if len(thresholds) * len(given) * len(target.findable) > EXACT_PAIRS:
        return _optimal_of_one_matching(*compare(given, target), target)
    kept = (tuple([item for item in given if _confidence(item) >= threshold]) for threshold in thresholds)
    return max((_lrp(*compare(boxes, target), target) for boxes in kept), default=0.0)


def _optimal_of_one_matching(matches: Matches, extras: Extras, target: BoxTarget) -> float:
    kept = (
        (
            tuple(pair for pair in matches if _confidence(pair[0]) >= threshold),
            tuple(item for item in extras if _confidence(item) >= threshold),
        )
        for threshold in {_confidence(item) for item, _ in matches}
    )
    return max((_lrp(*chosen, target) for chosen in kept), default=0.0)


def region_giou_reward(prediction: Prediction, target: MaskTarget) -> float:
    """(1 + GIoU) / 2 of the predicted box with the region's bounding box; 0 where no box with an area was read.

    GIoU = IoU - (hull - union) / hull, in (-1, 1], where the hull is the least box around both (Rezatofighi et al.
    2019, arXiv 1902.09630). Unlike ``iou`` it grows as a box that misses comes nearer, which also means that a box
    anywhere earns something: below .5 while the two do not touch.
    """
    if not prediction.detections:
        return 0.0
    a, b = prediction.detections[0].box, target.box
    if area(a) <= 0.0 or area(b) <= 0.0:
        return 0.0
    union = area(a) + area(b) - intersection(a, b)
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    return (1.0 + iou(a, b) - (hull - union) / hull) / 2.0


def _where_there_is_truth(
    prediction: Prediction, target: BoxTarget, rule: Callable[[Matches, Extras, BoxTarget], float]
) -> float:
    """``rule`` on the matched and extra boxes; where there is nothing to find, what ``iou`` gives."""
    if not target.verified or not target.findable:
        return iou_reward(prediction, target)
    matches, extras = compare(prediction.detections, target)
    return rule(matches, extras, target)


def _confidence(item: Detection) -> float:
    return 1.0 if item.confidence is None else item.confidence


SOFT_IOU = Reward("soft_iou", soft_iou_reward)
COCO = Reward("coco", coco_reward)
LENGTH_PENALISED = Reward("length_penalised", length_penalised_reward)
LRP = Reward("lrp", lrp_reward)
OPTIMAL_LRP = Reward("optimal_lrp", optimal_lrp_reward)
REGION_GIOU = Reward("giou", region_giou_reward)


def _named(*rewards: Reward) -> Mapping[str, Reward]:
    return MappingProxyType({reward.name: reward for reward in rewards})


REWARDS: Mapping[str, Mapping[str, Reward]] = MappingProxyType(
    {
        "classification": _named(ACCURACY, FORMAT),
        "detection": _named(IOU, CONFIDENCE, FORMAT, SOFT_IOU, COCO, LENGTH_PENALISED, LRP, OPTIMAL_LRP),
        "grounding": _named(REGION_IOU, REGION_GIOU, FORMAT),
    }
)
"""Task family -> name -> reward, for the ``strict`` protocol; the default ones come first."""


def choose_rewards(
    family: str, spec: str, known: Mapping[str, Reward] | None = None
) -> tuple[tuple[Reward, ...], dict[str, float]]:
    """The rewards that ``spec`` names, in its order, and their weights: ``"iou=1,format=0.5"``.

    ``known`` are the choices (default: the ``strict`` ones of ``family``). A name without a weight has weight 1. Raises
    :class:`UserError` for a name that is no choice, for one that is given twice, for a weight that is not a finite
    number of 0 or more, and where every weight is 0.
    """
    known = REWARDS.get(family) if known is None else known
    if known is None:
        raise UserError(
            f"there is no task family {family!r}{did_you_mean(family, REWARDS)}",
            fix=f"valid families are {', '.join(REWARDS)}",
        )
    weights: dict[str, float] = {}
    for part in spec.split(","):
        name, given, number = (item.strip() for item in part.partition("="))
        if name not in known:
            what = f"names no reward of {family} tasks{did_you_mean(name, known)}" if name else "has an empty part"
            raise UserError(f"--reward {spec!r}: {name!r} {what}", fix=f"choose from {', '.join(known)}")
        if name in weights:
            raise UserError(f"--reward {spec!r} names {name!r} twice", fix="give each reward once, with one weight")
        weights[name] = _weight(number, spec, name) if given else 1.0
    if not any(weights.values()):
        raise UserError(f"--reward {spec!r} gives every reward the weight 0", fix="give one of them more")
    return tuple(known[name] for name in weights), weights


def _weight(text: str, spec: str, name: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value >= 0.0):
        raise UserError(
            f"--reward {spec!r}: the weight of {name!r} is {text!r}, not a number of 0 or more",
            fix=f"write {name}=1 or {name}=0.5",
        )
    return value
