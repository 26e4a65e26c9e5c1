"""Class folders become one question per image."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import ClassTarget
from vrft_bench.tasks.data.folders import load_class_folders


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name, size in (
        ("scottish_terrier/b.PNG", (7, 5)),
        ("scottish_terrier/a.jpg", (9, 4)),
        ("beagle/c.png", (3, 2)),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / name)
    (tmp_path / "beagle" / "notes.txt").write_text("no image")
    (tmp_path / "beagle" / "._c.png").write_text("a file that an archiver left")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "readme.md").write_text("no class")
    return tmp_path


def test_samples_are_the_images_by_path(pets: Path) -> None:
    dataset = load_class_folders(pets, "val")
    samples = list(dataset.samples())
    assert [sample.id for sample in samples] == ["beagle/c.png", "scottish_terrier/a.jpg", "scottish_terrier/b.PNG"]
    assert [sample.target for sample in samples] == [ClassTarget("beagle"), *[ClassTarget("scottish_terrier")] * 2]
    assert [(sample.image.width, sample.image.height) for sample in samples] == [(3, 2), (9, 4), (7, 5)]
    assert {sample.fields["options"] for sample in samples} == {"beagle, scottish_terrier"}
    assert dataset.categories == ("beagle", "scottish_terrier")
    assert [sample.id for sample in dataset.samples()] == [sample.id for sample in samples]


def test_chosen_classes_ignore_case_and_underscores(pets: Path) -> None:
    dataset = load_class_folders(pets, "val", categories=["Scottish Terrier"])
    assert [sample.id for sample in dataset.samples()] == ["scottish_terrier/a.jpg", "scottish_terrier/b.PNG"]
    assert next(dataset.samples()).fields["options"] == "scottish_terrier"


def test_unknown_class_names_the_nearest(pets: Path) -> None:
    with pytest.raises(UserError, match="no class 'beagel'; did you mean 'beagle'"):
        load_class_folders(pets, "val", categories=["beagel"])


def test_an_unreadable_image_is_left_to_the_run(pets: Path) -> None:
    (pets / "beagle" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    sizes = {
        sample.id: (sample.image.width, sample.image.height) for sample in load_class_folders(pets, "val").samples()
    }
    assert sizes["beagle/broken.png"] == (1, 1)
    assert len(sizes) == 4


def test_an_empty_class_is_noted(pets: Path) -> None:
    (pets / "pug").mkdir()
    assert load_class_folders(pets, "val").notes == ("no images in the class folders: pug",)


@pytest.mark.parametrize("name", [b"caf\xe9/a.png", b"beagle/caf\xe9.png"])
def test_a_name_that_is_no_text_is_refused(pets: Path, name: bytes) -> None:
    path = pets / os.fsdecode(name)
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(DataError, match=r"'caf.udce9(\.png)?', which is no text"):
        load_class_folders(pets, "val")


def test_missing_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no folder .*gone"):
        load_class_folders(tmp_path / "gone", "val")
    with pytest.raises(DataError, match="has no class folder with images"):
        load_class_folders(tmp_path, "val")
    Image.new("RGB", (4, 4)).save(tmp_path / "loose.png")
    with pytest.raises(DataError, match="has no class folder with images"):
        load_class_folders(tmp_path, "val")
