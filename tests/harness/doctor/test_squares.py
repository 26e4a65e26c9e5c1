"""The drawn images show what their truth says, and keep the conventions apart."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from vrft_bench.harness.doctor.squares import LARGEST_AREA, SIZES, Question, questions, with_small_images
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.base import Status
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Convention, Frame, ModelProfile
from vrft_bench.tasks.data.sample_scenes import COLOURS
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL, QWEN3_VL


def test_the_square_fills_its_box_and_nothing_else_has_its_colour(asked: list[Question]) -> None:
    for question in asked[::2]:
        data = question.sample.image.data
        assert data is not None
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image)
        colour = COLOURS[question.sample.fields["category"].split()[0]]
        rows, columns = np.nonzero((pixels == colour).all(axis=2))
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert box == question.box
        assert len(rows) == (box[2] - box[0]) * (box[3] - box[1])


def test_it_is_a_square_in_tall_and_wide_images_too(asked: list[Question]) -> None:
    assert {size[0] / size[1] for size in SIZES} == {0.5, 1.0, 2.0}
    for question in asked:
        x1, y1, x2, y2 = question.box
        assert x2 - x1 == y2 - y1


def test_every_image_is_asked_about_twice_and_always_the_same() -> None:
    one, other = list(questions(4)), list(questions(4))
    assert one == other
    assert Counter(question.sample.id for question in one).most_common(1)[0][1] == 1
    assert set(Counter(question.image for question in one).values()) == {2}
    assert Counter(question.task.family for question in one) == {"detection": 24, "grounding": 24}


@pytest.mark.parametrize("name", PROFILES.names())
def test_gold_answers_are_read_back_in_every_profile(name: str, asked: list[Question]) -> None:
    profile: ModelProfile = with_small_images(PROFILES.get(name))
    for question in asked:
        frame = Frame(profile, question.sample.image.width, question.sample.image.height)
        prediction = question.task.parse(question.task.gold(question.sample, frame), frame)
        assert prediction.status is Status.OK
        assert iou(prediction.detections[0].box, question.box) > 0.98


@pytest.mark.parametrize("profile", [QWEN2_VL, QWEN2_5_VL, QWEN3_VL], ids=lambda profile: profile.name)
def test_every_two_conventions_are_far_apart_in_some_size(profile: ModelProfile) -> None:
    """A unit that is one half larger or smaller puts a box somewhere else."""
    small = with_small_images(profile)
    spoken = get_args(Convention)
    for one in spoken:
        for other in spoken:
            ratios = [
                Frame(replace(small, convention=one), *size).limits()[0]
                / Frame(replace(small, convention=other), *size).limits()[0]
                for size in SIZES
            ]
            assert one == other or max(max(ratio, 1 / ratio) for ratio in ratios) > 1.5


@pytest.mark.parametrize("name", PROFILES.names())
def test_the_largest_images_are_shrunk_and_no_image_is_large_for_the_model(name: str) -> None:
    profile = with_small_images(PROFILES.get(name))
    assert profile.max_pixels == LARGEST_AREA
    if profile.factor is not None:
        for size in SIZES[-2:]:
            width, height = profile.processed_size(*size)
            assert width * height <= LARGEST_AREA < size[0] * size[1] / 4
    assert with_small_images(ModelProfile("x", "norm_1", min_pixels=500_000)).max_pixels == 1_000_000
