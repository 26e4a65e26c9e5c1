"""Files are found in every layout that is in use, and a missing one is told with the paths and the owner."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vrft_bench.errors import DataError, ExitCode
from vrft_bench.tasks.data import layout
from vrft_bench.tasks.data.layout import class_folders, coco_files, lvis_files, reasonseg_root


def make(root: Path, *files: str) -> None:
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_data_root_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser may read everything, so the question is answered for the system."""
    make(tmp_path, "annotations/instances_val2017.json", "val2017/1.jpg")
    monkeypatch.setattr(layout.os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(DataError, match=f"the data folder {tmp_path} may not be read"):
        coco_files(tmp_path, "val")


@pytest.mark.parametrize("base", ["", "coco/"])
@pytest.mark.parametrize("images", ["images/val2017", "val2017"])
def test_coco_in_both_layouts(tmp_path: Path, base: str, images: str) -> None:
    make(tmp_path, f"{base}annotations/instances_val2017.json", f"{base}{images}/1.jpg")
    annotations, folders = coco_files(tmp_path, "val")
    assert annotations == tmp_path / f"{base}annotations/instances_val2017.json"
    assert folders == [tmp_path / f"{base}{images}"]


@pytest.mark.parametrize(
    "file",
    ["annotations/lvis_v1_val.json", "lvis_v1_val.json", "lvis/lvis_v1_val.json", "lvis/annotations/lvis_v1_val.json"],
)
@pytest.mark.parametrize("parent", ["images", ".", "coco/images", "coco"])
def test_lvis_with_the_images_of_coco(tmp_path: Path, file: str, parent: str) -> None:
    make(tmp_path, file, f"{parent}/val2017/1.jpg", f"{parent}/train2017/2.jpg")
    annotations, folders = lvis_files(tmp_path, "val")
    assert annotations == tmp_path / file
    assert folders == [tmp_path / parent]


@pytest.mark.parametrize("base", ["ReasonSeg", "."])
def test_reasonseg_root_is_the_folder_or_the_one_above(tmp_path: Path, base: str) -> None:
    make(tmp_path, f"{base}/val/1.json")
    assert reasonseg_root(tmp_path) == tmp_path / base


def test_class_folders_of_a_split(tmp_path: Path) -> None:
    make(tmp_path, "pets37/val/beagle/1.jpg")
    assert class_folders(tmp_path, "pets37", "val") == tmp_path / "pets37" / "val"


def test_missing_annotations_list_every_path_and_the_owner(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        coco_files(tmp_path, "train")
    for path in ("annotations/instances_train2017.json", "coco/annotations/instances_train2017.json"):
        assert f"\n    {tmp_path / path}" in error.value.message
    assert "cocodataset.org" in str(error.value.fix)
    assert error.value.exit_code == ExitCode.DATA_MISSING


@pytest.mark.parametrize(
    ("find", "valid"),
    [
        (coco_files, "train or val"),
        (lvis_files, "train or val"),
        (lambda root, split: class_folders(root, "pets37", split), "train or val or test"),
    ],
    ids=["coco", "lvis", "classes"],
)
def test_a_split_that_nobody_publishes_is_told_with_those_that_are(
    tmp_path: Path, find: Callable[[Path, str], object], valid: str
) -> None:
    with pytest.raises(DataError) as error:
        find(tmp_path, "nope")
    assert error.value.fix == f"'nope' is no published split: use --split {valid}, or put one of your own there"


def test_missing_images_list_every_path(tmp_path: Path) -> None:
    make(tmp_path, "annotations/instances_val2017.json")
    with pytest.raises(DataError) as error:
        coco_files(tmp_path, "val")
    assert error.value.message.count("val2017") == 4


@pytest.mark.parametrize(
    ("find", "owner"),
    [
        (lambda root: lvis_files(root, "val"), "lvisdataset.org"),
        (reasonseg_root, "dvlab-research/LISA"),
        (lambda root: class_folders(root, "flower102", "val"), "robots.ox.ac.uk"),
    ],
)
def test_the_owner_is_named(tmp_path: Path, find: object, owner: str) -> None:
    with pytest.raises(DataError, match="none of these is there") as error:
        find(tmp_path)  # type: ignore[operator]
    assert owner in str(error.value.fix)


def test_a_data_root_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no data folder .*gone"):
        coco_files(tmp_path / "gone", "val")
