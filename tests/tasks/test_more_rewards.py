"""The rewards beside the defaults: finite, in range, worth what their formulas say; and the choice among them."""

from __future__ import annotations

import itertools
import pickle
import random
import subprocess
import sys
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.tasks import more_rewards
from vrft_bench.tasks.base import BoxTarget, Detection, MaskTarget, Prediction, Reward, Status
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.more_rewards import (
    COCO,
    EXACT_PAIRS,
    LENGTH_PENALISED,
    LRP,
    OPTIMAL_LRP,
    REGION_GIOU,
    REWARDS,
    SOFT_IOU,
    choose_rewards,
)
from vrft_bench.tasks.rewards import FORMAT, IOU, iou_reward

A, B, C = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0), (40.0, 0.0, 50.0, 10.0)
CLOSE_A = (0.0, 0.0, 10.0, 6.0)
"""IoU .6 with A."""
REFUSAL = Prediction(Status.REFUSED, well_formed=True)
NOTHING = Prediction(Status.NO_ANSWER)
BOX_REWARDS = (SOFT_IOU, COCO, LENGTH_PENALISED, LRP, OPTIMAL_LRP)
each_box_reward = pytest.mark.parametrize("reward", BOX_REWARDS, ids=lambda reward: reward.name)


def detected(*items: tuple[Box, float | None]) -> Prediction:
    return Prediction(Status.OK, detections=tuple(Detection(*item) for item in items), well_formed=True)


numbers = st.floats(0, 60)
random_boxes = st.tuples(numbers, numbers, st.floats(0, 40), st.floats(0, 40)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)
random_predictions = st.lists(st.tuples(random_boxes, st.none() | st.floats(0, 1)), max_size=6).map(
    lambda items: detected(*items)
)
random_targets = st.builds(
    BoxTarget,
    boxes=st.lists(random_boxes, max_size=5).map(tuple),
    crowd=st.lists(random_boxes, max_size=2).map(tuple),
    exhaustive=st.booleans(),
    verified=st.booleans(),
)


@given(random_predictions | st.just(REFUSAL) | st.just(NOTHING), random_targets)
def test_box_rewards_are_finite_in_range_and_deterministic(prediction: Prediction, target: BoxTarget) -> None:
    for reward in BOX_REWARDS:
        value = reward.function(prediction, target)
        assert (reward.low, reward.high) == (0.0, 1.0)
        assert -1e-12 <= value <= 1.0 + 1e-12
        assert value == reward.function(prediction, target)


@given(random_predictions, random_targets, st.randoms())
def test_box_rewards_do_not_depend_on_the_order_of_boxes(
    prediction: Prediction, target: BoxTarget, rng: random.Random
) -> None:
    shuffled = list(prediction.detections)
    rng.shuffle(shuffled)
    for reward in BOX_REWARDS:
        assert reward(detected(*shuffled), target) == pytest.approx(reward(prediction, target), abs=1e-12)


@each_box_reward
def test_they_grow_with_overlap(reward: Reward) -> None:
    """One of two boxes moves onto its object in steps of a pixel."""
    values = [
        reward(detected(((shift, 0.0, shift + 10.0, 10.0), 0.8), (B, 0.9)), BoxTarget((A, B)))
        for shift in (9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0)
    ]
    assert values == sorted(values)
    assert values[0] < values[-1] == 1.0


@given(st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(0, 10)), max_size=3, unique_by=lambda item: item[0]))
def test_moving_any_box_nearer_never_costs(items: list[tuple[Box, float]]) -> None:
    target = BoxTarget((A, B, C))
    far, near = (
        detected(*[((x1 + share * shift, y1, x2 + share * shift, y2), 0.5) for (x1, y1, x2, y2), shift in items])
        for share in (1.0, 0.5)
    )
    for reward in BOX_REWARDS:
        assert reward(near, target) >= reward(far, target) - 1e-12


@each_box_reward
def test_perfection_refusals_and_silence(reward: Reward) -> None:
    assert reward(detected((A, 1.0), (B, 1.0)), BoxTarget((B, A))) == 1.0
    assert reward(REFUSAL, BoxTarget(())) == 1.0
    assert reward(REFUSAL, BoxTarget((A,))) == 0.0
    assert reward(NOTHING, BoxTarget(())) == reward(NOTHING, BoxTarget((A,))) == 0.0
    assert reward(detected((A, 0.1)), BoxTarget(())) == 0.0
    assert reward(detected((A, 1.0)), BoxTarget((), verified=False, exhaustive=False)) == 0.0


