"""What a prediction is worth, by the ``strict`` rules. Pure functions of (prediction, target), each in [0, 1].

Standard library only. A prediction that could not be read earns nothing; a correct refusal earns everything; every
missed truth and every extra box costs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from vrft_bench.tasks.base import UNPARSABLE, BoxTarget, ClassTarget, Detection, MaskTarget, Prediction, Reward
from vrft_bench.tasks.boxes import covered, iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.matching import Match, match_boxes

MATCH_IOU = 0.5
"""A predicted box stands for a true one from this IoU on (PASCAL VOC's and COCO AP50's threshold)."""

_SEPARATORS = re.compile(r"[\W_]+")


def normalise_label(text: str) -> str:
    """Unicode NFKC, case folded, punctuation and underscores as single spaces: ``" Egg_roll."`` -> ``egg roll``."""
    return _SEPARATORS.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def format_reward(prediction: Prediction, target: object) -> float:  # noqa: ARG001 - rewards share one signature
    """1 if the completion kept the requested layout to the letter and its answer was read whole, else 0."""
    return float(prediction.well_formed)


def accuracy_reward(prediction: Prediction, target: ClassTarget) -> float:
    """1 if the answer is the label or one of its aliases after :func:`normalise_label`, else 0; never a substring."""
    if prediction.label is None:
        return 0.0
    given = normalise_label(prediction.label)
    return float(bool(given) and any(given == normalise_label(name) for name in (target.label, *target.aliases)))


def iou_reward(prediction: Prediction, target: BoxTarget) -> float:
    """Sum of IoU over the optimal one-to-one matching at IoU >= .5, over max(number of truths, number of boxes).

    Misses and extras both enter the denominator. Boxes in a crowd region, and unmatched boxes where the category is not
    exhaustively annotated, are neither gain nor loss. Without truth, an answer that gives no such box earns 1.
    """
    _, matches, extras = _compare(prediction, target)
    counted = len(matches) + len(extras)
    if not target.boxes:
        return float(prediction.status not in UNPARSABLE and counted == 0)
    return sum(match.iou for match in matches) / max(len(target.boxes), counted)


def confidence_reward(prediction: Prediction, target: BoxTarget) -> float:
    """How well the stated confidences say which boxes are right, by the Brier rule (Brier 1950), shifted per box.

    A matched box of confidence c earns 1 - (1 - c)^2, an unmatched one loses c^2; the sum is divided by the number of
    truths and held in [0, 1]. In expectation a box that is right with probability p earns 2pc - c^2, which c = p
    maximises, and a false box of confidence 0 earns nothing: extras cannot dilute it. A box without a stated confidence
    earns nothing and loses nothing. Without truth the reward is that of :func:`iou_reward`.
    """
    if not target.boxes:
        return iou_reward(prediction, target)
    detections, matches, extras = _compare(prediction, target)
    stated = [detections[match.prediction].confidence for match in matches]
    gain = sum(1.0 - (1.0 - confidence) ** 2 for confidence in stated if confidence is not None)
    loss = sum(extra.confidence**2 for extra in extras if extra.confidence is not None)
    return min(max((gain - loss) / len(target.boxes), 0.0), 1.0)


def region_iou_reward(prediction: Prediction, target: MaskTarget) -> float:
    """IoU of the predicted box with the region's bounding box; 0 where none was read."""
    return iou(prediction.detections[0].box, target.box) if prediction.detections else 0.0


def _compare(prediction: Prediction, target: BoxTarget) -> tuple[Sequence[Detection], list[Match], list[Detection]]:
    """The boxes in an order of their own, how they match the truth, and the unmatched ones that count.

    The order (the most confident first) makes rewards independent of the order in which equal boxes were written.
    """
    detections = prediction.detections
    if len(detections) > 1:
        detections = tuple(sorted(detections, key=_most_confident_first))
    matches = match_boxes([item.box for item in detections], target.boxes, MATCH_IOU) if target.boxes else []
    if not target.exhaustive:
        return detections, matches, []
    matched = {match.prediction for match in matches}
    extras = [
        item
        for index, item in enumerate(detections)
        if index not in matched and not any(covered(item.box, region) >= MATCH_IOU for region in target.crowd)
    ]
    return detections, matches, extras


def _most_confident_first(item: Detection) -> tuple[float, Box]:
    return (1.0 if item.confidence is None else -item.confidence), item.box


FORMAT = Reward("format", format_reward)
ACCURACY = Reward("accuracy", accuracy_reward)
IOU = Reward("iou", iou_reward)
CONFIDENCE = Reward("confidence", confidence_reward)
REGION_IOU = Reward("iou", region_iou_reward)
