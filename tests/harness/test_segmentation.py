"""Mask figures of a finished run: computed from its folder, kept in it, and made by the segmenter only once."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness import stored_answers
from vrft_bench.harness.config import RunConfig
from vrft_bench.harness.models.base import Completion, Request
from vrft_bench.harness.models.mock import gold, mock_backend
from vrft_bench.harness.run import evaluate
from vrft_bench.harness.segmentation import StoredMasks, segment_run
from vrft_bench.harness.store import RunStore
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import ImageRef, MaskTarget
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.metrics.masks import Mask, fill_ellipse, rasterise

MakeConfig = Callable[..., RunConfig]


class _Counting:
    """An ellipse that counts how often it is drawn, and asks for its masks to be stored."""

    needs_model = True

    def __init__(self, shift: int = 0) -> None:
        self.drawn: list[tuple[str, Box]] = []
        self._shift = shift

    def identity(self) -> Mapping[str, Any]:
        return {"segmenter": "counting", "shift": self._shift}

    def segment(self, image: ImageRef, box: Box) -> Mask:
        assert image.path is not None
        self.drawn.append((image.path.name, box))
        return np.roll(fill_ellipse(box, image.width, image.height), self._shift, axis=1)


@pytest.fixture
def run(sample_cache: Path, config: MakeConfig) -> Callable[..., Any]:
    """A finished run of ``lisa_grounding`` on the sample data."""
    return lambda backend=None, **fields: evaluate(
        get_task("lisa_grounding"), backend or mock_backend("gold", {}), config(task=["lisa_grounding"], **fields)
    )


def test_gold_boxes_reach_the_ceiling_and_the_figures_are_kept_in_the_run(run: Callable[..., Any]) -> None:
    result = run()
    before = {path.name: path.read_bytes() for path in result.folder.iterdir() if path.suffix.startswith(".json")}
    segmented = segment_run(result.folder, "box")
    figures = segmented.report.figures
    assert figures["giou"].value == pytest.approx(figures["giou_ceiling"].value, abs=0.02)
    assert 0.3 < figures["giou_ceiling"].value < 1.0
    assert segmented.path == result.folder / "masks-box.json"
    stored = json.loads(segmented.path.read_text())
    assert stored["segmenter"] == {"segmenter": "box"}
    assert stored["report"] == segmented.report.to_json()
    assert {name: (result.folder / name).read_bytes() for name in before} == before
    assert not list(result.folder.glob("*.jsonl.partial"))
    assert not (result.folder / "masks-box.jsonl").exists()


def test_figures_are_those_of_the_stored_boxes(run: Callable[..., Any]) -> None:
    """Against the definition, from the boxes that the run has written down and masks drawn here."""
    result = run(mock_backend("noisy", {}))
    task = get_task("lisa_grounding")
    boxes = {
        record["id"]: record["prediction"].get("boxes", [None])[0]
        for record in map(json.loads, (result.folder / "samples.jsonl").read_text().splitlines())
    }
    ious, inside, whole = [], 0, 0
    for sample in task.load(result.manifest.config.data_spec()).samples():
        assert isinstance(sample.target, MaskTarget)
        truth = rasterise(sample.target, sample.image.width, sample.image.height)
        mask = np.zeros_like(truth.mask)
        if boxes[sample.id]:
            mask = fill_ellipse(tuple(boxes[sample.id]), sample.image.width, sample.image.height)
        mask, true = mask & ~truth.ignore, truth.mask
        ious.append((mask & true).sum() / (mask | true).sum())
        inside, whole = inside + (mask & true).sum(), whole + (mask | true).sum()
    figures = segment_run(result.folder, "ellipse").report.figures
    assert figures["giou"].value == pytest.approx(np.mean(ious), abs=1e-12)
    assert figures["ciou"].value == pytest.approx(inside / whole, abs=1e-12)
    assert 0.0 < figures["giou"].value < figures["giou_ceiling"].value


def test_a_mask_is_made_once_and_read_back_bit_by_bit(run: Callable[..., Any]) -> None:
    result = run(mock_backend("noisy", {}), samples=2, temperature=1.0)
    first = _Counting()
    report = segment_run(result.folder, first).report
    assert len(first.drawn) == len(set(first.drawn)) > len({name for name, _ in first.drawn}) > 10
    second = _Counting()
    assert segment_run(result.folder / "run.json", second).report == report
    assert second.drawn == []
    other = _Counting(shift=3)
    assert segment_run(result.folder, other).report != report
    assert len(other.drawn) == len(first.drawn)


def test_images_of_one_name_and_an_image_that_was_replaced_have_masks_of_their_own(tmp_path: Path) -> None:
    """A stored mask belongs to what the image shows, whatever its file is called and wherever it lies."""
    images = []
    for number, folder in enumerate(("first", "second")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(bytes([number]))
        images.append(ImageRef(20, 10, tmp_path / folder / "1.png"))
    box = (0.0, 0.0, 10.0, 10.0)

    def drawn_for(*asked: ImageRef) -> int:
        segmenter = _Counting()
        with contextlib.closing(StoredMasks(tmp_path / "masks.jsonl", segmenter)) as masks:
            for image in asked:
                assert masks.segment(image, box).sum() == fill_ellipse(box, 20, 10).sum()
        return len(segmenter.drawn)

    assert drawn_for(images[0], images[1], images[0]) == 2
    assert drawn_for(*images) == 0
    assert drawn_for(ImageRef(20, 10, data=bytes([1]))) == 0
    (tmp_path / "first" / "1.png").write_bytes(b"another picture")
    assert drawn_for(*images) == 1
    (tmp_path / "second" / "1.png").unlink()
    with pytest.raises(DataError, match="put the image back"):
        drawn_for(images[1])


def test_a_torn_line_is_made_again_and_another_flaw_is_told(run: Callable[..., Any]) -> None:
    result = run(mock_backend("noisy", {}))
    report = segment_run(result.folder, _Counting()).report
    (path,) = result.folder.glob("masks-counting-*.jsonl")
    path.write_bytes(path.read_bytes()[:-7])
    again = _Counting()
    assert segment_run(result.folder, again).report == report
    assert len(again.drawn) == 1
    assert segment_run(result.folder, _Counting()).report == report
    path.write_text('{"image": "a"}\n')
    with pytest.raises(DataError, match="the masks are made anew"):
        segment_run(result.folder, _Counting())


class _Answers:
    """Gold, but for one answer without a box and one that fails."""

    def identity(self) -> Mapping[str, Any]:
        return {"name": "answers"}

    def profile(self) -> Any:
        return mock_backend("gold", {}).profile()

    def generate(self, requests: Any) -> Any:
        for number, request in enumerate(requests):
            yield self._answer(number, request)

    def _answer(self, number: int, request: Request) -> Completion:
        key = (request.sample.id, request.n)
        if number == 0:
            return Completion(*key, "<think>where?</think>\n<answer>nowhere</answer>")
        if number == 1:
            return Completion(*key, "", finish_reason="error", error="the server was away")
        return Completion(*key, gold(request))

    def close(self) -> None:
        """Nothing is held."""


def test_answers_without_a_box_and_failed_ones_have_empty_masks(run: Callable[..., Any]) -> None:
    good = segment_run(run().folder, "box").report.figures["giou"].value
    result = run(_Answers(), max_failures=0.5)
    report = segment_run(result.folder, "box").report
    assert report.notes[0].startswith("2 of ")
    assert report.figures["giou"].value < good
    assert report.figures["giou_ceiling"].value == segment_run(run().folder, "box").report.figures["giou_ceiling"].value


def test_a_run_of_another_family_and_a_run_at_work_are_refused(
    run: Callable[..., Any], config: MakeConfig, sample_cache: Path
) -> None:
    boxes = evaluate(get_task("coco_fewshot"), mock_backend("gold", {}), config(task=["coco_fewshot"], limit=2))
    with pytest.raises(UserError, match="a detection task, and has no masks"):
        segment_run(boxes.folder, "box")
    result = run()
    with RunStore(result.folder), pytest.raises(UserError, match="being written by another process"):
        segment_run(result.folder, "box")


def test_changed_data_are_refused(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    result = run()
    real = stored_answers.make_plan
    fewer = {"limit": 2}
    monkeypatch.setattr(
        stored_answers,
        "make_plan",
        lambda task, profile, config: real(task, profile, config.model_copy(update=fewer)),
    )
    with pytest.raises(UserError, match="was made with other data"):
        segment_run(result.folder, "box")