@pytest.mark.parametrize("reward", [SOFT_IOU, COCO, LENGTH_PENALISED, LRP], ids=lambda reward: reward.name)
def test_extras_misses_and_duplicates_cost_whatever_their_confidence(reward: Reward) -> None:
    target = BoxTarget((A, B))
    right = reward(detected((A, 1.0), (B, 1.0)), target)
    assert reward(detected((A, 1.0)), target) < right
    assert reward(detected((A, 1.0), (B, 1.0), (C, 0.0)), target) < right
    assert reward(detected((A, 1.0), (B, 1.0), (A, 0.0)), target) < right


def test_soft_iou_has_no_threshold() -> None:
    third = (5.0, 0.0, 15.0, 10.0)  # IoU 1/3
    assert IOU(detected((third, 1.0)), BoxTarget((A,))) == 0.0
    assert SOFT_IOU(detected((third, 1.0)), BoxTarget((A,))) == pytest.approx(1 / 3)
    assert SOFT_IOU(detected((third, 1.0), (B, 1.0), (C, 1.0)), BoxTarget((A, B))) == pytest.approx((1 / 3 + 1) / 3)


@given(st.lists(random_boxes, min_size=1, max_size=4), st.lists(random_boxes, min_size=1, max_size=4))
def test_soft_iou_is_the_best_of_all_assignments(found: list[Box], truths: list[Box]) -> None:
    target = BoxTarget(tuple(truths))
    if not target.findable:
        return
    padded = [*range(len(found)), *([None] * len(target.findable))]
    best = max(
        sum(iou(found[i], truth) for i, truth in zip(assignment, target.findable, strict=True) if i is not None)
        for assignment in set(itertools.permutations(padded, len(target.findable)))
    )
    value = SOFT_IOU(detected(*[(box, 0.5) for box in found]), target)
    assert value == pytest.approx(best / max(len(found), len(target.findable)), abs=1e-9)


def test_soft_iou_of_a_flood_of_boxes_is_matched_greedily_and_one_to_one() -> None:
    truths = tuple((30.0 * index, 0.0, 30.0 * index + 10.0, 10.0) for index in range(80))
    flood = [((30.0 * index, 0.0, 30.0 * index + 10.0, height), 0.5) for index in range(80) for height in (5.0, 8.0)]
    assert len(truths) * len(flood) > EXACT_PAIRS
    assert SOFT_IOU(detected(*flood), BoxTarget(truths)) == pytest.approx(80 * 0.8 / 160)
    assert SOFT_IOU(detected(*flood[::-1]), BoxTarget(truths)) == pytest.approx(80 * 0.8 / 160)


@given(st.lists(random_boxes, max_size=6), st.lists(random_boxes, min_size=1, max_size=5))
def test_the_greedy_matching_takes_the_greatest_iou_first(found: list[Box], truths: list[Box]) -> None:
    pairs = sorted(
        ((iou(box, truth), -i, -j) for i, box in enumerate(found) for j, truth in enumerate(truths)), reverse=True
    )
    taken: set[tuple[str, int]] = set()
    values = []
    for overlap, i, j in pairs:
        if overlap > 0.0 and not {("box", i), ("truth", j)} & taken:
            taken |= {("box", i), ("truth", j)}
            values.append(overlap)
    assert sorted(overlap for _, _, overlap in more_rewards._greedy(found, tuple(truths))) == sorted(values)


def test_coco_is_the_mean_of_f1_over_thresholds_by_hand() -> None:
    # IoU .6 is right at .50, .55 and .60; the other at all ten; 2 TP / (2 truths + 3 boxes).
    prediction = detected((CLOSE_A, 0.1), (B, 0.9), (C, 0.5))
    assert COCO(prediction, BoxTarget((A, B))) == pytest.approx((3 * 2 * 2 / 5 + 7 * 2 * 1 / 5) / 10)


