from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.identity import differences, fingerprint
from vrft_bench.harness.plan import RunPlan, make_plan, resolve_profile
from vrft_bench.tasks.base import BoxTarget
from vrft_bench.tasks.profiles import ABS_ORIGINAL, QWEN2_VL

MakeConfig = Callable[..., RunConfig]


def plan_of(questions: Any, config: RunConfig, profile: Any = ABS_ORIGINAL) -> RunPlan:
    return make_plan(questions, profile, config)


def mark(plan: RunPlan, model: str = "m") -> str:
    return fingerprint(plan.identity({"name": model}))


def test_the_same_run_has_the_same_fingerprint_wherever_it_writes(questions: Any, config: MakeConfig) -> None:
    one = mark(plan_of(questions, config()))
    assert one == mark(plan_of(questions, config(output_dir="elsewhere", max_failures=1.0, fresh=True)))
    assert len(one) == 64


def test_everything_that_can_change_a_score_changes_the_fingerprint(
    questions: Any, config: MakeConfig, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("# a plugin\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "plugin.py").write_text("# another of the same name\n")
    twins = [str(plugin), str(tmp_path / "other" / "plugin.py")]
    plans = {
        "as it is": plan_of(questions, config()),
        "version": plan_of(replace(questions, version="2"), config()),
        "weights": plan_of(replace(questions, weights={"iou": 2.0}), config()),
        "size": plan_of(replace(questions, size=59), config()),
        "unasked truth": plan_of(replace(questions, extra=1), config()),
        "profile": plan_of(questions, config(), QWEN2_VL),
        "pixels": plan_of(questions, config(), replace(QWEN2_VL, max_pixels=401_408)),
        "include": plan_of(questions, config(include=str(plugin))),
        "include two of one name": plan_of(questions, config(include=twins)),
        "include in another order": plan_of(questions, config(include=twins[::-1])),
        "groups": plan_of(replace(questions, groups={"novel": ("cat",)}), config()),
        "other groups": plan_of(replace(questions, groups={"novel": ("dog",)}), config()),
        "rules": plan_of(replace(questions, rules="lvis"), config()),
        "frequency": plan_of(replace(questions, frequency={"cat": "r"}), config()),
        **{
            name: plan_of(questions, config(**{name: value}))
            for name, value in {
                "temperature": 1.0, "top_p": 0.9, "max_tokens": 8, "samples": 2, "seed": 1, "limit": 5, "split": "x",
                "ask": "present",
            }.items()
        },
    }  # fmt: skip
    marks = {name: mark(plan) for name, plan in plans.items()} | {"model": mark(plans["as it is"], "other")}
    assert len(set(marks.values())) == len(marks)


def test_an_included_file_is_known_by_name_and_content_wherever_it_lies(
    questions: Any, config: MakeConfig, tmp_path: Path
) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "plugin.py").write_text("# a plugin\n")
    plan = plan_of(questions, config(include=f"{tmp_path}/a/plugin.py,{tmp_path}/b/../a/plugin.py"))
    assert [part["name"] for part in plan.identity({})["include"]] == ["plugin.py"], "a file that is named twice"
    assert mark(plan) == mark(plan_of(questions, config(include=f"{tmp_path}/b/plugin.py")))


def test_the_groups_of_the_data_that_is_read_identify_a_run(questions: Any, config: MakeConfig) -> None:
    task = replace(questions, groups={"novel": ("cat",)}, sample_groups={"novel": ("dog",)})
    assert plan_of(task, config()).identity({})["task"]["groups"] == {"novel": ["cat"]}
    sample = replace(task, is_sample=True)
    assert plan_of(sample, config()).identity({})["task"]["groups"] == {"novel": ["dog"]}


def test_where_an_ask_map_lies_is_no_part_of_the_identity(questions: Any, config: MakeConfig) -> None:
    plan = plan_of(questions, config(ask="file:/somewhere/map.json"))
    assert plan.identity({})["data"]["ask"] == "file:"
    assert mark(plan) == mark(plan_of(questions, config(ask="file:elsewhere.json")))


@pytest.mark.parametrize("changed", ["id", "target", "fields", "width", "file size", "file name"])
def test_each_part_of_one_sample_enters_the_data_hash(
    questions: Any, config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    image = tmp_path / "a.png"
    image.write_bytes(b"12345")
    (tmp_path / "b.png").write_bytes(b"12345")
    dataset = questions.load(config().data_spec())
    first, *rest = dataset.samples()
    first = replace(first, image=replace(first.image, path=image))

    def survey(sample: Any) -> str:
        monkeypatch.setattr(type(questions), "load", lambda *_: replace(dataset, samples=lambda: iter([sample, *rest])))
        return plan_of(questions, config()).survey.sha256

    before = survey(first)
    assert survey(first) == before
    match changed:
        case "id":
            after = survey(replace(first, id="another"))
        case "target":
            after = survey(replace(first, target=BoxTarget(((0.0, 0.0, 1.0, 1.0),))))
        case "fields":
            after = survey(replace(first, fields={**first.fields, "category": "bird"}))
        case "width":
            after = survey(replace(first, image=replace(first.image, width=101)))
        case "file size":
            image.write_bytes(b"123456")
            after = survey(first)
        case _:
            after = survey(replace(first, image=replace(first.image, path=tmp_path / "b.png")))
    assert after != before


def test_differences_name_each_part_by_its_dotted_path() -> None:
    there = {"sampling": {"temperature": 0.0, "n": 1}, "model": {"a": 1}}
    here = {"sampling": {"temperature": 1.0, "n": 1}, "model": {"b": "x" * 100}}
    assert differences(there, here) == [
        "sampling.temperature: 0.0 there, 1.0 here",
        "model.a: 1 there, None here",
        f"model.b: None there, '{'x' * 56}... here",
    ]


def test_limit_takes_the_first_of_what_sample_id_leaves(questions: Any, config: MakeConfig) -> None:
    ids = [sample.id for sample in plan_of(questions, config()).walk()]
    assert ids[:3] == ["0:cat", "0:dog", "1:cat"]
    assert [sample.id for sample in plan_of(questions, config(limit=3)).walk()] == ids[:3]
    chosen = plan_of(questions, config(sample_id=["7:dog", "2:cat"]))
    assert [sample.id for sample in chosen.walk()] == ["2:cat", "7:dog"]
    assert chosen.completions == 2


def test_unasked_truth_counts_only_over_the_whole_split(questions: Any, config: MakeConfig) -> None:
    task = replace(questions, extra=2)
    assert [sample.id for sample in plan_of(task, config()).unasked()] == ["30:cat", "30:dog"]
    assert list(plan_of(task, config(limit=60)).unasked()) == []
    assert list(plan_of(task, config(sample_id="0:cat")).unasked()) == []


def test_an_unknown_sample_id_names_the_nearest(questions: Any, config: MakeConfig) -> None:
    with pytest.raises(UserError, match="unknown sample id '7:dgo'; did you mean '7:dog'"):
        plan_of(questions, config(sample_id="7:dgo"))


def test_nothing_selected_is_an_error(questions: Any, config: MakeConfig) -> None:
    with pytest.raises(UserError, match="no sample is selected"):
        plan_of(replace(questions, size=0), config())


def test_two_samples_of_one_id_are_refused(questions: Any, config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = questions.load(config().data_spec())
    twice = replace(dataset, samples=lambda: (sample for _ in range(2) for sample in dataset.samples()))
    monkeypatch.setattr(type(questions), "load", lambda *_: twice)
    with pytest.raises(UserError, match="have the same id"):
        plan_of(questions, config())


def test_the_flag_wins_over_the_checkpoint_and_without_either_the_profiles_are_named(
    config: MakeConfig, answers: Any
) -> None:
    assert resolve_profile(config(), answers(profile=QWEN2_VL)) == QWEN2_VL
    assert resolve_profile(config(profile="abs_original"), answers(profile=QWEN2_VL)) == ABS_ORIGINAL
    with pytest.raises(UserError, match="no coordinate profile") as caught:
        resolve_profile(config(), answers(profile=None))
    assert "qwen2.5-vl" in (caught.value.fix or "")
    with pytest.raises(UserError, match="unknown profile 'qwen2vl'; did you mean 'qwen2-vl'"):
        resolve_profile(config(profile="qwen2vl"), answers())


def test_content_is_the_same_for_models_that_speak_different_coordinates(questions: Any, config: MakeConfig) -> None:
    pixels, thousandths = (plan_of(questions, config(), profile).survey for profile in (ABS_ORIGINAL, QWEN2_VL))
    assert pixels.content == thousandths.content
    other = plan_of(replace(questions, size=59), config()).survey
    assert other.content["data"] != pixels.content["data"]
    missed = plan_of(replace(questions, extra=1), config()).survey
    assert missed.content["data"] != pixels.content["data"]
    assert missed.content["prompts"] == pixels.content["prompts"]
