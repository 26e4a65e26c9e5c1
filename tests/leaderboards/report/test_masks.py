"""Masks that a segmenter made of a run's boxes, as the page holds them."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle

from vrft_bench.harness.segmentation import content_hash
from vrft_bench.leaderboards.report.cards import make_gallery
from vrft_bench.leaderboards.report.joined import join_run
from vrft_bench.leaderboards.report.masks import ShownMask, read_masks, shown_mask
from vrft_bench.leaderboards.report.verdicts import judge_run
from vrft_bench.leaderboards.runs import RunRow, open_run
from vrft_bench.tasks.base import ImageRef

MakeRun = Callable[..., RunRow]
CONTENT = b"an image"
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BOX = (1.0, 2.0, 3.25, 4.1234)


def encoded(mask: np.ndarray) -> str:
    return str(rle.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode())


def drawn(shown: ShownMask) -> np.ndarray:
    width, height, runs = shown
    return np.repeat(np.arange(len(runs)) % 2, runs).reshape((height, width), order="F")


@given(st.integers(1, 9), st.integers(1, 9), st.data())
def test_a_small_mask_comes_through_pixel_by_pixel(width: int, height: int, data: st.DataObject) -> None:
    bits = data.draw(st.lists(st.booleans(), min_size=width * height, max_size=width * height))
    mask = np.array(bits).reshape(height, width)
    shown = shown_mask({(SHA256, 1.0, 2.0, 3.25, 4.123): encoded(mask)}, ImageRef(width, height, data=CONTENT), BOX)
    assert shown is not None
    assert (drawn(shown) == mask).all()


def test_a_large_mask_is_thinned_to_a_thumbnails_size() -> None:
    mask = np.zeros((600, 1000), dtype=bool)
    mask[300:, 500:] = True
    shown = shown_mask({(SHA256, 1.0, 2.0, 3.25, 4.123): encoded(mask)}, ImageRef(1000, 600, data=CONTENT), BOX)
    assert shown is not None
    assert shown[:2] == (334, 200)
    assert drawn(shown).mean() == pytest.approx(0.25, abs=0.005)


def test_an_answers_mask_is_found_by_its_image_and_its_box(make_run: MakeRun, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(make_run("lisa_grounding", "mock/noisy", "-L", "5").folder, tmp_path / "run"))
    row = open_run(folder)
    assert isinstance(row, RunRow)
    run = join_run(row)
    key = next(iter(run.records))
    image, box = run.samples[key[0]].image, run.records[key]["prediction"]["boxes"][0]
    mask = np.zeros((image.height, image.width), dtype=bool)
    mask[10:20, 5:9] = True
    line = {"image": content_hash(image), "box": [number + 1e-5 for number in box], "mask": encoded(mask)}
    (folder / "masks-sam-00000000.jsonl").write_text(json.dumps(line) + "\n")
    run = join_run(row)
    cards = make_gallery([run], [judge_run(run)], []).cards
    assert [bool(card["r"][0].get("g")) for card in cards] == [True] + [False] * 4
    assert (drawn(cards[0]["r"][0]["g"]) == mask).all()


def test_an_image_that_is_gone_has_no_mask(tmp_path: Path) -> None:
    stored = {(SHA256, 1.0, 2.0, 3.25, 4.123): encoded(np.ones((4, 4), dtype=bool))}
    assert shown_mask(stored, ImageRef(4, 4, tmp_path / "gone.png"), BOX) is None


def test_a_damaged_file_of_masks_takes_nothing_else_away(tmp_path: Path) -> None:
    assert read_masks(tmp_path) == {}
    (tmp_path / "masks-sam-0.jsonl").write_text("not json\n")
    assert read_masks(tmp_path) == {}