def test_length_penalised_is_ap_times_the_share_of_boxes_that_were_needed() -> None:
    # Ranked: B right, C wrong, A right up to .60. AP at .50-.60: (1 + 2/3) / 2; above: 1/2. Two truths, three boxes.
    prediction = detected((CLOSE_A, 0.1), (B, 0.9), (C, 0.5))
    expected = 2 / 3 * (3 * (1 + 2 / 3) / 2 + 7 * 1 / 2) / 10
    assert LENGTH_PENALISED(prediction, BoxTarget((A, B))) == pytest.approx(expected)
    # Of one confidence, all boxes are one step: precision 2/3 for both truths.
    tied = detected((A, 0.5), (B, 0.5), (C, 0.5))
    assert LENGTH_PENALISED(tied, BoxTarget((A, B))) == pytest.approx(2 / 3 * 2 / 3)
    assert LENGTH_PENALISED(detected((A, 1.0)), BoxTarget((A, B))) == pytest.approx(1 / 2)


def test_lrp_by_hand() -> None:
    # One box of IoU .6, one extra, one miss: 1 - (.4 / .5 + 1 + 1) / 3.
    assert LRP(detected((CLOSE_A, 0.9), (C, 0.2)), BoxTarget((A, B))) == pytest.approx(1 - 2.8 / 3)
    half = (0.0, 0.0, 10.0, 5.0)
    assert LRP(detected((half, 1.0)), BoxTarget((A,))) == 0.0


def test_optimal_lrp_leaves_out_what_is_less_sure() -> None:
    target = BoxTarget((A, B))
    assert OPTIMAL_LRP(detected((CLOSE_A, 0.9), (C, 0.2)), target) == pytest.approx(1 - (0.8 + 1) / 2)
    # With the extra above: 1 - (.8 + 1 + 1) / 3.
    assert OPTIMAL_LRP(detected((CLOSE_A, 0.2), (C, 0.9)), target) == pytest.approx(1 - 2.8 / 3)
    # A poor box (IoU .5) below an extra is better left out: (0 + 1 miss) / 2, against (0 + 1 + 1 extra) / 3.
    poor = (20.0, 0.0, 30.0, 5.0)
    assert OPTIMAL_LRP(detected((A, 0.9), (poor, 0.5), (C, 0.6)), target) == pytest.approx(1 / 2)


def test_optimal_lrp_matches_the_boxes_that_are_kept_anew() -> None:
    """An unsure box that lies better than a sure one takes its truth, and gives it back where it is left out."""
    near_a = (0.0, 0.0, 10.0, 9.0)
    assert LRP(detected((near_a, 0.9), (A, 0.1)), BoxTarget((A,))) == pytest.approx(1 - 1 / 2)
    assert OPTIMAL_LRP(detected((near_a, 0.9), (A, 0.1)), BoxTarget((A,))) == pytest.approx(1 - 0.1 / 0.5)


@given(random_predictions, random_targets)
def test_optimal_lrp_is_the_best_lrp_of_all_confidences(prediction: Prediction, target: BoxTarget) -> None:
    stated = [1.0 if item.confidence is None else item.confidence for item in prediction.detections]
    if not target.findable or not stated:
        return
    best = max(
        LRP(detected(*[item for item, own in zip(prediction.detections, stated, strict=True) if own >= least]), target)
        for least in stated
    )
    assert OPTIMAL_LRP(prediction, target) == pytest.approx(best, abs=1e-12)


def test_optimal_lrp_of_a_flood_of_boxes_is_matched_once() -> None:
    flood = [((index / 100, 0.0, 10.0 + index / 100, 10.0), 0.9 - index / 1000) for index in range(200)]
    assert len(flood) ** 2 > EXACT_PAIRS
    assert OPTIMAL_LRP(detected(*flood), BoxTarget((A,))) == 1.0
    assert OPTIMAL_LRP(detected((C, 1.0), *flood), BoxTarget((A,))) == pytest.approx(1 - 1 / 2)


@given(st.lists(st.tuples(st.sampled_from([A, CLOSE_A, B, C]), st.sampled_from([None, 0.2, 0.5, 0.9])), max_size=5))
def test_matched_once_optimal_lrp_is_the_same_where_no_two_boxes_want_one_truth(
    items: list[tuple[Box, float | None]],
) -> None:
    target = BoxTarget((A, B))
    wanted = [(0 if box in (A, CLOSE_A) else 1) for box, _ in items if box != C]
    if len(wanted) == len(set(wanted)):
        value = OPTIMAL_LRP(detected(*items), target)
        with mock.patch.object(more_rewards, "EXACT_PAIRS", -1):
            assert OPTIMAL_LRP(detected(*items), target) == value


