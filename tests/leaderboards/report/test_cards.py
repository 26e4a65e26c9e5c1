"""Cards hold what the run stored, cut to what a page can show."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from vrft_bench.leaderboards.report.cards import BOX_KINDS, STATUSES, TEXT_LIMITS, make_gallery, split_thought
from vrft_bench.leaderboards.report.joined import join_run
from vrft_bench.leaderboards.report.verdicts import judge_run
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.tasks.base import BoxTarget

MakeRun = Callable[..., RunRow]
TAGS = ("<think>", "</think>")


def test_cards_hold_the_stored_boxes_texts_and_scores(detection: tuple[RunRow, RunRow]) -> None:
    runs = [join_run(row) for row in detection]
    gallery = make_gallery(runs, [judge_run(run) for run in runs], ["iou", "confidence", "format"])
    assert len(gallery.cards) == 120
    assert len(gallery.images) == len({sample.image.path for sample in runs[0].samples.values()}) < 120
    for card in gallery.cards:
        for run, answer in zip(runs, card["r"], strict=True):
            record = run.records[card["id"], card["n"]]
            stored = record["prediction"]
            assert STATUSES[answer["s"]] == stored["status"]
            assert [box[:4] for box in answer.get("b", [])] == [
                [pytest.approx(value, abs=0.006) for value in box] for box in stored.get("boxes", [])
            ]
            assert answer["y"] == pytest.approx(
                [record["score"][name] for name in ("total", "iou", "confidence", "format")], abs=1e-4
            )
            assert "".join(answer["t"]) in record["text"].replace("<think>", "").replace("</think>\n", "")
        target = runs[0].samples[card["id"]].target
        assert isinstance(target, BoxTarget)
        assert len(card["t"]["b"]) == len(target.boxes)
    assert {BOX_KINDS[box[5]] for card in gallery.cards for box in card["r"][0].get("b", [])} >= {"right", "background"}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("<think>a</think><answer>b</answer>", ("a", "<answer>b</answer>")),
        ("the template opened it</think> b", ("the template opened it", "b")),
        ("b <think>never closed", ("never closed", "b")),
        ("<THINK>a</Think>b", ("a", "b")),
        ("İ<think>a</think>b", ("a", "b")),
        ("no tags", ("", "no tags")),
        ("", ("", "")),
    ],
)
def test_what_was_thought_is_told_from_what_was_said(text: str, parts: tuple[str, str]) -> None:
    assert split_thought(text, TAGS) == parts


def test_a_completion_that_goes_on_and_on_loses_its_middle_and_says_so(detection: tuple[RunRow, RunRow]) -> None:
    run = join_run(detection[0])
    key = next(iter(run.records))
    most = TEXT_LIMITS[1]
    text = f"<think>{'x' * (most + 5)}</think>the answer"
    run = replace(run, records={key: {**run.records[key], "text": text}})
    (card,) = make_gallery([run], [judge_run(run)], []).cards
    thought, said = card["r"][0]["t"]
    assert thought == f"{'x' * (most // 2)}\n\n[... 5 characters are not shown ...]\n\n{'x' * (most // 2)}"
    assert said == "the answer"


def test_every_completion_of_a_question_has_a_card(make_run: MakeRun) -> None:
    run = join_run(make_run("flower102_fewshot", "mock/noisy", "-L", "10", "-n", "3", "--temperature", "1"))
    gallery = make_gallery([run], [judge_run(run)], [])
    assert [(card["id"], card["n"]) for card in gallery.cards] == sorted(
        ((sample_id, n) for sample_id in run.samples for n in range(3)), key=lambda key: list(run.samples).index(key[0])
    )
    assert len(gallery.images) == 10
    json.dumps(gallery.cards)
