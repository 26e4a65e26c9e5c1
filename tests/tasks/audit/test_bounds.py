"""A trick is above a bound where the whole of its interval is; else there were too few samples to tell."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.audit.battery import AuditReport, audit
from vrft_bench.tasks.audit.bounds import Bounds, Earned, Verdict, mean_earned
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.profiles import QWEN2_VL


def surely(value: float) -> Earned:
    return Earned(value, value)


@pytest.mark.parametrize(("value", "above"), [(0.3, ()), (0.30001, ("iou", "metric", "iou where present"))])
def test_what_is_above_a_bound_by_a_little_is_above_it(value: float, above: tuple[str, ...]) -> None:
    bounds = Bounds({"iou": 0.3, "metric": 0.3}, {"iou": 0.3})
    earned = {"iou": surely(value), "metric": surely(value)}
    assert bounds.verdict(earned, {"iou": surely(value)}) == Verdict(above)


@pytest.mark.parametrize("low", [0.29, 0.3, None])
def test_an_interval_that_reaches_down_to_the_bound_leaves_it_open(low: float | None) -> None:
    assert Bounds({"metric": 0.3}, {}).verdict({"metric": Earned(0.5, low)}, {}) == Verdict(unsure=("metric",))


def test_a_metric_that_is_not_defined_exceeds_nothing() -> None:
    assert Bounds({"metric": 0.3}, {}).verdict({}, {}) == Verdict()


def test_the_lower_end_of_a_mean_is_students() -> None:
    """t at .975 with three degrees of freedom is 3.182; the values have a standard deviation of sqrt(1/3)."""
    earned = mean_earned([0.0, 1.0, 0.0, 1.0])
    assert earned.value == 0.5
    assert earned.low == pytest.approx(0.5 - 3.182 * math.sqrt(1 / 3) / 2, abs=0.01)


def test_samples_with_and_without_truth_are_strata() -> None:
    """That a trick earns all of one half and nothing of the other is no doubt about its mean."""
    assert mean_earned([1.0, 1.0], [0.0, 0.0]) == surely(0.5)
    assert mean_earned([1.0, 1.0, 1.0], [0.0]).low == pytest.approx(0.75 - 3.182 * 0.25, abs=0.01)


def test_one_value_tells_nothing() -> None:
    assert mean_earned([1.0]) == Earned(1.0, None)


@given(st.lists(st.floats(-1e6, 1e6), max_size=20), st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_the_lower_end_is_never_above_the_mean(present: list[float], absent: list[float]) -> None:
    if present or absent:
        earned = mean_earned(present, absent)
        assert earned.low is None or earned.low <= earned.value


def test_a_huge_reward_is_no_error() -> None:
    assert mean_earned([0.0, 1e308]).low == -math.inf


def coco_with(shared_data: Path, folder: Path, categories: str) -> AuditReport:
    """The audit of a part of COCO val2017, under the sound rules."""
    tiny = shared_data / "tinycoco"
    if not tiny.is_dir():
        pytest.skip("needs ../shared/data/tinycoco beside the repository, which is not there")
    coco = json.loads((tiny / "annotations" / "instances_val2017.json").read_text())
    if categories == "empty":
        coco["annotations"] = []
    (folder / "truth.json").write_text(json.dumps(coco))
    spec = DataSpec(annotations=folder / "truth.json", images=tiny / "images" / "val2017")
    return audit(get_task("detection"), spec, QWEN2_VL)


def test_few_objects_among_many_questions_leave_no_bound_idle(shared_data: Path, tmp_path: Path) -> None:
    """480 questions, 37 of them with truth: over all of them the allowed mean would be 1.02 of a possible 1."""
    report = coco_with(shared_data, tmp_path, "all")
    assert (report.samples, report.with_truth) == (74, 37)
    assert report.bounds.samples["iou"] == pytest.approx(0.6)
    assert report.passed


def test_data_without_objects_cannot_be_audited(shared_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no sample with truth to audit") as caught:
        coco_with(shared_data, tmp_path, "empty")
    assert caught.value.fix == "name --categories that the images show, or another --split or data"
