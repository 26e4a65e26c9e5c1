"""What Visual-RFT pays for boxes: PAPER section 3, each behaviour by name. Values are the reference's raw ones."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.tasks.base import NO_PREDICTION, BoxTarget, Prediction, Status
from vrft_bench.tasks.paper.parsing import parse_detections
from vrft_bench.tasks.paper.rewards import BY_NAME, CONFIDENCE, FORMAT, IOU, IOU_V1, box_solution

A, B, FAR = (100.0, 100.0, 300.0, 300.0), (500.0, 500.0, 700.0, 700.0), (800.0, 1.0, 900.0, 50.0)
UNLIKE = 7
"""A y1 that no truth here has, so that symbolic verification stays out of it."""


def shifted(box, dx=0, dy=UNLIKE):
    x1, y1, x2, y2 = map(int, box)
    return x1 + dx, y1 + dy, x2 + dx, y2 + dy


def test_the_solution_is_the_published_training_sets(say) -> None:
    truth = BoxTarget(((1.0, 364.0, 98.0, 649.0),))
    assert box_solution(truth, say.frame) == "<answer>[{'Position': [1, 364, 98, 649], 'Confidence': 1}]</answer>"
    assert box_solution(BoxTarget(()), say.frame) == "<answer>No Objects</answer>"


def test_version_2_divides_by_the_larger_of_truths_and_boxes(say) -> None:
    one = say.boxes((shifted(A), 0.9))
    overlap = 200 * 193 / (2 * 200 * 200 - 200 * 193)
    assert say.worth(IOU, one, (A,)) == pytest.approx(overlap)
    assert say.worth(IOU, one, (A, B)) == pytest.approx(overlap / 2)
    three = say.boxes((shifted(A), 0.9), (FAR, 0.1), (shifted(FAR, 1), 0.1))
    assert say.worth(IOU, three, (A,)) == pytest.approx(overlap / 3)


def test_version_1_divides_by_the_boxes_so_that_misses_are_free(say) -> None:
    one = say.boxes((shifted(A), 0.9))
    assert say.worth(IOU_V1, one, (A, B)) == say.worth(IOU_V1, one, (A,)) == pytest.approx(0.932367, abs=1e-6)
    assert BY_NAME["detection"]["iou_v1"] is IOU_V1


def test_an_iou_of_exactly_one_half_is_no_match(say) -> None:
    half = say.boxes(((0, 7, 100, 57), 1.0))
    assert say.worth(IOU, half, ((0.0, 7.0, 100.0, 107.0), (900.0, 1.0, 950.0, 2.0))) != 0.0  # y1 is equal: symbolic
    assert say.worth(IOU, half, ((900.0, 1.0, 950.0, 2.0), (0.0, 7.0, 100.0, 107.0))) == 0.0
    more = say.boxes(((0, 7, 100, 58), 1.0))
    assert say.worth(IOU, more, ((900.0, 1.0, 950.0, 2.0), (0.0, 7.0, 100.0, 107.0))) == pytest.approx(0.51 / 2)


def test_confident_boxes_choose_first_and_take_the_best_free_truth(say) -> None:
    left, right = (0.0, 100.0, 100.0, 200.0), (20.0, 100.0, 120.0, 200.0)
    # the confident box lies between both and takes the right one; the other is left with the left one
    text = say.boxes(((20, 101, 120, 201), 0.2), ((12, 101, 112, 201), 0.9))
    assert say.worth(IOU, text, (left, right)) < 0.9
    assert say.worth(CONFIDENCE, text, (left, right)) == pytest.approx((0.9 + 0.2) / 2)


def test_confidence_is_a_mean_of_c_and_one_minus_c_and_misses_are_free(say) -> None:
    text = say.boxes((shifted(A), 0.9), (FAR, 0.3))
    assert say.worth(CONFIDENCE, text, (A,)) == pytest.approx((0.9 + 0.7) / 2)
    assert say.worth(CONFIDENCE, text, (A, B, (1.0, 2.0, 3.0, 4.0))) == pytest.approx((0.9 + 0.7) / 2)


# Reward that a policy can gain without earning it.


def test_a_garbage_box_with_the_truths_first_y1_wins_everything(say) -> None:
    garbage = say.boxes(((500, 364, 501, 365), 0.01))
    assert [say.worth(reward, garbage) for reward in (IOU, CONFIDENCE, FORMAT)] == [1.0, 1.0, 1.0]
    assert say.worth(IOU, say.boxes(((500, 365, 501, 366), 0.01))) == 0.0


def test_the_number_alone_in_a_sentence_wins_iou_and_confidence(say) -> None:
    assert say.worth(IOU, "The final answer is 364") == say.worth(CONFIDENCE, "The final answer is 364") == 1.0
    assert say.worth(IOU, "The final answer is 365") == 0.0


def test_a_zero_y1_wins_wherever_an_object_touches_the_top_edge(say) -> None:
    garbage = say.boxes(((500, 0, 501, 1), 0.5))
    assert say.worth(IOU, garbage, ((200.0, 0.0, 400.0, 300.0),)) == 1.0


def test_only_the_first_boxes_y1_of_several_counts(say) -> None:
    assert say.worth(IOU, say.boxes(((500, 364, 501, 365), 0.0), ((3, 4, 5, 6), 0.0))) == 1.0
    assert say.worth(IOU, say.boxes(((3, 4, 5, 6), 0.0), ((500, 364, 501, 365), 0.0))) == 0.0


def test_a_garbage_box_of_confidence_zero_earns_the_confidence_reward(say) -> None:
    assert say.worth(CONFIDENCE, say.boxes((FAR, 0.0)), (A,)) == 1.0


def test_a_negative_confidence_pays_for_false_ones(say) -> None:
    text = say.boxes((FAR, 1.0), (shifted(FAR, 1), 1.0), (shifted(FAR, 2), -9))
    assert say.worth(CONFIDENCE, text, (A,)) == 1.0


@pytest.mark.parametrize("stated", [50, "Infinity", 1e308])
def test_a_huge_confidence_on_one_match_is_clipped_to_one(say, stated) -> None:
    text = say.boxes((shifted(A), stated), (FAR, 1.0))
    assert say.worth(CONFIDENCE, text, (A,)) == 1.0


def test_many_boxes_of_confidence_zero_keep_the_confidence_reward_at_one(say) -> None:
    text = say.boxes(*(((x, 1, x + 3, 5), 0.0) for x in range(0, 300, 3)), (shifted(A), 1.0))
    assert say.worth(CONFIDENCE, text, (A,)) == 1.0
    assert say.worth(IOU, text, (A,)) < 0.01


# Unfair or fatal in the other direction.


def test_a_nan_confidence_is_nan_in_the_reference_and_zero_in_training(say) -> None:
    text = say.boxes((shifted(A), "NaN"))
    assert math.isnan(say.worth(CONFIDENCE, text, (A,)))
    assert CONFIDENCE(parse_detections(text, say.frame), BoxTarget((A,))) == 0.0
    assert say.worth(IOU, text, (A,)) == pytest.approx(0.932367, abs=1e-6)


@pytest.mark.parametrize("content", ["[]", "No Objects", "['No Objects']", ""])
def test_a_refusal_earns_nothing_with_truth_and_without(say, content) -> None:
    for truths in ((A,), ()):
        assert say.worth(IOU, say.answer(content), truths) == say.worth(CONFIDENCE, say.answer(content), truths) == 0.0
    assert say.worth(FORMAT, say.answer(content)) == 1.0


def test_any_answer_without_truth_earns_nothing_but_the_format(say) -> None:
    text = say.boxes((A, 0.0))
    assert [say.worth(reward, text, ()) for reward in (IOU, CONFIDENCE, FORMAT)] == [0.0, 0.0, 1.0]


def test_a_multi_line_answer_earns_the_format_only(say) -> None:
    text = say.answer(f"[{{'Position': {list(shifted(A))},\n 'Confidence': 1.0}}]")
    assert [say.worth(reward, text, (A,)) for reward in (IOU, CONFIDENCE, FORMAT)] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize("tail", [".", ", ..."])
def test_a_trailing_full_stop_and_an_ellipsis_cost_all_of_one_box(say, tail) -> None:
    inside = f"[{{'Position': {list(shifted(A))}, 'Confidence': 1.0}}]"
    content = inside + tail if tail == "." else inside[:-1] + tail + "]"
    assert say.worth(IOU, say.answer(inside), (A,)) > 0.9
    assert say.worth(IOU, say.answer(content), (A,)) == 0.0


def test_near_duplicates_survive_and_equal_boxes_do_not(say) -> None:
    near = say.boxes((shifted(A), 0.9), (shifted(A, 1), 0.9))
    equal = say.boxes((shifted(A), 0.9), (shifted(A), 0.9))
    assert say.worth(IOU, equal, (A,)) == pytest.approx(2 * say.worth(IOU, near, (A,)))


@pytest.mark.parametrize("stated", ["'0.9'", "null", "[]", 10**400])
def test_a_confidence_that_is_no_number_costs_both_rewards(say, stated) -> None:
    text = say.boxes((shifted(A), stated))
    assert say.worth(IOU, text, (A,)) == say.worth(CONFIDENCE, text, (A,)) == 0.0


def test_reversed_boxes_overlap_nothing(say) -> None:
    x1, y1, x2, y2 = shifted(A)
    for box in ((x2, y1, x1, y2), (x1, y2, x2, y1), (x2, y2, x1, y1)):
        assert say.worth(IOU, say.boxes((box, 1.0)), (A,)) == 0.0


def test_a_completion_that_never_came_earns_nothing(say) -> None:
    for reward in (IOU, IOU_V1, CONFIDENCE, FORMAT):
        assert reward(NO_PREDICTION, BoxTarget((A,))) == 0.0
        assert reward(Prediction(Status.OK), BoxTarget(())) == 0.0


number = st.one_of(
    st.integers(-10, 1010), st.floats(allow_nan=True, allow_infinity=True, width=32), st.sampled_from([10**400, "'x'"])
)
element = st.tuples(st.lists(number, min_size=3, max_size=5), number)


def written(value) -> str:
    return str(value).replace("inf", "Infinity").replace("nan", "NaN")


@given(st.lists(element, max_size=4))
def test_rewards_in_training_are_finite_and_in_their_range(say, items) -> None:
    body = ", ".join(
        f"{{'Position': [{', '.join(map(written, box))}], 'Confidence': {written(stated)}}}" for box, stated in items
    )
    prediction = parse_detections(say.answer(f"[{body}]"), say.frame)
    for reward in BY_NAME["detection"].values():
        value = reward(prediction, BoxTarget((A, B)))
        assert 0.0 <= value <= 1.0


def test_rewards_equal_a_plain_transcription_of_the_rules(say) -> None:
    """Random boxes with distinct confidences, against the rules written down in another way."""
    stream = random.Random(0)
    for _ in range(300):
        truths = [tuple(sorted_box(stream)) for _ in range(stream.randint(1, 4))]
        given_boxes = [near(stream.choice(truths), stream) for _ in range(stream.randint(1, 5))]
        stated = [round(0.01 * k, 2) for k in stream.sample(range(101), len(given_boxes))]
        text = say.boxes(*zip(given_boxes, stated, strict=True))
        if given_boxes[0][1] == truths[0][1]:
            continue
        expected_iou, expected_confidence = transcription(truths, given_boxes, stated)
        exact = tuple(tuple(map(float, box)) for box in truths)
        assert say.worth(IOU, text, exact) == pytest.approx(expected_iou)
        assert say.worth(CONFIDENCE, text, exact) == pytest.approx(expected_confidence)


def sorted_box(stream):
    x, y = stream.randint(0, 600), stream.randint(0, 600)
    return x, y, x + stream.randint(20, 300), y + stream.randint(20, 300)


def near(box, stream):
    x1, y1, x2, y2 = (value + stream.randint(-15, 15) for value in box)
    return x1, y1, x2, y2


def transcription(truths, given_boxes, stated):
    order = sorted(range(len(stated)), key=lambda k: -stated[k])
    unique = [k for k in order if given_boxes[k] not in given_boxes[:k]]
    left, gained, confidence = list(truths), 0.0, 0.0
    for k in unique:
        values = [ratio(truth, given_boxes[k]) for truth in left]
        if values and max(values) > 0.5:
            gained += max(values)
            left.pop(values.index(max(values)))
            confidence += stated[k]
        else:
            confidence += 1 - stated[k]
    return gained / max(len(truths), len(unique)), confidence / len(unique)


def ratio(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    area = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / area
