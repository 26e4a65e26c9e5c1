"""What a prediction is worth, by the ``strict`` rules: pure functions of (prediction, target).

Standard library only. A prediction that could not be read earns nothing; a correct refusal earns everything; every
missed truth and every extra box costs. All lie in [0, 1], but for ``confidence``, which goes down to -1: a proper rule
has to charge a confident mistake. A question about a category that LVIS never verified in the image earns nothing.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache
from itertools import accumulate

from vrft_bench.tasks.base import UNPARSABLE, BoxTarget, ClassTarget, Detection, MaskTarget, Prediction, Reward
from vrft_bench.tasks.boxes import covered, iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.matching import are_one_to_one, match_boxes, overlapping_pairs

MATCH_IOU = 0.5
"""A predicted box stands for a true one from this IoU on (PASCAL VOC's and COCO AP50's threshold)."""

FREE_BOXES = 10
"""How many unmatched boxes an answer may give at no cost where truth is incomplete (crowd regions, categories that are
not exhaustively annotated). Enough for an honest answer, too few to cover an image with guesses."""

Matches = tuple[tuple[Detection, float], ...]
Compared = tuple[Matches, tuple[Detection, ...], int]

_KEPT_PUNCTUATION = frozenset("#%&*@")


@lru_cache(maxsize=4096)
def normalise_label(text: str) -> str:
    """Unicode NFKC, case folded, punctuation and underscores as single spaces: ``" Egg_roll."`` -> ``egg roll``.

    Symbols and marks that tell names apart stay (``C++`` and ``C#`` are not ``C``), and so does a name that has nothing
    else.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    spaced = "".join(
        " " if unicodedata.category(sign)[0] == "P" and sign not in _KEPT_PUNCTUATION else sign for sign in folded
    )
    return " ".join(spaced.split()) or " ".join(folded.split())


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

    Misses and extras both enter the denominator. Without truth, an answer that gives no box that counts earns 1. What
    counts as an extra where truth is incomplete is decided by :func:`compare`.
    """
    matches, extras, truths = _compared(prediction.detections, target)
    if not target.verified:
        return 0.0
    if not truths:
        return float(prediction.status not in UNPARSABLE and not extras)
    return sum([overlap for _, overlap in matches]) / max(truths, len(matches) + len(extras))


def confidence_reward(prediction: Prediction, target: BoxTarget) -> float:
    """How well the stated confidences say which boxes are right, in [-1, 1]: Brier's rule (Brier 1950), shifted.

    A matched box of confidence c earns 1 - (1 - c)^2, an extra one loses c^2; the sum is divided by the number of
    truths (1 where there are none) and held at -1 or above. In expectation a box that is right with probability p
    brings 2pc - c^2, which c = p maximises and which is then never negative: for a given number of truths, stating the
    true probability is the best policy. The number of boxes is no divisor, so extras can dilute neither gain nor loss:
    a false box of confidence 0 changes nothing. A box without a stated confidence neither earns nor loses. Without
    truth, an answer that gives no box that counts earns 1.
    """
    matches, extras, truths = _compared(prediction.detections, target)
    if not truths and not extras:
        return iou_reward(prediction, target)
    if not target.verified:
        return 0.0
    gain = sum([1.0 - (1.0 - stated) ** 2 for (_, stated), _ in matches if stated is not None])
    loss = sum([stated**2 for _, stated in extras if stated is not None])
    return max((gain - loss) / max(truths, 1), -1.0)


def region_iou_reward(prediction: Prediction, target: MaskTarget) -> float:
    """IoU of the predicted box with the region's bounding box; 0 where none was read."""
    return iou(prediction.detections[0].box, target.box) if prediction.detections else 0.0


def compare(detections: tuple[Detection, ...], target: BoxTarget) -> tuple[Matches, tuple[Detection, ...]]:
    """The boxes that stand for a truth, each with its IoU, and the extra ones that cost.

    The most confident boxes come first, so that the result does not depend on the order in which equal boxes were
    written. Where truth is incomplete (inside crowd regions, or anywhere if the category is not exhaustively annotated)
    up to :data:`FREE_BOXES` unmatched boxes are free, unless they double a true box.
    """
    matches, extras, _ = _compared(detections, target)
    return matches, extras


_last: tuple[tuple[Detection, ...] | None, BoxTarget | None, Compared] = (None, None, ((), (), 0))
"""The last question that was compared, since every reward of a completion asks for the same. It is replaced as a whole,
so threads that interleave compute again and never mix."""


def _compared(detections: tuple[Detection, ...], target: BoxTarget) -> Compared:
    """:func:`compare`, and the number of truths that can be found."""
    global _last
    of_detections, of_target, result = _last
    if of_detections is not detections or of_target is not target:
        result = _compare(detections, target)
        _last = detections, target, result
    return result


def _compare(detections: tuple[Detection, ...], target: BoxTarget) -> Compared:
    truths = target.findable
    pairs = overlapping_pairs([box for box, _ in detections], truths, MATCH_IOU)
    if not are_one_to_one(pairs):
        # boxes compete: the most confident first, so that equal ones do not depend on the order they were written in
        detections = tuple(sorted(detections, key=_most_confident_first))
        pairs = match_boxes([box for box, _ in detections], truths, MATCH_IOU)
    extras = []
    if len(pairs) < len(detections):
        matched = {prediction for prediction, _, _ in pairs}
        extras = [item for index, item in enumerate(detections) if index not in matched]
        extras.sort(key=_most_confident_first)
    if extras and (target.crowd or not target.exhaustive):
        excused = [_may_be_unannotated(item.box, target) for item in extras]
        extras = [
            item
            for item, free, before in zip(extras, excused, accumulate(excused, initial=0), strict=False)
            if not (free and before < FREE_BOXES)
        ]
    return tuple([(detections[prediction], overlap) for prediction, _, overlap in pairs]), tuple(extras), len(truths)


def _may_be_unannotated(box: Box, target: BoxTarget) -> bool:
    """Whether ``box`` lies where an object need not be annotated, and doubles none that is."""
    if target.exhaustive and not any(covered(box, region) >= MATCH_IOU for region in target.crowd):
        return False
    return not any(iou(box, truth) >= MATCH_IOU for truth in target.boxes)


def _most_confident_first(item: Detection) -> tuple[float, Box]:
    return (1.0 if item.confidence is None else -item.confidence), item.box


FORMAT = Reward("format", format_reward)
ACCURACY = Reward("accuracy", accuracy_reward)
IOU = Reward("iou", iou_reward)
CONFIDENCE = Reward("confidence", confidence_reward, low=-1.0)
REGION_IOU = Reward("iou", region_iou_reward)
