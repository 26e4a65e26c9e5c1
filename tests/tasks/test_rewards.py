"""Strict rewards: finite, in range, and every miss, extra, lie and wrong refusal costs."""

from __future__ import annotations

import itertools
import pickle
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.tasks import matching, rewards
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Detection, MaskTarget, Prediction, Reward, Status
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.matching import overlapping_pairs
from vrft_bench.tasks.rewards import ACCURACY, CONFIDENCE, FORMAT, IOU, REGION_IOU, compare, normalise_label

A, B = (0.0, 0.0, 10.0, 10.0), (20.0, 0.0, 30.0, 10.0)
REFUSAL = Prediction(Status.REFUSED, well_formed=True)
NOTHING = Prediction(Status.NO_ANSWER)


def detected(*items: tuple[tuple[float, float, float, float], float | None]) -> Prediction:
    return Prediction(Status.OK, detections=tuple(Detection(*item) for item in items), well_formed=True)


numbers = st.floats(0, 60)
random_boxes = st.tuples(numbers, numbers, st.floats(1, 40), st.floats(1, 40)).map(
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
    for reward in (IOU, CONFIDENCE, FORMAT):
        value = reward.function(prediction, target)
        assert reward.low <= value <= reward.high
        assert reward.low == (-1.0 if reward is CONFIDENCE else 0.0)
        assert value == reward(prediction, target)


@given(random_predictions, random_targets, st.randoms())
def test_box_rewards_do_not_depend_on_the_order_of_boxes(
    prediction: Prediction, target: BoxTarget, rng: random.Random
) -> None:
    shuffled = list(prediction.detections)
    rng.shuffle(shuffled)
    other = detected(*shuffled)
    assert IOU(other, target) == pytest.approx(IOU(prediction, target), abs=1e-12)
    assert CONFIDENCE(other, target) == pytest.approx(CONFIDENCE(prediction, target), abs=1e-12)


@pytest.mark.parametrize("truths", [(A,), (A, B)])
def test_of_equal_boxes_the_most_confident_one_counts_whatever_the_order(truths: tuple[Box, ...]) -> None:
    boxes = [(A, 0.9), (A, 0.1), (A, None)]
    for written in itertools.permutations(boxes):
        matches, extras = compare(detected(*written).detections, BoxTarget(truths))
        assert matches == ((Detection(A, 0.9), 1.0),)
        assert extras == (Detection(A, 0.1), Detection(A, None))


def test_perfect_boxes_earn_everything() -> None:
    prediction = detected((A, 1.0), (B, 1.0))
    target = BoxTarget((B, A))
    assert (IOU(prediction, target), CONFIDENCE(prediction, target), FORMAT(prediction, target)) == (1.0, 1.0, 1.0)


def test_iou_grows_with_overlap() -> None:
    values = [
        IOU(detected(((shift, 0.0, shift + 10.0, 10.0), 1.0)), BoxTarget((A,))) for shift in (4.0, 3.0, 2.0, 1.0, 0.0)
    ]
    assert values == sorted(values)
    assert values[0] == 0.0  # IoU 6/14 is below the threshold
    assert values[1] == pytest.approx(7 / 13)
    assert values[-1] == 1.0


def test_misses_extras_and_duplicates_cost() -> None:
    assert IOU(detected((A, 1.0)), BoxTarget((A, B))) == 0.5
    assert IOU(detected((A, 1.0), (B, 1.0)), BoxTarget((A,))) == 0.5
    assert IOU(detected((A, 1.0), (A, 1.0), (A, 1.0)), BoxTarget((A,))) == pytest.approx(1 / 3)


def test_refusals_earn_everything_where_right_and_nothing_where_wrong() -> None:
    assert (IOU(REFUSAL, BoxTarget(())), CONFIDENCE(REFUSAL, BoxTarget(()))) == (1.0, 1.0)
    assert (IOU(REFUSAL, BoxTarget((A,))), CONFIDENCE(REFUSAL, BoxTarget((A,)))) == (0.0, 0.0)
    assert (IOU(NOTHING, BoxTarget(())), CONFIDENCE(NOTHING, BoxTarget(()))) == (0.0, 0.0)
    box_where_nothing_is = detected((A, 0.0))
    assert (IOU(box_where_nothing_is, BoxTarget(())), CONFIDENCE(box_where_nothing_is, BoxTarget(()))) == (0.0, 0.0)


def test_confidence_is_scored_by_brier() -> None:
    target = BoxTarget((A,))
    assert CONFIDENCE(detected((A, 0.6)), target) == pytest.approx(1 - 0.4**2)
    assert CONFIDENCE(detected((A, 1.0), (B, 0.6)), target) == pytest.approx(1 - 0.6**2)
    assert CONFIDENCE(detected((A, None)), target) == 0.0


def test_a_confident_mistake_costs() -> None:
    assert CONFIDENCE(detected((B, 1.0)), BoxTarget((A,))) == -1.0
    assert CONFIDENCE(detected((B, 1.0)), BoxTarget(())) == -1.0
    assert CONFIDENCE(detected(*[(B, 1.0)] * 50), BoxTarget((A,))) == -1.0


def test_false_boxes_never_gain() -> None:
    target = BoxTarget((A,))
    honest = detected((A, 0.7))
    padded = detected((A, 0.7), *[(B, 0.0)] * 50)
    assert CONFIDENCE(padded, target) == CONFIDENCE(honest, target)
    wrong = [(B, 1.0)]
    assert CONFIDENCE(detected(*wrong, *[(B, 0.0)] * 50), target) == CONFIDENCE(detected(*wrong), target) == -1.0
    assert IOU(padded, target) < IOU(honest, target)
    assert CONFIDENCE(detected((B, 0.0)), target) == 0.0


@pytest.mark.parametrize("probability", [0.1, 0.37, 0.8])
def test_stating_the_true_probability_is_the_best_policy(probability: float) -> None:
    """The box is right with this probability: the reward itself, averaged, is highest where c says so."""

    def expected(confidence: float) -> float:
        right, wrong = (CONFIDENCE(detected((box, confidence)), BoxTarget((A,))) for box in (A, B))
        return probability * right + (1 - probability) * wrong

    assert max((step / 100 for step in range(101)), key=expected) == pytest.approx(probability, abs=0.005)
    assert expected(probability) > 0.0


CROWD = (15.0, 0.0, 60.0, 60.0)


def test_crowd_regions_and_unexhaustive_images_swallow_extras() -> None:
    prediction = detected((A, 1.0), (B, 1.0))
    assert IOU(prediction, BoxTarget((A,), crowd=(CROWD,))) == 1.0
    assert IOU(prediction, BoxTarget((A,), exhaustive=False)) == 1.0
    assert CONFIDENCE(prediction, BoxTarget((A,), exhaustive=False)) == 1.0
    assert IOU(detected((B, 1.0)), BoxTarget((), crowd=(CROWD,))) == 1.0


@pytest.mark.parametrize("incomplete", [BoxTarget((A,), crowd=(CROWD,)), BoxTarget((A,), exhaustive=False)])
def test_what_may_be_unannotated_cannot_be_spammed(incomplete: BoxTarget) -> None:
    """Ten boxes are free, whether they differ or not; doubling a true box never is."""
    many = [(20.0 + shift / 10, 0.0, 30.0, 10.0) for shift in range(40)]
    for spam in ([B] * 40, many):
        assert IOU(detected((A, 1.0), *[(box, 0.5) for box in spam[:10]]), incomplete) == 1.0
        assert IOU(detected((A, 1.0), *[(box, 0.5) for box in spam]), incomplete) == pytest.approx(1 / 31)
    assert IOU(detected((A, 1.0), (A, 1.0)), incomplete) == 0.5


def test_a_truth_without_area_counts_for_nothing() -> None:
    """Nothing can overlap it, so neither finding nor missing it can be asked of anyone."""
    line = (5.0, 5.0, 5.0, 9.0)
    prediction = detected((A, 1.0))
    assert (IOU(prediction, BoxTarget((A, line))), CONFIDENCE(prediction, BoxTarget((A, line)))) == (1.0, 1.0)
    assert (IOU(REFUSAL, BoxTarget((line,))), CONFIDENCE(REFUSAL, BoxTarget((line,)))) == (1.0, 1.0)


def test_a_category_that_was_never_verified_earns_nothing() -> None:
    unverified = BoxTarget((), verified=False, exhaustive=False)
    for prediction in (REFUSAL, NOTHING, detected((A, 1.0))):
        assert (IOU(prediction, unverified), CONFIDENCE(prediction, unverified)) == (0.0, 0.0)


def test_the_assignment_sees_no_more_boxes_than_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every box overlaps every truth: the worst case of the assignment, which must not hold up a trainer."""
    sizes: list[int] = []
    hungarian = matching._hungarian

    def counted(cost: list[list[float]]) -> list[int]:
        sizes.append(len(cost) * len(cost[0]))
        return hungarian(cost)

    monkeypatch.setattr(matching, "_hungarian", counted)
    truths = tuple((index / 100, 0.0, 10.0 + index / 100, 10.0) for index in range(20))
    for boxes in (500, 1000):
        spam = detected(*[((index / 1000, 0.0, 10.0 + index / 1000, 10.0), 0.5) for index in range(boxes)])
        assert 0.0 < IOU(spam, BoxTarget(truths)) <= 20 / boxes
    assert len(sizes) == 2
    assert max(sizes) <= 20 * (20 * 20 + 20)


def test_all_rewards_of_a_completion_share_one_comparison(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(boxes: list[Box], *rest: Any) -> Any:
        calls.append(len(boxes))
        return overlapping_pairs(boxes, *rest)

    monkeypatch.setattr(rewards, "overlapping_pairs", counted)
    first, second = detected((A, 1.0)), detected((A, 1.0), (B, 0.5))
    one, other = BoxTarget((A,)), BoxTarget((B,))
    for prediction, target in ((first, one), (second, one), (second, other), (first, one)):
        expected = [reward.function(prediction, target) for reward in (IOU, CONFIDENCE)]
        assert [reward(prediction, target) for reward in (IOU, CONFIDENCE)] == expected
    assert calls == [1, 2, 2, 1]


@pytest.mark.parametrize(
    "given", ["Kitchen_table", " kitchen  table.", "KITCHEN-TABLE", "ｋitchen table", "'kitchen table'"]
)
def test_a_label_matches_after_normalisation(given: str) -> None:
    assert ACCURACY(Prediction(Status.OK, label=given), ClassTarget("kitchen_table")) == 1.0


@pytest.mark.parametrize(
    "given", ["", "kitchen", "e", "kitchen table and chair", "kitchen tables", "kitсhen table", None]
)
def test_a_label_never_matches_as_a_substring_or_a_look_alike(given: str | None) -> None:
    assert ACCURACY(Prediction(Status.OK, label=given), ClassTarget("kitchen_table")) == 0.0


def test_aliases_count() -> None:
    assert ACCURACY(Prediction(Status.OK, label="sofa"), ClassTarget("couch", ("sofa",))) == 1.0


@pytest.mark.parametrize("other", ["C", "C#", "C+", "c plus plus"])
def test_symbols_tell_labels_apart(other: str) -> None:
    assert ACCURACY(Prediction(Status.OK, label="c++."), ClassTarget("C++")) == 1.0
    assert ACCURACY(Prediction(Status.OK, label=other), ClassTarget("C++")) == 0.0


def test_a_label_of_punctuation_only_matches_itself() -> None:
    assert normalise_label(" ?! ") == "?!"
    assert ACCURACY(Prediction(Status.OK, label="?!"), ClassTarget("--")) == 0.0
    assert ACCURACY(Prediction(Status.OK, label="--"), ClassTarget("--")) == 1.0


def test_region_iou_is_that_of_the_first_box() -> None:
    target = MaskTarget(A, ())
    assert REGION_IOU(detected(((0.0, 0.0, 10.0, 5.0), None), (A, None)), target) == 0.5
    assert REGION_IOU(NOTHING, target) == 0.0


def test_a_reward_that_is_not_finite_becomes_its_lowest_and_is_held_in_range() -> None:
    assert Reward("broken", lambda prediction, target: float("nan"))(NOTHING, BoxTarget(())) == 0.0
    assert Reward("infinite", lambda prediction, target: float("inf"))(NOTHING, BoxTarget(())) == 0.0
    assert Reward("large", lambda prediction, target: 7.0)(NOTHING, BoxTarget(())) == 1.0


def test_rewards_are_picklable() -> None:
    for reward in (IOU, CONFIDENCE, FORMAT, ACCURACY, REGION_IOU):
        assert pickle.loads(pickle.dumps(reward)) == reward
