"""The measurement: what is spoken is found out, and nothing is concluded where nothing can be."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.harness.doctor.convention import (
    LEVEL,
    Measurement,
    Reading,
    judge,
    measure,
    read_answer,
    readings,
    registered_as,
    sign_flip,
)
from vrft_bench.harness.doctor.squares import SIZES, Question, with_small_images
from vrft_bench.harness.models.base import Completion
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.base import BoxTarget, MaskTarget
from vrft_bench.tasks.coordinates import Box, Frame, ModelProfile
from vrft_bench.tasks.profiles import ABS_ORIGINAL, INTERNVL, QWEN2_5_VL, QWEN2_VL

WAYS = readings(with_small_images(QWEN2_VL))


def spoken(asked: list[Question], ways: list[Reading], answer: Callable[[Question], Completion | str]) -> Measurement:
    """The measurement of answers that ``answer`` gives."""
    found = []
    for question in asked:
        said = answer(question)
        completion = said if isinstance(said, Completion) else Completion(question.sample.id, 0, said)
        found.append(read_answer(question, completion, ways))
    return measure(ways, found)


def gold_in(profile: ModelProfile, shift: Callable[[Box], Box] = lambda box: box) -> Callable[[Question], str]:
    """What a model says that finds every square (moved by ``shift``) and speaks as ``profile`` says."""

    def answer(question: Question) -> str:
        box = shift(question.box)
        target = BoxTarget((box,)) if question.task.family == "detection" else MaskTarget(box, ())
        frame = Frame(profile, question.sample.image.width, question.sample.image.height)
        return question.task.gold(replace(question.sample, target=target), frame)

    return answer


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_whatever_is_declared_the_spoken_convention_is_found(way: Reading, asked: list[Question]) -> None:
    for declared in WAYS:
        ways = [declared, *(other for other in WAYS if other != declared)]
        verdict = judge(spoken(asked, ways, gold_in(replace(way.profile, decimals=4))))
        assert verdict.speaks == (way.name,)
        assert verdict.finding == ("agrees" if way == declared else "contradicts")
        assert f"speaks {way.name}" in verdict.text
        assert "p < .001, 48 images" in verdict.text


def test_the_first_reading_is_the_declared_one_and_all_others_follow() -> None:
    ways = readings(QWEN2_5_VL)
    assert ways[0].profile == QWEN2_5_VL
    assert len({way.name for way in ways}) == len(ways) == 8
    assert {way.profile.factor for way in readings(INTERNVL) if way.name.startswith("abs_resized")} == {28}
    assert registered_as("norm_1000") == ["qwen2-vl", "qwen3-vl", "internvl"]
    assert registered_as("norm_1000, y first") == []


@pytest.mark.parametrize("name", PROFILES.names())
def test_a_weak_model_is_judged_as_well_as_a_strong_one(name: str, asked: list[Question]) -> None:
    """Two answers in three point anywhere, the others are off by a tenth of the square."""
    profile = with_small_images(PROFILES.get(name))
    stream = random.Random(name)
    boxes = {question.image: question.box for question in asked}

    def blurred(box: Box) -> Box:
        if stream.random() < 0.6:
            box = stream.choice([other for image, other in boxes.items() if image[0] == size])
        side = (box[2] - box[0]) * 0.1
        x, y = stream.uniform(-side, side), stream.uniform(-side, side)
        return max(box[0] + x, 0.0), max(box[1] + y, 0.0), box[2] + x, box[3] + y

    found = []
    ways = readings(profile)
    for question in asked:
        size = question.image[0]
        text = gold_in(profile, blurred)(question)
        found.append(read_answer(question, Completion(question.sample.id, 0, text), ways))
    verdict = judge(measure(ways, found))
    assert (verdict.finding, verdict.speaks) == ("agrees", (ways[0].name,))


@pytest.mark.parametrize("box", [(333, 333, 667, 667), (0, 0, 1000, 1000), (0, 0, 200, 200)])
def test_answers_that_do_not_follow_the_squares_prove_nothing(box: Box, asked: list[Question]) -> None:
    a, b, c, d = box
    answers = {
        "detection": f"<answer>[{{'Position': [{a}, {b}, {c}, {d}], 'Confidence': 1.0}}]</answer>",
        "grounding": f"<answer>({a},{b}),({c},{d})</answer>",
    }
    verdict = judge(spoken(asked, WAYS, lambda question: answers[question.task.family]))
    assert (verdict.finding, verdict.speaks) == ("cannot tell", ())
    assert "under no convention do the boxes follow the squares" in verdict.text


def test_the_right_boxes_for_other_images_prove_nothing(asked: list[Question]) -> None:
    order = list({question.image: question.box for question in asked}.items())
    stream = random.Random(0)

    def other(question: Question) -> str:
        box = stream.choice([box for image, box in order if image[0] == question.image[0]])
        return gold_in(WAYS[0].profile, lambda _: box)(question)

    assert judge(spoken(asked, WAYS, other)).finding == "cannot tell"


def test_unreadable_answers_prove_nothing_and_are_counted(asked: list[Question]) -> None:
    verdict = judge(spoken(asked, WAYS, lambda question: "<answer>It is over there."))
    assert verdict.text == "cannot tell: 0% of the answers hold a readable box (96 malformed)"
    refused = judge(spoken(asked, WAYS, lambda question: "<think>Hm.</think><answer>No Objects</answer>"))
    assert refused.text.endswith("(48 malformed, 48 refused)")


def test_conventions_that_these_images_cannot_keep_apart_are_named(asked: list[Question]) -> None:
    """Only large images tell pixels before resizing from pixels after it."""
    same = [question for question in asked if question.image[0] not in SIZES[-2:]]
    ways = readings(with_small_images(QWEN2_5_VL))
    verdict = judge(spoken(same, ways, gold_in(ways[0].profile)))
    assert (verdict.finding, set(verdict.speaks)) == ("cannot tell", {"abs_resized", "abs_original"})
    assert "several conventions fit alike, the declared one too" in verdict.text


def test_the_size_that_the_processor_really_used_goes_before_the_rule(asked: list[Question]) -> None:
    ways = readings(with_small_images(QWEN2_5_VL))

    def answer(question: Question) -> Completion:
        image = question.sample.image
        used = (image.width // 2, image.height // 2)
        frame = Frame(replace(QWEN2_5_VL, decimals=1), image.width, image.height, used)
        return Completion(question.sample.id, 0, question.task.gold(question.sample, frame), processed=used)

    found = spoken(asked, ways, answer)
    assert judge(found).speaks == ("abs_resized",)
    assert found.mean(0) > 0.99
    assert [found.seen(size) for size in SIZES] == [(width // 2, height // 2) for width, height in SIZES]


def test_a_server_that_resizes_otherwise_shows_in_the_numbers(asked: list[Question]) -> None:
    """Its boxes fit the small images; in the large ones its numbers run to the size that it resized to."""
    ways = readings(with_small_images(QWEN2_5_VL))
    server = replace(QWEN2_5_VL, max_pixels=1_000_000)
    found = spoken(asked, ways, gold_in(server))
    spans = [found.span(size) for size in SIZES]
    expected = [server.processed_size(*size) for size in SIZES]
    assert expected[-2:] == [(980, 980), (700, 1400)]
    for span, size in zip(spans, expected, strict=True):
        assert span == pytest.approx(size, rel=0.01)
    assert [found.found(0, size) for size in SIZES] == [True, True, True, True, False, False]


def test_the_figures_are_per_image_and_per_size(asked: list[Question]) -> None:
    box, elsewhere = (0.0, 0.0, 28.0, 28.0), (56.0, 28.0, 84.0, 56.0)
    first, second = asked[0], asked[2]
    two = [replace(first, box=box), replace(second, box=elsewhere)]
    found = spoken(two, readings(ABS_ORIGINAL), gold_in(ABS_ORIGINAL, lambda _: box))
    assert found.overlap[:, 0].tolist() == [1.0, 0.0]
    assert found.chance[:, 0].tolist() == [0.0, 1.0]
    assert found.mean(0) == found.mean_of_size(0, (84, 84)) == 0.5
    assert found.mean_of_size(0, (336, 336)) is None
    assert found.readable == 1.0


@given(st.lists(st.integers(-8, 8).map(lambda value: value / 8), min_size=1, max_size=9))
def test_the_sign_flip_test_agrees_with_the_exact_one(values: list[float]) -> None:
    differences = np.array(values)
    if differences.sum() <= 0.0:
        assert sign_flip(differences) == 1.0
        return
    flips = itertools.product((-1, 1), repeat=len(values))
    exact = np.mean([np.dot(signs, np.abs(differences)) >= differences.sum() - 1e-9 for signs in flips])
    assert sign_flip(differences) == pytest.approx(exact, abs=0.015)


def test_the_sign_flip_test_errs_as_often_as_it_says() -> None:
    """Under differences without a direction, one in a hundred is called significant at the level of .01."""
    stream = np.random.default_rng(1)
    chances = [sign_flip(stream.normal(size=40), seed=number) for number in range(600)]
    assert sum(chance < LEVEL for chance in chances) <= 14
    assert np.mean([chance < 0.5 for chance in chances]) == pytest.approx(0.5, abs=0.07)
