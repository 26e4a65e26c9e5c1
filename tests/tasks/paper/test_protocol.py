"""Every task under the paper's protocol: gold scores, portable rewards, and the command line."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import pytest

from vrft_bench.errors import UserError
from vrft_bench.registry import PROFILES, TASKS
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, DataSpec, Sample, Status, Task
from vrft_bench.tasks.coordinates import Frame

pytestmark = pytest.mark.usefixtures("sample_cache")

CATALOG = [entry.name for entry in TASKS if entry.source == "built in"]
COMPLETIONS = [
    "",
    "<answer></answer>",
    "<think>a</think><answer>No Objects</answer>",
    "<think>a</think><answer>[{'Position': [1, 2, 30, 40], 'Confidence': NaN}]</answer>",
    "<answer>[{'Position': [0, 0, 1000, 1000], 'Confidence': 1.0}]</answer>",
    "<answer>(1000,1000),(0,0)</answer>",
    "red circle",
    "The final answer is 364",
    "[" * 100_000,
]


def samples(task: Task, count: int = 30) -> Iterator[Sample]:
    return islice(task.load(DataSpec()).samples(), count)


@pytest.mark.parametrize("name", CATALOG)
@pytest.mark.parametrize("profile", PROFILES.names())
def test_the_gold_completion_earns_the_best_total_under_every_profile(name: str, profile: str) -> None:
    task = get_task(name, "paper")
    for sample in samples(task):
        frame = Frame(PROFILES.get(profile), sample.image.width, sample.image.height)
        prediction = task.parse(task.gold(sample, frame), frame)
        assert prediction.status in (Status.OK, Status.REFUSED)
        assert prediction.well_formed
        assert task.judge(prediction, sample.target).total == pytest.approx(task.best_total(sample))


def test_the_best_total_of_an_absent_category_is_the_format_reward_alone() -> None:
    task = get_task("coco_fewshot", "paper")
    totals = {bool(sample.target.boxes): task.best_total(sample) for sample in samples(task, 200)}  # type: ignore[union-attr]
    assert totals == {True: 3.0, False: 1.0}
    strict = get_task("coco_fewshot")
    assert {strict.best_total(sample) for sample in samples(strict, 200)} == {3.0}


@pytest.mark.parametrize("name", CATALOG)
def test_the_portable_score_equals_the_evaluators_in_threads_and_after_pickling(name: str) -> None:
    task = get_task(name, "paper")
    keys = {*(reward.name for reward in task.rewards), "total"}
    pairs, expected = [], []
    for sample in samples(task, 3):
        frame = Frame(PROFILES.get("qwen2-vl"), sample.image.width, sample.image.height)
        for text in [*COMPLETIONS, task.gold(sample, frame)]:
            pairs.append((text, task.ground_truth(sample, frame)))
            expected.append(task.judge(task.parse(text, frame), sample.target).to_json())
    assert all(set(item) == keys and all(map(math.isfinite, item.values())) for item in expected)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda pair: task.score(*pair), pairs)) == expected
    copy = pickle.loads(pickle.dumps(task))
    assert [copy.score(*pair) for pair in pairs] == expected


def test_a_ground_truth_of_the_other_protocol_is_refused() -> None:
    strict, paper = get_task("coco_fewshot"), get_task("coco_fewshot", "paper")
    (sample,) = samples(strict, 1)
    truth = strict.ground_truth(sample, Frame(PROFILES.get("qwen2-vl"), 84, 84))
    with pytest.raises(UserError, match="protocol 'strict', and is scored by protocol 'paper'"):
        paper.score("", truth)


def test_both_protocols_ask_about_the_same_truth() -> None:
    for name in CATALOG:
        both = [list(samples(get_task(name, protocol))) for protocol in ("strict", "paper")]
        assert both[0] == both[1]


def test_a_profile_changes_nothing_but_the_frame() -> None:
    task = get_task("coco_fewshot", "paper")
    sample = next(item for item in samples(task, 200) if isinstance(item.target, BoxTarget) and item.target.boxes)
    said = {
        (task.prompt(sample, profile), task.gold(sample, Frame(profile, sample.image.width, sample.image.height)))
        for profile in map(PROFILES.get, PROFILES.names())
    }
    assert len(said) == 1


def vrft_bench(folder: Path, *argv: str) -> str:
    command = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", *argv]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("name", "headline", "least"),
    [("lvis_fewshot", "ap_areas", 1.0), ("pets37_fewshot", "accuracy", 1.0), ("lisa_grounding", "miou", 0.95)],
)
def test_run_score_and_show_take_the_protocol_and_name_it(
    tmp_path: Path, name: str, headline: str, least: float
) -> None:
    said = vrft_bench(
        tmp_path, "run", "-t", name, "-m", "mock/gold", "--protocol", "paper", "-o", str(tmp_path / "runs")
    )
    assert "protocol paper" in said.splitlines()[0]
    folder = said.splitlines()[-1]
    assert "protocol paper" in vrft_bench(tmp_path, "score", folder).splitlines()[0]
    report = json.loads((Path(folder) / "metrics.json").read_text())["report"]
    assert report["headline"] == headline
    assert report["figures"][headline]["value"] >= least
    assert "protocol paper" in vrft_bench(tmp_path, "show", name, "--protocol", "paper")
