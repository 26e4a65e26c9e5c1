from __future__ import annotations

import hashlib
import shutil
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import BackendError, DataError, UserError
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models import load_backend
from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.mock import mock_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.tasks.base import BoxTarget, ClassTarget, ImageRef, MaskTarget, Sample, Status, Target, Task
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import ModelProfile
from vrft_bench.tasks.detection import DetectionTask
from vrft_bench.tasks.grounding import GroundingTask
from vrft_bench.tasks.profiles import ABS_ORIGINAL, QWEN2_5_VL, QWEN2_VL

MakeConfig = Callable[..., RunConfig]
DETECTION = DetectionTask("detection", "1", "")
TASKS_AND_TARGETS: list[tuple[Task, Target, Mapping[str, str]]] = [
    (DETECTION, BoxTarget(((10.25, 20.5, 110.75, 90.0), (200.0, 30.0, 300.0, 230.0))), {"category": "cat"}),
    (GroundingTask("grounding", "1", ""), MaskTarget((40.0, 50.0, 140.0, 150.0), ()), {"instruction": "the cup"}),
    (ClassificationTask("classification", "1", ""), ClassTarget("cat"), {"options": "cat, dog, red fox"}),
]


def request(
    task: Task, target: Target, fields: Mapping[str, str], *, name: str = "a", n: int = 0, seed: int = 0,
    profile: ModelProfile = ABS_ORIGINAL,
) -> Request:  # fmt: skip
    sample = Sample(name, ImageRef(400, 300, path=Path("not-there.png")), fields, target)
    return Request(task, sample, n, task.messages(sample, profile), profile, Sampling(seed=seed))


def ask(name: str, one: Request, **args: Any) -> str:
    (completion,) = mock_backend(name, args).generate([one])
    return completion.text


@pytest.mark.parametrize(("task", "target", "fields"), TASKS_AND_TARGETS, ids=lambda item: getattr(item, "name", ""))
@pytest.mark.parametrize("profile", [ABS_ORIGINAL, QWEN2_VL, QWEN2_5_VL], ids=lambda profile: profile.name)
def test_gold_earns_nearly_everything_in_every_convention_without_an_image(
    task: Task, target: Target, fields: Mapping[str, str], profile: ModelProfile
) -> None:
    one = request(task, target, fields, profile=profile)
    prediction = task.parse(ask("gold", one), one.frame)
    assert prediction.status is Status.OK
    assert prediction.well_formed
    score = task.judge(prediction, target)
    assert all(value > 0.97 for value in score.components.values()), score


@pytest.mark.parametrize(("task", "target", "fields"), TASKS_AND_TARGETS, ids=lambda item: getattr(item, "name", ""))
def test_noisy_is_readable_imperfect_and_the_same_for_the_same_seed(
    task: Task, target: Target, fields: Mapping[str, str]
) -> None:
    totals = []
    for index in range(200):
        one = request(task, target, fields, name=str(index))
        text = ask("noisy", one)
        assert text == ask("noisy", one)
        prediction = task.parse(text, one.frame)
        assert prediction.status in {Status.OK, Status.REFUSED}
        assert prediction.boxes_out_of_range == 0
        totals.append(task.judge(prediction, target).total / len(task.rewards))
    assert 0.5 < statistics.mean(totals) < 0.97
    assert min(totals) < 0.6 < max(totals)


def test_noisy_depends_on_seed_sample_and_n() -> None:
    _, target, fields = TASKS_AND_TARGETS[0]
    texts = {
        ask("noisy", request(DETECTION, target, fields, name=name, n=n, seed=seed))
        for name in "ab"
        for n in (0, 1)
        for seed in (0, 1)
    }
    assert len(texts) == 8


def test_noise_without_any_is_the_truth_with_varied_confidences() -> None:
    _, target, fields = TASKS_AND_TARGETS[0]
    confidences = set()
    for index in range(30):
        one = request(DETECTION, target, fields, name=str(index))
        prediction = DETECTION.parse(ask("noisy", one, jitter=0, miss=0, false=0), one.frame)
        assert isinstance(target, BoxTarget)
        assert tuple(detection.box for detection in prediction.detections) == target.boxes
        confidences |= {detection.confidence for detection in prediction.detections}
    assert len(confidences) > 20


def test_miss_and_false_are_shares() -> None:
    _, target, fields = TASKS_AND_TARGETS[0]
    requests = [request(DETECTION, target, fields, name=str(index)) for index in range(1000)]
    boxes = {
        (miss, false): sum(
            len(DETECTION.parse(ask("noisy", one, miss=miss, false=false), one.frame).detections) for one in requests
        )
        for miss, false in ((1.0, 0.0), (0.0, 1.0), (0.5, 0.0))
    }
    assert boxes[1.0, 0.0] == 0
    assert boxes[0.0, 1.0] == 3000
    assert boxes[0.5, 0.0] == pytest.approx(1000, abs=80)


def test_constant_gives_its_text_whatever_it_holds() -> None:
    one = request(*TASKS_AND_TARGETS[0])
    text = "<answer>a/b: No Objects</answer>"
    (completion,) = load_backend(f"mock/constant:{text}").generate([one])
    assert completion.text == text


