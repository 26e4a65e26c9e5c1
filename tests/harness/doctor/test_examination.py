"""Whole examinations: of the bundled model, of models that speak otherwise than they claim, and of broken ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from vrft_bench.errors import ExitCode, UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.doctor import examination
from vrft_bench.harness.doctor.environment import Check
from vrft_bench.harness.doctor.examination import Examination, examine
from vrft_bench.registry import PROFILES
from vrft_bench.tasks.profiles import ABS_ORIGINAL, NORM_1, QWEN2_5_VL, QWEN2_VL, QWEN3_VL

TINY = {"model": "hf/tiny", "model_args": {"max_pixels": 7056, "device": "cpu"}, "max_tokens": 60}
"""The bundled model has only ever seen images of 84x84 pixels, and is shown every image at that size."""


def look(per_size: int = 6, **fields: Any) -> Examination:
    return examine(make_config(fields), per_size=per_size)


@pytest.mark.parametrize("name", PROFILES.names())
def test_a_perfect_model_speaks_as_its_profile_declares(name: str) -> None:
    seen = look(model="mock/gold", profile=name)
    assert seen.verdict is not None
    assert (seen.verdict.finding, seen.exit_code) == ("agrees", ExitCode.OK)
    assert seen.profile == PROFILES.get(name)
    (asked,) = seen.asked
    assert asked.found.mean(0) > 0.99
    assert len(asked.found.answers) == 72
    assert seen.notes == ()


@pytest.mark.parametrize(
    ("tongue", "claims", "speaks", "profiles"),
    [
        (QWEN2_VL, QWEN2_5_VL, "norm_1000", "qwen2-vl, qwen3-vl, internvl"),
        (QWEN2_5_VL, QWEN2_VL, "abs_resized", "qwen2.5-vl"),
        (replace(ABS_ORIGINAL, decimals=0), QWEN3_VL, "abs_original", "abs_original"),
        (NORM_1, ABS_ORIGINAL, "norm_1", "norm_1"),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_model_that_speaks_otherwise_than_it_claims_is_caught(
    tongue: Any, claims: Any, speaks: str, profiles: str, speaker: Callable[..., None]
) -> None:
    speaker(replace(tongue, max_pixels=200_704), claims)
    seen = look(model="speaker/any")
    assert seen.verdict is not None
    assert (seen.verdict.finding, seen.verdict.speaks, seen.exit_code) == (
        "contradicts",
        (speaks,),
        ExitCode.GATE_FAILED,
    )
    assert f"speaks {speaks} (IoU 1.00), not {claims.convention} as its profile declares" in seen.verdict.text
    assert seen.notes[0] == f"profiles that speak so: {profiles} (--profile NAME)"


def test_a_way_of_speaking_that_nobody_registered_is_caught_too(speaker: Callable[..., None]) -> None:
    speaker(replace(QWEN2_VL, axes="yxyx"), QWEN2_VL)
    seen = look(model="speaker/any")
    assert seen.verdict is not None
    assert seen.verdict.speaks == ("norm_1000, y first",)
    assert seen.notes[0].startswith("no registered profile speaks so; `vrft-bench new model NAME --profile-only`")


def test_a_model_without_a_profile_is_asked_in_every_way_and_told_which_fits(speaker: Callable[..., None]) -> None:
    speaker(NORM_1, None)
    seen = look(model="speaker/any")
    assert seen.verdict is not None
    assert [one.profile.name for one in seen.asked] == ["qwen2-vl", "qwen2.5-vl", "norm_1", "abs_original"]
    assert seen.profile is None
    assert seen.verdict.text.endswith("(IoU 1.00, the best of 4 ways): give --profile norm_1")
    assert seen.exit_code == ExitCode.OK


def test_the_bundled_model_speaks_thousandths_and_shows_its_prompt() -> None:
    seen = look(per_size=16, **TINY)
    assert seen.verdict is not None
    assert seen.verdict.text.startswith("speaks norm_1000, as its profile declares (IoU 0.")
    assert seen.profile == replace(QWEN2_VL, max_pixels=7056)
    assert seen.prompt_tail is not None
    assert seen.prompt_tail.endswith("</answer><|im_end|>\n<|im_start|>assistant\n")
    (asked,) = seen.asked
    assert asked.found.seen((2016, 2016)) == (84, 84)
    assert asked.found.span((2016, 2016)) == pytest.approx((1000, 1000), abs=5)
    assert 0.2 < asked.found.mean(0) < 0.7
    assert seen.exit_code == ExitCode.OK


def test_a_model_that_understands_only_its_own_questions_is_asked_them_before_it_is_judged(
    speaker: Callable[..., None],
) -> None:
    """As the bundled model, which gives no box at all when it is asked in pixels; that alone would prove nothing."""
    speaker(QWEN2_VL, QWEN2_5_VL, narrow=True)
    seen = look(model="speaker/any")
    assert seen.verdict is not None
    assert seen.asked[0].verdict.finding == "cannot tell"
    assert seen.verdict.text == (
        "speaks norm_1000, not abs_resized as its profile declares: asked in norm_1000 it finds the squares "
        "(IoU 1.00), asked in abs_resized it does not (IoU 0.00)"
    )
    assert seen.exit_code == ExitCode.GATE_FAILED


def test_what_cannot_be_told_is_no_failure() -> None:
    seen = look(model="mock/constant:No Objects", profile="qwen2-vl")
    assert seen.verdict is not None
    assert (seen.verdict.finding, seen.exit_code) == ("cannot tell", ExitCode.OK)
    assert len(seen.asked) == 4


def test_a_model_that_does_not_load_is_a_finding_with_its_reason() -> None:
    seen = look(model="hf/not-there")
    assert seen.exit_code == ExitCode.BACKEND_FAILED
    assert "no such checkpoint folder" in str(seen.problem)
    assert {"python", "memory"} <= {check.name for check in seen.checks}


def test_a_model_that_fails_on_every_question_does_not_work(speaker: Callable[..., None]) -> None:
    speaker(QWEN2_VL, QWEN2_VL, fails=lambda name: True)
    seen = look(model="speaker/any")
    assert seen.exit_code == ExitCode.BACKEND_FAILED
    assert seen.problem is not None
    assert seen.problem.message == "speaker/any answers none of 72 questions: it is tired"


def test_questions_that_fail_are_counted_and_the_others_judged(speaker: Callable[..., None]) -> None:
    speaker(QWEN2_VL, QWEN2_VL, fails=lambda name: name.endswith("/0/detection") or name.startswith("336x336/1/"))
    seen = look(model="speaker/any")
    (asked,) = seen.asked
    assert (asked.failures, len(asked.found.answers), len(asked.found.images)) == (8, 64, 35)
    assert asked.found.mean(0) > 0.99
    assert seen.notes == ("8 of 72 questions failed",)


def test_answers_that_were_cut_off_are_told_of(speaker: Callable[..., None]) -> None:
    speaker(QWEN2_VL, QWEN2_VL, longest=20)
    seen = look(model="speaker/any", max_tokens=3)
    assert seen.verdict is not None
    assert seen.verdict.text == "cannot tell: 0% of the answers hold a readable box (72 truncated)"
    assert "72 of 72 answers were cut off at --max-tokens 3" in seen.notes[0]


def test_a_broken_environment_fails_whatever_the_model_says(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [Check("packages [hf]", "failed", "torch 1.0 is not >=2.6", "pip install 'vrft-bench[hf]'")]
    monkeypatch.setattr(examination, "check_environment", lambda *args: broken)
    seen = look(model="mock/gold", profile="qwen2-vl", per_size=4)
    assert seen.verdict is not None
    assert (seen.verdict.finding, seen.exit_code) == ("agrees", ExitCode.GATE_FAILED)


def test_a_users_mistake_is_no_finding() -> None:
    for fields, said in (
        ({"model": "mock/gould"}, "did you mean 'gold'"),
        ({"model": "hf/tiny", "model_args": {"colour": 1}}, "no argument 'colour'"),
        ({"model": "mock/gold", "profile": "qwen2"}, "unknown profile 'qwen2'"),
    ):
        with pytest.raises(UserError, match=said):
            look(**fields)
