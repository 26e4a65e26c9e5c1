"""What holds of every reward that can be chosen, under both protocols: a new one is held to it by being registered."""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Iterator
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vrft_bench.registry import PROFILES
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ClassTarget, MaskTarget, Reward, Target, Task
from vrft_bench.tasks.coordinates import Frame

FRAME = Frame(PROFILES.get("qwen2-vl"), 1000, 1000)
"""Thousandths of it are its pixels."""
FAMILIES = {"classification": "pets37_fewshot", "detection": "coco_fewshot", "grounding": "lisa_grounding"}
A, B = (100.0, 100.0, 300.0, 300.0), (500.0, 503.0, 700.0, 700.0)

Case = tuple[Task, Reward]


def cases(*families: str) -> list[Case]:
    """Every reward of some families, with a task that reads answers to it."""
    tasks = [get_task(FAMILIES[family], protocol) for family in families for protocol in ("strict", "paper")]
    return [(task, reward) for task in tasks for reward in task.reward_choices.values()]


def each_of(*families: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("task", "reward"), cases(*families), ids=lambda part: part.protocol if isinstance(part, Task) else part.name
    )


@pytest.fixture(autouse=True)
def _without_symbolic_verification() -> Iterator[None]:
    """It pays for a number, not for boxes; tests of its own say what it makes of the paper's rewards."""
    with mock.patch("vrft_bench.tasks.paper.rewards.verified", return_value=False):
        yield


def answer(content: str) -> str:
    return f"<think>I look.</think>\n<answer>{content}</answer>"


def boxes(*items: tuple[tuple[float, ...], float]) -> str:
    written = [f"{{'Position': {list(box)}, 'Confidence': {stated}}}" for box, stated in items]
    return answer(f"[{', '.join(written)}]")


def worth(case: Case, text: str, target: Target) -> float:
    task, reward = case
    return reward(task.parse(text, FRAME), target)


numbers = st.integers(-50, 1100) | st.floats(0, 1000).map(lambda value: round(value, 2))
odd_numbers = numbers | st.sampled_from(["NaN", "Infinity", "-Infinity", "1e400", 10**330, "'7'", "null", "true"])
elements = st.builds(
    lambda position, stated: f"{{'Position': [{', '.join(map(str, position))}], 'Confidence': {stated}}}",
    st.lists(odd_numbers, min_size=3, max_size=5) | st.tuples(numbers, numbers, numbers, numbers),
    odd_numbers | st.floats(0, 1),
)
points = st.builds("({},{})".format, *[odd_numbers | st.sampled_from([99999, 10**200, 10**300])] * 2)
contents = (
    st.lists(elements, max_size=5).map(lambda items: f"[{', '.join(items)}]")
    | st.lists(points, min_size=1, max_size=4).map(",".join)
    | st.sampled_from(["", "No Objects", "[]", "beagle", "Beagle.", "not a beagle", "agle", "]", "<answer>", "\n"])
    | st.text(max_size=20)
)
texts = contents | contents.map(answer) | st.builds("{}<answer>{}</answer>{}".format, contents, contents, contents)
truths = st.tuples(st.integers(0, 900), st.integers(0, 900), st.integers(0, 100), st.integers(0, 100)).map(
    lambda b: (float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3]))
)
targets: dict[str, st.SearchStrategy[Target]] = {
    "classification": st.sampled_from([ClassTarget("beagle"), ClassTarget("Basset_Hound", ("basset",))]),
    "detection": st.builds(
        BoxTarget,
        boxes=st.lists(truths | st.sampled_from([A, B]), max_size=4).map(tuple),
        crowd=st.lists(truths, max_size=1).map(tuple),
        exhaustive=st.booleans(),
        verified=st.booleans(),
    ),
    "grounding": truths.map(lambda b: MaskTarget(b, ((b[0], b[1], b[2], b[1], b[2], b[3]),))),
}


@each_of(*FAMILIES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_it_is_finite_in_its_range_and_always_the_same(task: Task, reward: Reward, data: st.DataObject) -> None:
    text, target = data.draw(texts), data.draw(targets[task.family])
    value = worth((task, reward), text, target)
    assert math.isfinite(value)
    assert reward.low <= value <= reward.high
    assert worth((task, reward), text, target) == value
    if task.protocol == "strict":
        raw = reward.function(task.parse(text, FRAME), target)
        assert raw == pytest.approx(value, abs=1e-12), "held in range by its formula, not by cutting"


@each_of("detection")
@given(
    items=st.lists(
        st.tuples(truths | st.sampled_from([A, B]), st.integers(0, 100)),
        max_size=6,
        unique_by=(lambda item: item[0], lambda item: item[1]),
    ),
    target=targets["detection"],
    stream=st.randoms(),
)
@settings(max_examples=60, deadline=None)
def test_the_order_of_boxes_does_not_matter(
    task: Task, reward: Reward, items: list[tuple[tuple[float, ...], int]], target: Target, stream: random.Random
) -> None:
    """Where each has a confidence of its own: by the paper's rules, equal ones choose in the order of the answer."""
    written = [(box, stated / 100) for box, stated in items]
    value = worth((task, reward), boxes(*written), target)
    stream.shuffle(written)
    assert worth((task, reward), boxes(*written), target) == pytest.approx(value, abs=1e-12)


@each_of("detection")
def test_a_box_that_comes_nearer_its_object_never_earns_less(task: Task, reward: Reward) -> None:
    texts = [
        boxes(((A[0] + far, A[1] + far, A[2] + far, A[3] + far), 0.8), (B, 0.9)) for far in (*range(150, 0, -5), 0)
    ]
    values = [worth((task, reward), text, BoxTarget((A, B))) for text in texts]
    assert values == sorted(values)
    assert values[0] < values[-1] or reward.name == "format"


@each_of("grounding")
def test_a_region_that_comes_nearer_never_earns_less(task: Task, reward: Reward) -> None:
    x1, y1, x2, y2 = map(int, A)
    texts = [answer(f"({x1 + far},{y1 + far}),({x2 + far},{y2 + far})") for far in (*range(600, 0, -20), 0)]
    target = MaskTarget(A, ((A[0], A[1], A[2], A[1], A[2], A[3]),))
    values = [worth((task, reward), text, target) for text in texts]
    assert values == sorted(values)
    assert values[0] < values[-1] or reward.name == "format"


@each_of(*FAMILIES)
def test_it_says_what_it_is_has_a_range_and_goes_to_another_process(task: Task, reward: Reward) -> None:
    assert task.reward_choices[reward.name] is reward
    assert len((reward.function.__doc__ or "").split()) > 8
    assert reward.low < reward.high
    assert pickle.loads(pickle.dumps(reward)) == reward