def test_identities_differ_by_everything_that_changes_an_answer() -> None:
    identities = [
        mock_backend(name, args).identity()
        for name, args in (
            ("gold", {}), ("noisy", {}), ("noisy", {"miss": 0.5}), ("constant:a", {}), ("constant:b", {}),
        )
    ]  # fmt: skip
    assert len({str(sorted(identity.items())) for identity in identities}) == 5
    assert mock_backend("noisy", {}).identity() == mock_backend("noisy", {"miss": 0.15}).identity()


def test_replay_gives_texts_and_failures_of_an_earlier_run_again(
    questions: Any, answers: Any, config: MakeConfig, tmp_path: Path
) -> None:
    replies = {
        ("0:dog", 0): "<answer>[",
        ("1:cat", 1): {"error": "busy"},
        ("2:cat", 0): {"finish_reason": "length", "processed": (56, 28), "completion_tokens": 9},
    }
    first = evaluate(questions, answers(replies), config(samples=2, profile="qwen2.5-vl"))
    replay = load_backend(f"mock/replay:{first.folder}")
    assert replay.profile() == QWEN2_5_VL
    assert str(tmp_path) not in str(replay.identity())
    again = evaluate(questions, replay, config(samples=2, output_dir=tmp_path / "again"))
    assert again.folder != first.folder
    assert again.report == first.report
    assert again.answers == first.answers
    more = evaluate(questions, replay, config(samples=3, output_dir=tmp_path / "more", max_failures=1.0))
    assert more.answers.failures == 61


def test_a_replay_is_known_by_the_records_that_it_replays(
    questions: Any, answers: Any, config: MakeConfig, tmp_path: Path
) -> None:
    run = config(output_dir=tmp_path / "first")
    with pytest.raises(BackendError):
        evaluate(questions, answers({("3:cat", 0): BackendError("gone")}), run)
    (folder,) = (tmp_path / "first").glob("*/*/*")
    before = mock_backend(f"replay:{folder}", {}).identity()
    assert before["samples_sha256"] == hashlib.sha256((folder / "samples.jsonl").read_bytes()).hexdigest()
    evaluate(questions, answers(), run)
    after = mock_backend(f"replay:{folder}/run.json", {}).identity()
    assert after["run"] == before["run"]
    assert after["samples_sha256"] != before["samples_sha256"]
    assert after == mock_backend(f"replay:{shutil.copytree(folder, tmp_path / 'copy')}", {}).identity()
    (folder / "samples.jsonl").unlink()
    with pytest.raises(DataError, match=r"holds no answers: it has no samples\.jsonl"):
        mock_backend(f"replay:{folder}", {})


@pytest.mark.parametrize(
    ("name", "args", "error", "said"),
    [
        ("golden", {}, UserError, "unknown mock 'golden'; did you mean 'gold'"),
        ("replay", {}, UserError, "unknown mock 'replay'"),
        ("replay:nowhere", {}, DataError, "nowhere is not a run"),
        ("gold", {"batch_size": 2}, UserError, "unknown model argument 'batch_size'"),
        ("noisy", {"mis": 0.1}, UserError, "unknown model argument 'mis'; did you mean 'miss'"),
        ("noisy", {"miss": 1.5}, UserError, "miss=1.5 is not in range"),
        ("noisy", {"jitter": "wide"}, UserError, "jitter='wide' is not in range"),
    ],
)
def test_a_mock_that_cannot_be_is_one_message(name: str, args: Any, error: type[UserError], said: str) -> None:
    with pytest.raises(error, match=said):
        mock_backend(name, args)


def test_an_image_that_the_profile_refuses_is_a_failed_sample() -> None:
    sample = Sample("a", ImageRef(4000, 10), {"category": "cat"}, BoxTarget(((0.0, 0.0, 5.0, 5.0),)))
    one = Request(DETECTION, sample, 0, [], QWEN2_5_VL, Sampling())
    (completion,) = mock_backend("gold", {}).generate([one])
    assert completion.finish_reason == "error"
    assert completion.error is not None
    assert "aspect ratio" in completion.error


@pytest.mark.parametrize("profile", [ABS_ORIGINAL, QWEN2_VL, QWEN2_5_VL], ids=lambda profile: profile.name)
def test_noisy_speaks_thousandths_under_the_paper_protocol_whatever_the_profile(profile: ModelProfile) -> None:
    """The paper's rules read thousandths from every model: boxes in the profile's own convention would all be wrong."""
    _, target, fields = TASKS_AND_TARGETS[0]
    assert isinstance(target, BoxTarget)
    paper = DETECTION.under("paper")
    for name, args in (("gold", {}), ("noisy", {"jitter": 0, "miss": 0, "false": 0})):
        one = request(paper, target, fields, profile=profile)
        found = paper.parse(ask(name, one, **args), one.frame).detections
        boxes = [detection.box for detection in found]
        assert boxes == [pytest.approx(box, abs=0.2) for box in target.boxes]  # half a thousandth of 400 pixels
