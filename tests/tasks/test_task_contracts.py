"""What every task of the catalog promises: gold scores, portable rewards, constant keys, no heavy imports."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vrft_bench.errors import UserError
from vrft_bench.registry import PROFILES, TASKS
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import (
    BoxTarget,
    ClassTarget,
    DataSpec,
    MaskTarget,
    Prediction,
    Sample,
    Status,
    Task,
    target_from_json,
    target_to_json,
)
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.detection import DetectionTask

pytestmark = pytest.mark.usefixtures("sample_cache")

CATALOG = [entry.name for entry in TASKS if entry.source == "built in"]
COMPLETIONS = [
    "",
    "<answer></answer>",
    "<think>a</think><answer>No Objects</answer>",
    "<think>a</think><answer>[{'Position': [1, 2, 30, 40], 'Confidence': NaN}]</answer>",
    "<answer>[{'Position': [0, 0, 1000, 1000], 'Confidence': 1.0}]</answer>",
    "<answer>(0,0),(1000,1000)</answer>",
    "red circle",
    "[" * 100_000,
]


def some_samples(task: Task, count: int = 40) -> list[Sample]:
    return [sample for sample, _ in zip(task.load(DataSpec()).samples(), range(count), strict=False)]


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("profile", PROFILES.names())
def test_the_gold_completion_is_read_whole_and_scores_the_maximum(name: str, profile: str) -> None:
    task = get_task(name)
    most = float(len(task.rewards))
    for sample in some_samples(task):
        frame = Frame(PROFILES.get(profile), sample.image.width, sample.image.height)
        prediction = task.parse(task.gold(sample, frame), frame)
        assert prediction.status in (Status.OK, Status.REFUSED)
        assert prediction.well_formed
        assert prediction.boxes_out_of_range == 0
        score = task.judge(prediction, sample.target)
        # what is lost is only the rounding of coordinates to the model's unit
        assert most - 0.03 < score.total <= most


@pytest.mark.parametrize("name", CATALOG)
def test_the_portable_score_equals_the_evaluators_and_has_constant_keys(name: str) -> None:
    task = get_task(name)
    profile = PROFILES.get("qwen2.5-vl")
    keys = {*(reward.name for reward in task.rewards), "total"}
    for sample in some_samples(task, 5):
        frame = Frame(profile, sample.image.width, sample.image.height)
        truth = task.ground_truth(sample, frame)
        for text in [*COMPLETIONS, task.gold(sample, frame)]:
            portable = task.score(text, truth)
            assert portable == task.judge(task.parse(text, frame), sample.target).to_json()
            assert set(portable) == keys
            assert "reward" not in portable
            assert all(-1e9 < value < 1e9 for value in portable.values())


@pytest.mark.parametrize("name", CATALOG)
def test_an_empty_completion_earns_nothing(name: str) -> None:
    task = get_task(name)
    for sample in some_samples(task):
        frame = Frame(PROFILES.get("qwen2-vl"), sample.image.width, sample.image.height)
        assert task.score("", task.ground_truth(sample, frame))["total"] == 0.0


@pytest.mark.parametrize("name", CATALOG)
def test_prompts_name_what_is_asked_and_carry_one_image(name: str) -> None:
    task = get_task(name)
    sample = some_samples(task, 1)[0]
    for profile in PROFILES.names():
        messages = task.messages(sample, PROFILES.get(profile))
        parts = [part for message in messages for part in message["content"]]
        assert [part["type"] for part in parts] == ["image", "text"]
        asked = sample.fields.get("category") or sample.fields.get("instruction") or sample.fields["options"]
        assert asked.replace("_", " ") in parts[1]["text"].replace("_", " ")
        assert "<answer>" in parts[1]["text"]


def test_a_ground_truth_of_another_version_is_refused_naming_both() -> None:
    task = get_task("coco_fewshot")
    sample = some_samples(task, 1)[0]
    truth = task.ground_truth(sample, Frame(PROFILES.get("qwen2-vl"), 84, 84))
    with pytest.raises(UserError, match=r"version '1', and is scored by version '2'"):
        replace(task, version="2").score("", truth)
    with pytest.raises(UserError, match=r"score it with get_task\('coco_fewshot'\)"):
        get_task("lvis_fewshot").score("", truth)
    with pytest.raises(UserError, match=r"score it with get_task\('coco_fewshot', 'strict'\)"):
        get_task("coco_fewshot", "paper").score("", truth)


@pytest.mark.parametrize(
    "truth", ["", "not JSON", "[]", "null", "3", '{"task": "coco_fewshot"}', "[" * 5000, None, b"\xff", {"task": "x"}]
)
def test_what_is_no_ground_truth_is_refused(truth: object) -> None:
    with pytest.raises(UserError, match="no ground truth"):
        get_task("coco_fewshot").score("", truth)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"target": {"kind": "box", "boxes": [[1, 2, 3]]}},
        {"target": {"kind": "box", "boxes": 7}},
        {"target": []},
        {"target": {"kind": "class"}},
        {"target": {"kind": "class", "label": "a"}},
        {"target": {"kind": "box", "boxes": [[1, 2, 3, 4]], "areas": [[1]]}},
        {"target": {"kind": "box", "boxes": [[1, 2, float("nan"), 4]]}},
        {"target": {"kind": "box", "boxes": [[1, 2, 3, 4]], "exhaustive": "false"}},
        {"target": {"kind": "box", "boxes": [[1, 2, 3, 4]], "verified": None}},
        {"image_size": [0, 84]},
        {"image_size": [10**400, 84]},
        {"processed_size": [84, 10**400]},
        {"profile": {"name": "x", "convention": "abs_resized", "factor": 0}},
        {"profile": {"name": "x", "convention": "norm_1000", "think_tags": [3, "x"]}},
        {"profile": {"name": "x", "convention": "thousandths"}},
        {"image_size": "84x84"},
        {"profile": 3},
    ],
)
def test_a_ground_truth_with_damaged_values_is_refused(change: dict[str, object]) -> None:
    task = get_task("coco_fewshot")
    truth = json.loads(task.ground_truth(some_samples(task, 1)[0], Frame(PROFILES.get("qwen2-vl"), 84, 84)))
    with pytest.raises(UserError, match="no ground truth"):
        task.score("", json.dumps(truth | change))


@pytest.mark.parametrize("target", [{"label": None}, {"label": ["a"]}, {"label": "a", "aliases": [3]}])
def test_a_label_that_is_no_text_is_refused(target: dict[str, object]) -> None:
    task = get_task("pets37_fewshot")
    truth = json.loads(task.ground_truth(some_samples(task, 1)[0], Frame(PROFILES.get("qwen2-vl"), 84, 84)))
    with pytest.raises(UserError, match=r"no ground truth.*a label that is no text"):
        task.score("<answer>a</answer>", json.dumps(truth | {"target": {"kind": "class"} | target}))


@pytest.mark.parametrize("completion", [None, 3, [{"role": "assistant", "content": "x"}]])
def test_a_completion_that_is_not_text_is_refused(completion: object) -> None:
    task = get_task("coco_fewshot")
    truth = task.ground_truth(some_samples(task, 1)[0], Frame(PROFILES.get("qwen2-vl"), 84, 84))
    with pytest.raises(UserError, match="a completion is text"):
        task.score(completion, truth)  # type: ignore[arg-type]


def test_tasks_can_be_keys() -> None:
    assert len({get_task(name) for name in CATALOG} | {get_task(name) for name in CATALOG}) == len(CATALOG)


@pytest.mark.parametrize("name", ["detection", "coco_fewshot"])
def test_own_files_are_given_whole_and_apart_from_a_data_root(name: str, tmp_path: Path) -> None:
    task = get_task(name)
    with pytest.raises(UserError, match="--annotations is not given"):
        task.load(DataSpec(images=tmp_path))
    with pytest.raises(UserError, match="--images is not given"):
        task.load(DataSpec(annotations=tmp_path / "a.json"))
    with pytest.raises(UserError, match="both are given"):
        task.load(DataSpec(root=tmp_path, annotations=tmp_path / "a.json", images=tmp_path))


def test_an_unknown_protocol_is_refused() -> None:
    with pytest.raises(UserError, match=r"no protocol 'loose'(?s:.*)--protocol strict or paper"):
        get_task("coco_fewshot", "loose")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", CATALOG)
def test_a_task_goes_to_the_paper_protocol_and_back(name: str) -> None:
    task = get_task(name)
    assert task.protocol == "strict"
    paper = get_task(name, "paper")
    assert (paper.protocol, paper.name, paper.family, paper.version) == ("paper", name, task.family, task.version)
    assert type(paper) is not type(task)
    assert paper.under("paper") == paper
    assert paper.under("strict") == task


def test_a_family_with_rules_of_its_own_does_not_inherit_those_of_the_paper() -> None:
    @dataclass(frozen=True)
    class Lenient(DetectionTask):
        def parse(self, text: str, frame: Frame, *, truncated: bool = False) -> Prediction:
            return super().parse(text.lower(), frame, truncated=truncated)

    task = Lenient(name="lenient", version="1", summary="")
    assert task.under("strict") == task
    with pytest.raises(UserError, match=r"no protocol 'paper'(?s:.*)--protocol strict"):
        task.under("paper")


def test_scores_are_equal_from_threads_and_from_a_pickled_task() -> None:
    task = get_task("coco_fewshot")
    frame = Frame(PROFILES.get("qwen2-vl"), 84, 84)
    pairs = [
        (text, task.ground_truth(sample, frame))
        for sample in some_samples(task, 20)
        for text in [*COMPLETIONS[:-1], task.gold(sample, frame)]
    ]
    expected = [task.score(*pair) for pair in pairs]
    with ThreadPoolExecutor(32) as threads:
        assert list(threads.map(lambda pair: task.score(*pair), pairs)) == expected
    copy = pickle.loads(pickle.dumps(task))
    assert [copy.score(*pair) for pair in pairs] == expected


def test_a_reward_needs_the_standard_library_only() -> None:
    task = get_task("coco_fewshot")
    truth = task.ground_truth(some_samples(task, 1)[0], Frame(PROFILES.get("qwen2-vl"), 84, 84))
    code = (
        "import sys\n"
        "for name in ('numpy', 'pydantic', 'PIL', 'torch', 'typer', 'rich', 'pandas', 'pycocotools'):\n"
        "    sys.modules[name] = None\n"
        "from vrft_bench.tasks import get_task\n"
        f"assert get_task('coco_fewshot').score('', {truth!r})['total'] == 0.0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "target",
    [
        ClassTarget("a", ("b",)),
        BoxTarget(()),
        BoxTarget((), verified=False),
        BoxTarget(((1.0, 2.0, 3.0, 4.5),), (7.5,), ((0.0, 0.0, 9.0, 9.0),), (81.0,), exhaustive=False),
        MaskTarget((1.0, 2.0, 3.0, 4.0), ((1.0, 2.0, 3.0, 2.0, 3.0, 4.0),), ((0.0, 0.0, 1.0, 1.0, 0.0, 1.0),)),
    ],
)
def test_targets_survive_json(target: ClassTarget | BoxTarget | MaskTarget) -> None:
    assert target_from_json(json.loads(json.dumps(target_to_json(target)))) == target
