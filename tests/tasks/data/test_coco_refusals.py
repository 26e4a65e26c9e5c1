"""What is wrong with a COCO or LVIS file is said, by file, entry and value."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import DataError
from vrft_bench.tasks.base import BoxTarget, Dataset
from vrft_bench.tasks.data.coco import load_detection

Document = dict[str, Any]
Load = Callable[..., Dataset]
Make = Callable[[], Document]


def test_missing_annotation_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*no\.json"):
        load_detection(tmp_path / "no.json", [tmp_path], split="val")


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        load_detection(tmp_path, [tmp_path], split="val")


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"\xff\xfe\x00\x80{")
    with pytest.raises(DataError, match="is not JSON"):
        load_detection(tmp_path / "a.json", [tmp_path], split="val")


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{'images': 1}", "is not JSON"),
        ("", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        (
            [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 1}],
            "it holds a list, as results files do, not an object",
        ),
        ("7", "holds a number, not an object"),
        ({"images": [], "annotations": []}, "the key 'categories' is missing"),
    ],
)
def test_not_coco(load: Load, document: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(document)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"annotations": {}}, "'annotations' is not a list of objects but a dict"),
        ({"images": [1]}, "'images' is not a list of objects"),
        ({"images": []}, "lists no images"),
        ({"categories": [{"name": "x"}]}, "lacks an integer 'id'"),
        ({"categories": [{"id": True, "name": "x"}]}, "lacks an integer 'id'"),
        ({"categories": [{"id": 1, "name": "x"}] * 2}, "'x' .id 1. is listed twice"),
    ],
)
def test_a_part_that_is_not_cocos_is_named(load: Load, part: Document, message: str, coco_document: Make) -> None:
    with pytest.raises(DataError, match=message):
        load({**coco_document(), **part})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 3}, "annotation 1 has image_id 3, which the file does not list"),
        ({"image_id": [3]}, "annotation 1 has image_id .3., which"),
        ({"category_id": 99}, "annotation 1 has category_id 99, which the file does not list"),
        ({"bbox": [1, 2, 3]}, r"annotation 1 has the bbox \[1, 2, 3\]"),
        ({"bbox": None}, "annotation 1 has the bbox None"),
        ({"bbox": [1, 2, 3, "4"]}, "annotation 1 has the bbox"),
        ({"bbox": [1, 2, float("nan"), 4]}, "annotation 1 has the bbox"),
        ({"bbox": [1, 2, float("inf"), 4]}, "annotation 1 has the bbox"),
        ({"bbox": [1, 2, 10**400, 4]}, "annotation 1 has the bbox"),
        ({"bbox": [9, 9, -3, 4]}, "annotation 1 has a bbox of negative size"),
        ({"area": "big"}, "annotation 1 has the area 'big'"),
        ({"area": -0.5}, "annotation 1 has the area -0.5"),
        ({"area": 10**400}, "annotation 1 has the area 1000"),
        ({"iscrowd": 2}, "annotation 1 has iscrowd 2"),
        ({"iscrowd": -1}, "annotation 1 has iscrowd -1"),
        ({"iscrowd": "0"}, "annotation 1 has iscrowd '0'"),
        ({"iscrowd": None}, "annotation 1 has iscrowd None"),
        ({"iscrowd": [1]}, r"annotation 1 has iscrowd \[1\]"),
        ({"image_id": True}, "annotation 1 has image_id True, which"),
    ],
)
def test_a_wrong_annotation_is_named(load: Load, change: Document, message: str, coco_document: Make) -> None:
    document = coco_document()
    document["annotations"][0].update(change)
    with pytest.raises(DataError, match=message):
        load(document)


@pytest.mark.parametrize("value", [0, 1, False, True, ...])
def test_iscrowd_is_0_or_1_or_left_out(load: Load, value: object, coco_document: Make) -> None:
    document = coco_document()
    document["annotations"][1]["iscrowd"] = value
    if value is ...:
        del document["annotations"][1]["iscrowd"]
    target = next(item.target for item in load(document).samples() if item.id == "10:hot dog")
    assert isinstance(target, BoxTarget)
    assert (len(target.boxes), len(target.crowd)) == ((0, 1) if value in (1, True) else (1, 0))


def test_half_a_surrogate_pair_in_a_category_name_is_refused(load: Load, coco_document: Make) -> None:
    document = coco_document()
    document["categories"][0]["name"] = "hot \ud800 dog"
    with pytest.raises(DataError, match=r"category 9 has the name 'hot .ud800 dog', which is no text"):
        load(document)


def test_a_wrong_annotation_of_a_category_that_is_not_asked_is_named_too(load: Load, coco_document: Make) -> None:
    document = coco_document()
    document["annotations"][0]["bbox"] = []
    with pytest.raises(DataError, match="annotation 1 has the bbox"):
        load(document, categories=["hot dog"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 2}, "lists the image id 2 twice"),
        ({"id": "2"}, "lists the image id '?2'? twice"),
        ({"id": None}, "an image has the id None"),
        ({"id": True}, "an image has the id True"),
        ({"id": "\udfff"}, "an image has the id '.udfff', which is no text"),
        ({"width": 0}, "image 10 has the width 0"),
        ({"width": True}, "image 10 has the width True"),
        ({"width": 10**400}, "image 10 has the width 1000"),
        ({"height": 1e300}, "image 10 has the height 1000"),
        ({"file_name": "x" * 5000}, "image 10 has the file name 'xxx.* of 5,000 characters, which no file can have"),
        ({"file_name": "é" * 200}, "of 200 characters, which no file can have"),
        ({"file_name": "d/" * 2500 + "x"}, "of 5,001 characters, which no file can have"),
        ({"file_name": "\ud800.png"}, "image 10 has the file name '.ud800.png', which is no text"),
        ({"height": "40"}, "image 10 has the height '40'"),
        ({"file_name": None}, "image 10 has neither a 'file_name' nor a 'coco_url'"),
        ({"neg_category_ids": "die"}, "image 10: 'neg_category_ids' is not a list of category ids"),
    ],
)
def test_a_wrong_image_is_named(load: Load, change: Document, message: str, coco_document: Make) -> None:
    document = coco_document()
    document["images"][0].update(change)
    document["annotations"] = document["annotations"][:1]
    with pytest.raises(DataError, match=message):
        load(document)


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd", "/etc/passwd", "a/../../b.png", "a/../ten.png", "..", "", "a/", "C:\\x.png",
        "..\\x.png", "\\\\host\\x.png", "ten.png\0.txt",
    ],
)  # fmt: skip
def test_a_file_name_that_leaves_the_image_folder_is_refused(load: Load, name: str, coco_document: Make) -> None:
    document = coco_document()
    document["images"][0]["file_name"] = name
    with pytest.raises(DataError, match="leaves the image folder"):
        load(document)


def test_a_url_whose_last_parts_leave_the_folder_is_refused(load: Load, lvis_document: Make) -> None:
    document = lvis_document()
    document["images"][0]["coco_url"] = "http://example.org/../passwd"
    with pytest.raises(DataError, match="leaves the image folder"):
        load(document)


@pytest.mark.parametrize("link", ["ten.png", "inner"])
def test_a_link_inside_the_image_folder_that_points_out_of_it_is_refused(
    load: Load, tmp_path: Path, link: str, coco_document: Make
) -> None:
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "ten.png").touch()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "two.png").touch()
    (folder / link).symlink_to(secret if link == "inner" else secret / "ten.png")
    document = coco_document()
    document["images"][0]["file_name"] = "ten.png" if link == "ten.png" else "inner/ten.png"
    with pytest.raises(DataError, match="which is outside the image folder"):
        load(document, [folder])


def test_a_link_within_the_folder_and_a_linked_folder_are_fine(load: Load, tmp_path: Path, coco_document: Make) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "two.png").touch()
    (tmp_path / "real" / "ten.png").symlink_to("two.png")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert len(list(load(coco_document(), [tmp_path / "link"]).samples())) == 6


def test_missing_image_folder_is_named(load: Load, tmp_path: Path, coco_document: Make) -> None:
    with pytest.raises(DataError, match=r"image folder is not there: .*nowhere"):
        load(coco_document(), [tmp_path / "nowhere"])


def test_a_folder_with_none_of_the_images_is_named(load: Load, tmp_path: Path, coco_document: Make) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"the first is two\.png.; looked in .*empty"):
        load(coco_document(), [tmp_path / "empty"])


def test_no_question_left(load: Load, coco_document: Make) -> None:
    with pytest.raises(DataError, match="no question is left"):
        load(coco_document(), ask="present", categories=["dog"])
