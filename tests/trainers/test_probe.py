"""probe: what groups of rollouts can teach, which prompts are worth it, and the manifest that train takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.config import make_config
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.mock import Noise, TextMock, gold
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.harness.records import read_records
from vrft_bench.harness.store import SAMPLES
from vrft_bench.tasks.base import Reward
from vrft_bench.tasks.profiles import QWEN2_5_VL, QWEN2_VL
from vrft_bench.trainers.data import training_rows
from vrft_bench.trainers.probe import Bounds, Verdict, probe, reward_of_being_right, write_manifest
from vrft_bench.trainers.probe_figures import Group, doublings, probe_figures

pytestmark = pytest.mark.usefixtures("sample_cache")

ACCURACY = Reward("accuracy", lambda prediction, target: 0.0)


def group(*totals: float, sample_id: str = "a") -> Group:
    return Group(sample_id, {"accuracy": totals, "total": totals})


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[..., RunPlan]:
    """Plans 4 rollouts for each of the first 24 training prompts of a task, unless told otherwise."""

    def make(task: str = "coco_fewshot", profile: Any = QWEN2_VL, **fields: Any) -> RunPlan:
        values = {
            "split": "train", "limit": 24, "samples": 4, "temperature": 1.0, "output_dir": tmp_path / "runs", **fields,
        }  # fmt: skip
        config = make_config({"task": [task], "model": "mock/noisy", **values})
        return make_plan(choose_task(task, config), profile, config)

    return make


@pytest.fixture
def noisy() -> TextMock:
    return TextMock({"name": "mock/noisy"}, Noise({}))


def test_figures_of_three_groups_by_hand() -> None:
    figures = probe_figures([group(1, 1, 0, 0), group(1, 1, 1, 1), group(0, 0, 0, 1)], ACCURACY)
    assert (figures.groups, figures.too_small) == (3, 0)
    total = figures.rewards["total"]
    assert total.mean == pytest.approx((2 / 4 + 1 + 1 / 4) / 3)
    assert total.varies.value == pytest.approx(2 / 3)
    # deviations over n - 1: sqrt(1/3), 0 and 1/2
    assert total.deviation == pytest.approx(((1 / 3) ** 0.5 + 0 + 0.5) / 3)
    by_hand = (0.5 / ((1 / 3) ** 0.5 + 1e-4), 0.0, (3 * 0.25 + 0.75) / 4 / (0.5 + 1e-4))
    assert figures.advantage == pytest.approx(fmean(by_hand))
    # of the 6 pairs in each group, 2, 6 and 3 are alike
    assert figures.flat == pytest.approx({2: (2 / 6 + 1 + 3 / 6) / 3, 4: 1 / 3})
    assert figures.passes == pytest.approx({1: (2 / 4 + 1 + 1 / 4) / 3, 2: (5 / 6 + 1 + 3 / 6) / 3, 4: 1.0})
    assert figures.histogram == (0, 0, 1, 0, 0, 1, 0, 0, 0, 1)


def test_advantages_are_those_of_the_engine() -> None:
    torch = pytest.importorskip("torch")
    totals = (2.75, 1.0, 2.75, 0.25)
    rewards = torch.tensor([totals])
    engine = (rewards - rewards.mean(dim=1)) / (rewards.std(dim=1) + 1e-4)
    assert probe_figures([group(*totals)], ACCURACY).advantage == pytest.approx(float(engine.abs().mean()), abs=1e-6)


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=2, max_size=7))
def test_flat_and_pass_chances_are_means_over_all_subsets(totals: list[float]) -> None:
    figures = probe_figures([group(*totals)], ACCURACY)
    assert list(figures.passes) == doublings(len(totals))
    for size, share in figures.flat.items():
        assert share == pytest.approx(fmean(len(set(chosen)) == 1 for chosen in combinations(totals, size)))
    for size, share in figures.passes.items():
        assert share == pytest.approx(fmean(max(chosen) >= 0.5 for chosen in combinations(totals, size)))


def test_rewards_that_a_trainer_cannot_tell_apart_are_the_same() -> None:
    third = 1 / 3
    assert group(third, third + 1e-12).is_flat()
    assert not group(third, third + 1e-4).is_flat()


def test_a_group_of_one_counts_nowhere() -> None:
    figures = probe_figures([group(1, 0), group(1)], ACCURACY)
    assert (figures.groups, figures.too_small) == (1, 1)
    assert figures.passes == {1: 0.5, 2: 1.0}


@pytest.mark.parametrize(
    ("totals", "verdict"),
    [
        ((1.0, 1.0), Verdict.ALWAYS_RIGHT),
        ((0.96, 0.94), Verdict.ALWAYS_RIGHT),
        ((0.96, 0.90), Verdict.KEPT),
        ((0.0, 0.0), Verdict.NEVER_RIGHT),
        ((0.1, 0.0), Verdict.KEPT),
        ((0.5, 0.5), Verdict.FLAT),
        ((0.5,), Verdict.TOO_SMALL),
    ],
)
def test_a_prompt_is_judged_by_the_mean_of_the_reward_of_being_right(
    totals: tuple[float, ...], verdict: Verdict
) -> None:
    assert Bounds().judge(group(*totals), ACCURACY) is verdict


@pytest.mark.parametrize(
    ("rewards", "right"),
    [(None, "iou"), ("format=1,iou=1", "iou"), ("format=1,coco=1", "coco"), ("format=1,confidence=1", "format")],
)
def test_being_right_is_not_a_matter_of_layout_or_confidence(rewards: str | None, right: str) -> None:
    config = make_config({"task": ["coco_fewshot"], "reward": rewards})
    assert reward_of_being_right(choose_task("coco_fewshot", config)).name == right


def test_bounds_are_shares_of_the_range_of_the_reward() -> None:
    wide = Reward("accuracy", lambda prediction, target: 0.0, low=-1.0, high=3.0)
    assert Bounds(0.25, 0.75).judge(group(0.0, 0.1), wide) is Verdict.KEPT
    assert Bounds(0.25, 0.75).judge(group(0.0, -0.1), wide) is Verdict.NEVER_RIGHT
    assert Bounds(0.25, 0.75).judge(group(2.0, 2.1), wide) is Verdict.ALWAYS_RIGHT
    with pytest.raises(UserError, match="no prompt would be kept"):
        Bounds(0.5, 0.5)


def test_a_probe_agrees_with_its_records(plan_of: Callable[..., RunPlan], noisy: TextMock) -> None:
    plan = plan_of()
    found = probe(plan, noisy)
    records = list(read_records(found.run.folder / SAMPLES))
    assert len(records) == 24 * 4
    by_sample: dict[str, list[dict[str, float]]] = {}
    for record in records:
        by_sample.setdefault(record["id"], []).append(record["score"])
    totals = [[score["total"] for score in scores] for scores in by_sample.values()]
    figures = found.figures
    assert list(figures.rewards) == ["iou", "confidence", "format", "total"]
    assert figures.rewards["total"].mean == pytest.approx(fmean(map(fmean, totals)))
    assert figures.rewards["total"].mean == pytest.approx(found.run.answers.reward)
    varying = sum(len(set(values)) > 1 for values in totals) / 24
    assert figures.rewards["total"].varies.value == pytest.approx(varying)
    assert 0.3 < varying < 0.9
    assert sum(figures.histogram) == 24
    order = [sample.id for sample in plan.walk()]
    assert sorted(id_ for ids in found.verdicts.values() for id_ in ids) == sorted(order)
    for verdict, ids in found.verdicts.items():
        assert list(ids) == [id_ for id_ in order if id_ in ids]
        means = [fmean(score["iou"] for score in by_sample[id_]) for id_ in ids]
        assert all((mean >= 0.95) == (verdict is Verdict.ALWAYS_RIGHT) for mean in means)
    assert found.well_formed == 1.0
    assert sum(found.statuses.values()) == pytest.approx(1.0)
    assert found.statuses["refused"] == sum(r["prediction"]["status"] == "refused" for r in records) / 96


def test_probing_again_asks_nothing_and_writes_the_same_bytes(
    plan_of: Callable[..., RunPlan], noisy: TextMock, tmp_path: Path
) -> None:
    plan = plan_of()
    first, second = probe(plan, noisy), probe(plan, noisy)
    assert (first.run.reused, second.run.reused) == (False, True)
    assert first.to_json() == second.to_json()
    write_manifest(tmp_path / "a.json", plan, first)
    write_manifest(tmp_path / "b.json", plan, second)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


class Failing(TextMock):
    """Fails on one prompt altogether, and on one rollout of another."""

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        for number, request in enumerate(requests):
            if number < 4 or number == 5:
                yield Completion(request.sample.id, request.n, "", "error", error="broken")
            else:
                yield from super().generate([request])


def test_failed_rollouts_are_left_out_of_their_groups(plan_of: Callable[..., RunPlan]) -> None:
    plan = plan_of(max_failures=0.5)
    first, second = [sample.id for sample, _ in zip(plan.walk(), range(2), strict=False)]
    found = probe(plan, Failing({"name": "failing"}, Noise({})))
    assert found.verdicts[Verdict.TOO_SMALL] == (first,)
    assert (found.figures.groups, found.figures.too_small) == (23, 1)
    assert second not in found.verdicts[Verdict.TOO_SMALL]
    assert max(found.figures.passes) == 3  # the smallest group that is left
    assert sum(found.statuses.values()) == pytest.approx(1.0)


def test_what_is_always_right_leaves_nothing_to_train_on(plan_of: Callable[..., RunPlan], tmp_path: Path) -> None:
    plan = plan_of("classification")
    found = probe(plan, TextMock({"name": "mock/gold"}, gold))
    assert len(found.verdicts[Verdict.ALWAYS_RIGHT]) == 24
    assert found.figures.advantage == 0.0
    assert found.figures.flat == {2: 1.0, 4: 1.0}
    with pytest.raises(DataError, match="24 always right"):
        write_manifest(tmp_path / "m.json", plan, found)
    assert not (tmp_path / "m.json").exists()


def test_what_cannot_be_read_is_never_right_and_counted(plan_of: Callable[..., RunPlan]) -> None:
    found = probe(plan_of("classification"), TextMock({"name": "junk"}, lambda request: "<think>"))
    assert len(found.verdicts[Verdict.NEVER_RIGHT]) == 24
    assert found.well_formed == 0.0
    assert found.statuses == {"no_answer": 1.0}
    assert found.figures.passes == {1: 0.0, 2: 0.0, 4: 0.0}


@pytest.mark.parametrize("fields", [{"samples": 1}, {"temperature": 0.0}])
def test_greedy_or_single_answers_are_no_groups(
    plan_of: Callable[..., RunPlan], noisy: TextMock, fields: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match="no groups"):
        probe(plan_of(**fields), noisy)


def test_the_manifest_selects_the_kept_prompts_of_a_training(
    plan_of: Callable[..., RunPlan], noisy: TextMock, tmp_path: Path
) -> None:
    found = probe(plan_of(), noisy)
    file = tmp_path / "m.json"
    write_manifest(file, plan_of(), found)
    kept = found.verdicts[Verdict.KEPT]
    assert 3 < len(kept) < 21
    # A training plans with other sampling, and with its own limits of the image: neither is part of what the data are.
    training = plan_of(samples=1, temperature=0.0, profile=replace(QWEN2_VL, max_pixels=401408))
    assert [row["sample_id"] for row in training_rows(training, file).rows] == list(kept)
    about = json.loads(file.read_text())["probe"]
    assert about["rewards"] == {"iou": 1.0, "confidence": 1.0, "format": 1.0}
    assert sorted(kept + tuple(id_ for ids in about["dropped"].values() for id_ in ids)) == sorted(
        sample.id for sample in plan_of().walk()
    )


def test_a_manifest_of_other_data_is_refused(plan_of: Callable[..., RunPlan], noisy: TextMock, tmp_path: Path) -> None:
    file = tmp_path / "m.json"
    write_manifest(file, plan_of(), probe(plan_of(), noisy))
    for other, name in (
        (plan_of(limit=25), "data_sha256"),
        (plan_of(categories=["red circle"]), "data_sha256"),
        (plan_of(profile=QWEN2_5_VL), "data_sha256"),
        (plan_of(split="val"), "split"),
        (plan_of("lvis_fewshot"), "task"),
    ):
        with pytest.raises(UserError, match=f"is of {name} "):
            training_rows(other, file)


def test_from_the_command_line_to_a_training(cli: Any) -> None:
    pytest.importorskip("trl")
    common = ("coco_fewshot", "--limit", "24", "--profile", "qwen2-vl")
    probed = cli("probe", *common, "--model", "mock/noisy", "--n", "4", "--manifest-out", "m.json", "--plain")
    assert probed.code == 0, probed.err
    lines = probed.out.splitlines()
    assert lines[0] == (
        "coco_fewshot  |  mock/noisy  |  split train  |  data: sample  |  24 prompts x 4 rollouts, temperature 1"
    )
    assert lines[-2] == "written: m.json"
    assert (Path(lines[-1]) / SAMPLES).is_file()
    flat = next(line for line in lines if line.startswith("flat groups of 2"))
    assert 0.2 < float(flat.split()[-1]) < 0.9

    trained = cli(
        "train", "-t", *common, "--trainer", "grpo", "--manifest", "m.json", "-o", "out",
        "--steps", "1", "--batch-size", "4", "--group-size", "4", "--max-tokens", "24",
    )  # fmt: skip
    assert trained.code == 0, trained.err
    manifest = json.loads(Path("m.json").read_text())
    assert json.loads(json.loads(Path("out/train.json").read_text())["identity"]["manifest"]) == manifest

    refused = cli("train", "-t", "coco_fewshot", "--trainer", "grpo", "--manifest", "m.json", "-o", "other")
    assert refused.code == 2
    assert "data_sha256" in refused.err
    assert not Path("other").exists()


def test_a_recipe_says_how_rollouts_are_drawn(cli: Any) -> None:
    probed = cli("probe", "coco_fewshot", "--recipe", "visual_rft", "--limit", "1", "--n", "2", "--json")
    assert probed.code == 0, probed.err
    run = json.loads((Path(json.loads(probed.out)["run"]) / "run.json").read_text())
    assert run["identity"]["sampling"] == {"max_tokens": 256, "n": 2, "seed": 0, "temperature": 1.0, "top_p": 1.0}
    assert run["identity"]["profile"]["max_pixels"] == 401408
    assert run["identity"]["data"]["split"] == "train"


def test_bounds_that_keep_nothing_are_refused_before_anything_is_asked(cli: Any, tmp_path: Path) -> None:
    outcome = cli("probe", "coco_fewshot", "--min-mean", "0.9", "--max-mean", "0.5")
    assert outcome.code == 2
    assert "--min-mean 0.9 is not below --max-mean 0.5" in outcome.err
    assert not (tmp_path / "results").exists()
