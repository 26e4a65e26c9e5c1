"""ReasonSeg files become instructions about one region."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.errors import DataError
from vrft_bench.registry import PROFILES
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import MaskTarget
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.data.reasonseg import load_reasonseg

TRIANGLE = [[10, 20], [30, 20], [30, 40.5]]
SQUARE = [[2, 50], [8, 50], [8, 58], [2, 58]]


def write(folder: Path, name: str, suffix: str = ".jpg", **fields: Any) -> None:
    value = {
        "text": ["what keeps the rain off?", "the umbrella"],
        "is_sentence": True,
        "shapes": [{"label": "target", "points": TRIANGLE}],
        **fields,
    }
    (folder / f"{name}.json").write_text(json.dumps(value))
    if suffix:
        Image.new("RGB", (64, 60)).save(folder / f"{name}{suffix}")


def test_target_polygons_unite_ignore_stays_apart_and_flag_is_dropped(tmp_path: Path) -> None:
    shapes = [
        {"label": "flag", "points": [[0, 0], [1, 0], [1, 1]]},
        {"label": "umbrella", "points": TRIANGLE},
        {"label": "target", "points": SQUARE},
        {"label": "ignore", "points": [[40, 40], [60, 40], [60, 59]]},
        {"label": "target", "points": [[0, 0], [63, 59]]},
    ]
    write(tmp_path, "a", shapes=shapes)
    (sample,) = load_reasonseg(tmp_path, "val").samples()
    assert sample.target == MaskTarget(
        (2.0, 20.0, 30.0, 58.0),
        ((10.0, 20.0, 30.0, 20.0, 30.0, 40.5), (2.0, 50.0, 8.0, 50.0, 8.0, 58.0, 2.0, 58.0)),
        ((40.0, 40.0, 60.0, 40.0, 60.0, 59.0),),
    )


def test_an_ending_in_capitals_is_found_and_what_macos_leaves_beside_files_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "a", suffix=".JPG")
    (tmp_path / "._a.json").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    (sample,) = load_reasonseg(tmp_path, "val").samples()
    assert (sample.image.path, sample.image.width) == (tmp_path / "a.JPG", 64)


def test_a_region_that_leaves_the_image_can_be_boxed_perfectly(tmp_path: Path) -> None:
    """Its polygon stays as published."""
    write(tmp_path, "a", shapes=[{"label": "target", "points": [[-300, 10], [70, 10], [50, 400]]}])
    (sample,) = load_reasonseg(tmp_path, "val").samples()
    assert sample.target == MaskTarget((0.0, 10.0, 64.0, 60.0), ((-300.0, 10.0, 70.0, 10.0, 50.0, 400.0),))
    task, frame = get_task("grounding"), Frame(PROFILES.get("qwen2-vl"), 64, 60)
    assert task.score(task.gold(sample, frame), task.ground_truth(sample, frame))["iou"] > 0.99


def test_labels_are_read_as_lisa_reads_them(tmp_path: Path) -> None:
    shapes = [
        {"label": "Ignored part", "points": [[40, 40], [60, 40], [60, 59]]},
        {"label": "FLAG", "points": [[0, 0], [1, 0], [1, 1]]},
        {"label": "flagpole", "points": SQUARE},
        {"label": "umbrella", "points": TRIANGLE},
    ]
    write(tmp_path, "a", shapes=shapes)
    write(tmp_path, "b")
    dataset = load_reasonseg(tmp_path, "val")
    target = next(dataset.samples()).target
    assert isinstance(target, MaskTarget)
    assert target.ignore == ((40.0, 40.0, 60.0, 40.0, 60.0, 59.0),)
    assert [polygon[0] for polygon in target.polygons] == [2.0, 10.0]  # in the order of the file
    assert dataset.notes == ()


@pytest.mark.parametrize("label", ["umbrella", "Ignored part", "FLAG"])
def test_the_first_shape_alone_is_all_of_the_truth_whatever_its_label(tmp_path: Path, label: str) -> None:
    shapes = [
        {"label": label, "points": [[-5, 3], [30, 20], [30, 40.5]]},
        {"label": "umbrella", "points": SQUARE},
        {"label": "ignore", "points": TRIANGLE},
    ]
    write(tmp_path, "a", shapes=shapes)
    write(tmp_path, "b")
    dataset = load_reasonseg(tmp_path, "val", first_shape_only=True)
    first = next(dataset.samples())
    assert first.target == MaskTarget((-5.0, 3.0, 30.0, 40.5), ((-5.0, 3.0, 30.0, 20.0, 30.0, 40.5),))
    said = "of 1 images an 'ignore' or 'flag' shape is the truth, since it comes first: a"
    assert dataset.notes == (() if label == "umbrella" else (said,))


def test_a_first_shape_of_two_points_has_a_box_and_no_polygon(tmp_path: Path) -> None:
    write(tmp_path, "a", shapes=[{"label": "flag", "points": [[9, 2], [4, 7]]}, {"label": "t", "points": SQUARE}])
    (sample,) = load_reasonseg(tmp_path, "val", first_shape_only=True).samples()
    assert sample.target == MaskTarget((4.0, 2.0, 9.0, 7.0), ())


def test_by_the_first_shape_only_an_image_without_shapes_is_left_out(tmp_path: Path) -> None:
    for name, shapes in (
        ("a", []),
        ("b", [{"label": "t", "points": []}]),
        ("c", [{"label": "ignore", "points": TRIANGLE}]),
    ):
        write(tmp_path, name, shapes=shapes)
    dataset = load_reasonseg(tmp_path, "val", first_shape_only=True)
    assert [sample.id for sample in dataset.samples()] == ["c"]
    assert dataset.notes[0] == "without a shape, and left out: a, b"
    (tmp_path / "c.json").unlink()
    with pytest.raises(DataError, match=r"no annotation in .* has a shape"):
        load_reasonseg(tmp_path, "val", first_shape_only=True)


def test_evaluation_asks_the_first_instruction_and_train_each(tmp_path: Path) -> None:
    write(tmp_path, "b", ".png")
    write(tmp_path, "a", text="the umbrella")
    val = list(load_reasonseg(tmp_path, "val").samples())
    assert list(load_reasonseg(tmp_path, "test").samples()) == val
    assert [(sample.id, sample.fields["instruction"]) for sample in val] == [
        ("a", "the umbrella"),
        ("b", "what keeps the rain off?"),
    ]
    assert [sample.image.path for sample in val] == [tmp_path / "a.jpg", tmp_path / "b.png"]
    assert {(sample.image.width, sample.image.height) for sample in val} == {(64, 60)}
    train = [(sample.id, sample.fields["instruction"]) for sample in load_reasonseg(tmp_path, "train").samples()]
    assert train == [("a:0", "the umbrella"), ("b:0", "what keeps the rain off?"), ("b:1", "the umbrella")]


def test_a_file_in_cp1252_is_read(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "a.json").write_bytes(
        '{"text": ["the dog\u2019s bowl"], "shapes": [{"label": "t", "points": [[0,0],[9,0],[9,9]]}]}'.encode("cp1252")
    )
    assert next(load_reasonseg(tmp_path, "val").samples()).fields["instruction"] == "the dog\u2019s bowl"


def test_an_image_without_a_target_is_left_out_and_noted(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b", shapes=[{"label": "ignore", "points": TRIANGLE}])
    dataset = load_reasonseg(tmp_path, "val")
    assert [sample.id for sample in dataset.samples()] == ["a"]
    assert dataset.notes == ("without a target region, and left out: b",)


def test_one_missing_image_is_left_to_the_run(tmp_path: Path) -> None:
    write(tmp_path, "a", suffix="")
    write(tmp_path, "b")
    first = next(load_reasonseg(tmp_path, "val").samples())
    assert (first.image.path, first.image.width, first.image.height) == (tmp_path / "a.jpg", 1, 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"text": []}, r"a\.json is not a ReasonSeg annotation: its 'text' is \[\]"),
        ({"text": [" "]}, "its 'text' is"),
        ({"text": None}, "its 'text' is None"),
        ({"shapes": None}, "it has no list 'shapes'"),
        ({"shapes": [3]}, "the shape 3 lacks a 'label'"),
        ({"shapes": [{"label": "t", "points": [[1, 2, 3]]}]}, "'points' that are not"),
        ({"shapes": [{"label": "t", "points": [[1, float("nan")]] * 3}]}, "'points' that are not"),
        ({"shapes": [{"label": "t", "points": [[1, 10**400]] * 3}]}, "'points' that are not"),
        ({"text": "the \ud800 cup"}, "has the instruction 'the .ud800 cup', which is no text"),
        ({"shapes": []}, "no annotation in .* has a target region"),
    ],
)
def test_a_wrong_annotation_is_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    write(tmp_path, "a", **fields)
    with pytest.raises(DataError, match=message):
        load_reasonseg(tmp_path, "val")


def test_missing_things_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*gone"):
        load_reasonseg(tmp_path / "gone", "val")
    with pytest.raises(DataError, match=r"has no .*json annotations"):
        load_reasonseg(tmp_path, "val")
    write(tmp_path, "a", suffix="")
    with pytest.raises(DataError, match="none of the first 20 images is there"):
        load_reasonseg(tmp_path, "val")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(DataError, match=r"a\.json is not JSON"):
        load_reasonseg(tmp_path, "val")
    (tmp_path / "a.json").unlink()
    (tmp_path / "a.json").mkdir()
    with pytest.raises(DataError, match=r"a\.json cannot be read: Is a directory"):
        load_reasonseg(tmp_path, "val")


def test_a_file_name_that_is_no_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a")
    (tmp_path / "a.json").rename(tmp_path / os.fsdecode(b"caf\xe9.json"))
    with pytest.raises(DataError, match=r"has the file 'caf.udce9\.json', which is no text"):
        load_reasonseg(tmp_path, "val")