@given(random_predictions, random_targets)
def test_optimal_lrp_is_never_below_lrp(prediction: Prediction, target: BoxTarget) -> None:
    assert OPTIMAL_LRP(prediction, target) >= LRP(prediction, target) - 1e-12


@given(random_predictions, random_targets)
def test_without_findable_truth_they_are_the_default(prediction: Prediction, target: BoxTarget) -> None:
    empty = BoxTarget((), crowd=target.crowd, exhaustive=target.exhaustive, verified=target.verified)
    for reward in BOX_REWARDS:
        assert reward(prediction, empty) == iou_reward(prediction, empty)


def test_giou_by_hand() -> None:
    target = MaskTarget(A, ())
    # Half of the box and a gap: union 100 + 100, hull 300, IoU 0: (1 + 0 - 100/300) / 2.
    assert REGION_GIOU(detected((B, None)), target) == pytest.approx((1 - 100 / 300) / 2)
    assert REGION_GIOU(detected((CLOSE_A, None)), target) == pytest.approx((1 + 0.6) / 2)
    assert REGION_GIOU(detected((A, None)), target) == 1.0
    assert REGION_GIOU(NOTHING, target) == 0.0
    assert REGION_GIOU(detected(((5.0, 5.0, 5.0, 9.0), None)), target) == 0.0


@given(random_predictions, random_boxes)
def test_giou_is_finite_and_in_range(prediction: Prediction, truth: Box) -> None:
    assert 0.0 <= REGION_GIOU.function(prediction, MaskTarget(truth, ())) <= 1.0


def test_giou_grows_as_a_box_comes_nearer() -> None:
    values = [
        REGION_GIOU(detected(((shift, 0.0, shift + 10.0, 10.0), None)), MaskTarget(A, ()))
        for shift in range(500, -1, -10)
    ]
    assert values == sorted(values)
    assert len(set(values)) == len(values)
    assert 0.0 < values[0] < 0.05
    assert values[-1] == 1.0


def test_rewards_are_picklable_and_named_once() -> None:
    for family in REWARDS.values():
        for name, reward in family.items():
            assert reward.name == name
            assert pickle.loads(pickle.dumps(reward)) == reward


def test_the_module_needs_only_the_standard_library() -> None:
    code = "import sys, vrft_bench.tasks.more_rewards; print({'numpy', 'pydantic', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_rewards_are_chosen_with_weights_and_in_order() -> None:
    rewards, weights = choose_rewards("detection", " coco=1, format = 0.5,lrp")
    assert rewards == (COCO, FORMAT, LRP)
    assert weights == {"coco": 1.0, "format": 0.5, "lrp": 1.0}
    assert list(weights) == ["coco", "format", "lrp"]
    assert choose_rewards("grounding", "giou")[0] == (REGION_GIOU,)
    assert choose_rewards("classification", "accuracy=2,format=0")[1] == {"accuracy": 2.0, "format": 0.0}


def test_the_default_rewards_of_every_task_can_be_chosen() -> None:
    from vrft_bench.tasks import get_task

    for name in ("coco_fewshot", "lisa_grounding", "pets37_fewshot"):
        task = get_task(name)
        chosen, _ = choose_rewards(task.family, ",".join(reward.name for reward in task.rewards))
        assert chosen == task.rewards


@pytest.mark.parametrize(
    ("family", "spec", "said"),
    [
        ("detection", "iuo=1", "did you mean 'iou'"),
        ("detection", "giou", "names no reward of detection"),
        ("classification", "iou", "names no reward of classification"),
        ("detection", "iou,iou=2", "twice"),
        ("detection", "iou=1,", "empty part"),
        ("detection", "", "empty part"),
        ("detection", "iou=", "not a number"),
        ("detection", "iou=-1", "not a number of 0 or more"),
        ("detection", "iou=nan", "not a number of 0 or more"),
        ("detection", "iou=inf", "not a number of 0 or more"),
        ("detection", "iou=1=2", "not a number"),
        ("detection", "iou=0,format=0", "weight 0"),
        ("detecton", "iou", "did you mean 'detection'"),
    ],
)
def test_a_wrong_choice_is_told_with_the_valid_ones(family: str, spec: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        choose_rewards(family, spec)
    assert said in caught.value.message
    assert caught.value.fix
