"""What an audit knows of where objects lie: from the training split, else from images that are not being answered."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vrft_bench.tasks import get_task
from vrft_bench.tasks.audit.prior import LIKELIEST, likeliest_boxes, make_prior, mean_box, prior_of, true_boxes
from vrft_bench.tasks.base import BoxTarget, DataSpec, ImageRef, MaskTarget, Sample
from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box
from vrft_bench.tasks.data.sample import NOVEL_5
from vrft_bench.tasks.rewards import MATCH_IOU

pytestmark = pytest.mark.usefixtures("sample_cache")

LEFT, NEAR_LEFT, RIGHT = (0.0, 0.0, 0.5, 1.0), (0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 1.0, 1.0)


def question(name: str, category: str, *boxes: Box, size: tuple[int, int] = (100, 100)) -> Sample:
    image = ImageRef(*size, path=Path(name))
    return Sample(f"{name}:{category}", image, {"category": category, "image_id": name}, BoxTarget(boxes))


def test_the_likeliest_boxes_each_find_the_most_of_what_is_left() -> None:
    assert likeliest_boxes([RIGHT, LEFT, NEAR_LEFT, LEFT]) == [(LEFT, 0.75), (RIGHT, 0.25)]
    assert likeliest_boxes([]) == []


_SIDE = st.tuples(st.integers(0, 9), st.integers(1, 5)).map(lambda side: (side[0] / 15, (side[0] + side[1]) / 15))
_BOX = st.tuples(_SIDE, _SIDE).map(lambda sides: (sides[0][0], sides[1][0], sides[0][1], sides[1][1]))


@given(st.lists(_BOX, max_size=60))
def test_likeliest_boxes_are_boxes_of_the_set_and_add_less_and_less(boxes: list[Box]) -> None:
    guesses = likeliest_boxes(boxes)
    shares = [share for _, share in guesses]
    assert shares == sorted(shares, reverse=True)
    assert all(0 < share <= 1 for share in shares)
    assert {box for box, _ in guesses} <= set(boxes)
    assert len(guesses) <= LIKELIEST
    found = sum(any(iou(box, guess) >= MATCH_IOU for guess, _ in guesses) for box in boxes)
    assert math.isclose(sum(shares), found / max(len(boxes), 1), abs_tol=0.0001 * LIKELIEST)


def test_a_prior_is_in_fractions_of_the_images_and_by_category() -> None:
    prior = make_prior(
        [
            question("a", "dog", (0.0, 0.0, 50.0, 50.0), size=(100, 50)),
            question("b", "dog", (0.0, 0.0, 10.0, 10.0), (3.0, 3.0, 3.0, 9.0), size=(10, 10)),
            question("c", "cat", (50.0, 0.0, 100.0, 100.0)),
            question("d", "owl"),
        ]
    )
    assert prior.mean == {"dog": (0.0, 0.0, 0.75, 1.0), "cat": RIGHT}
    assert prior.of_category == {"dog": [(LEFT, 1.0)], "cat": [(RIGHT, 1.0)]}
    assert prior.likeliest == [((0.0, 0.0, 1.0, 1.0), 1.0)], "which overlaps either half by .5"
    assert mean_box([LEFT, RIGHT]) == (0.25, 0.0, 0.75, 1.0)


def test_a_region_without_area_is_nothing_to_find() -> None:
    region = MaskTarget((5.0, 5.0, 5.0, 9.0), ())
    assert true_boxes(Sample("a", ImageRef(10, 10), {"instruction": "it"}, region)) == ()


def test_training_boxes_are_of_base_categories_and_stand_in_for_novel_ones() -> None:
    task = get_task("coco_ovd")
    samples = list(task.load(DataSpec()).samples())
    prior = prior_of(task, DataSpec(), samples)(samples[0])
    assert len(prior.of_category) == 15
    assert not prior.of_category.keys() & set(NOVEL_5)
    assert sum(share for _, share in prior.likeliest) == pytest.approx(1.0, abs=0.01)


def test_without_a_training_split_each_half_knows_the_other() -> None:
    task = get_task("lvis_ovd")
    samples = list(task.load(DataSpec()).samples())
    known = prior_of(task, DataSpec(), samples)
    priors = {id(known(sample)): known(sample) for sample in samples}.values()
    assert [round(sum(share for _, share in prior.likeliest), 2) for prior in priors] == [1.0, 1.0]


def test_files_that_are_audited_do_not_tell_where_their_own_objects_are(tmp_path: Path) -> None:
    """They have no training split: asked for one, they are the same files."""
    images = [{"id": number, "file_name": f"{number}.png", "width": 100, "height": 100} for number in range(8)]
    boxes = [
        {"id": number + 1, "image_id": number, "category_id": 1, "bbox": [10 * number, 0, 9, 9]} for number in range(8)
    ]
    for item in boxes:
        item |= {"area": 81, "iscrowd": 0}
    for entry in images:
        Image.new("RGB", (100, 100)).save(tmp_path / str(entry["file_name"]))
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "dog"}]}))
    task, spec = get_task("detection"), DataSpec(annotations=file, images=tmp_path)
    samples = list(task.load(spec).samples())
    known = prior_of(task, spec, samples)
    for sample in samples:
        (own,) = true_boxes(sample)
        said = {tuple(round(100 * value) for value in box) for box, _ in known(sample).likeliest}
        assert len(said) == 4
        assert own not in said


def test_an_audited_training_split_does_not_tell_where_its_own_objects_are() -> None:
    task, spec = get_task("lvis_fewshot"), DataSpec(split="train")
    samples = list(task.load(spec).samples())
    known = prior_of(task, spec, samples)
    assert len({id(known(sample)) for sample in samples}) == 2
