"""The coordinate contract: both ways, for every shipped profile and any size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.coordinates import Frame, ModelProfile, smart_resize
from vrft_bench.tasks.detection import model_box
from vrft_bench.tasks.profiles import ABS_ORIGINAL, QWEN2_5_VL, QWEN2_VL

profiles = st.sampled_from([PROFILES.get(name) for name in PROFILES.names()])
sides = st.integers(28, 4000)


@st.composite
def frames_with_boxes(draw: st.DrawFn) -> tuple[Frame, tuple[float, float, float, float]]:
    profile, width, height = draw(profiles), draw(sides), draw(sides)
    x = sorted(draw(st.tuples(st.floats(0, width), st.floats(0, width))))
    y = sorted(draw(st.tuples(st.floats(0, height), st.floats(0, height))))
    return Frame(profile, width, height), (x[0], y[0], x[1], y[1])


@given(frames_with_boxes())
def test_a_round_trip_stays_within_half_a_model_unit(case: tuple[Frame, tuple[float, float, float, float]]) -> None:
    frame, box = case
    back = frame.to_original(frame.to_model(box))  # type: ignore[arg-type]
    unit = 10.0**-frame.profile.decimals
    for value, returned, size, limit in zip(
        box, back, (frame.width, frame.height) * 2, frame.limits() * 2, strict=True
    ):
        assert abs(value - returned) <= 0.5 * unit * size / limit * (1 + 1e-9) + 1e-9


@given(frames_with_boxes())
def test_what_is_written_is_inside_the_declared_range(case: tuple[Frame, tuple[float, float, float, float]]) -> None:
    frame, box = case
    max_x, max_y = frame.limits()
    x1, y1, x2, y2 = frame.to_model(box)
    assert 0 <= x1 <= x2 <= max_x
    assert 0 <= y1 <= y2 <= max_y


@given(frames_with_boxes())
def test_a_gold_box_always_has_area(case: tuple[Frame, tuple[float, float, float, float]]) -> None:
    frame, box = case
    x1, y1, x2, y2 = model_box(box, frame)
    assert 0 <= x1 < x2 <= frame.limits()[0]
    assert 0 <= y1 < y2 <= frame.limits()[1]


def test_each_convention_writes_its_own_numbers() -> None:
    box = (64.0, 48.0, 320.0, 240.0)
    assert Frame(QWEN2_VL, 640, 480).to_model(box) == (100, 100, 500, 500)
    assert Frame(QWEN2_5_VL, 640, 480).to_model(box) == (64, 48, 322, 238)  # the model sees 644x476
    assert Frame(QWEN2_5_VL, 640, 480, processed=(320, 240)).to_model(box) == (32, 24, 160, 120)
    assert Frame(PROFILES.get("norm_1"), 640, 480).to_model(box) == (0.1, 0.1, 0.5, 0.5)
    assert Frame(ABS_ORIGINAL, 640, 480).to_model((0.125, 48.5, 320.25, 240.004)) == (0.12, 48.5, 320.25, 240.0)


def test_the_axis_order_is_the_profiles() -> None:
    frame = Frame(ModelProfile("gemini-like", "norm_1000", axes="yxyx"), 100, 200)
    assert frame.to_model((10, 20, 30, 80)) == (100, 100, 400, 300)
    assert frame.to_original((100, 100, 400, 300)) == (10, 20, 30, 80)


@given(frames_with_boxes())
def test_frames_survive_json(case: tuple[Frame, tuple[float, float, float, float]]) -> None:
    import json

    frame, _ = case
    assert Frame.from_json(json.loads(json.dumps(frame.to_json()))) == frame


def test_unknown_profile_fields_are_refused() -> None:
    with pytest.raises(UserError, match="convension"):
        ModelProfile.from_json({"name": "x", "convension": "norm_1"})


@given(sides, sides)
def test_smart_resize_keeps_its_promises_and_is_idempotent(height: int, width: int) -> None:
    rows, columns = smart_resize(height, width, 28, 3136, 1_003_520)
    assert rows % 28 == columns % 28 == 0
    assert rows * columns <= 1_003_520
    assert rows * columns >= 3136
    assert smart_resize(rows, columns, 28, 3136, 1_003_520) == (rows, columns)


def test_an_extreme_aspect_ratio_is_refused() -> None:
    with pytest.raises(UserError, match="aspect ratio"):
        smart_resize(10, 2001, 28, 3136, 1_003_520)


@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([28, 32]))
def test_smart_resize_agrees_with_transformers(height: int, width: int, factor: int) -> None:
    qwen = pytest.importorskip("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    if max(height, width) > 200 * min(height, width):
        return
    for low, high in ((3136, 12_845_056), (65_536, 16_777_216), (3136, 401_408)):
        expected = qwen.smart_resize(height, width, factor=factor, min_pixels=low, max_pixels=high)
        assert smart_resize(height, width, factor, low, high) == expected
