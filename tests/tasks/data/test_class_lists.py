"""The four classification sets are read as their owners, torchvision and CoOp lay them out."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import ClassTarget, DataSpec, Sample
from vrft_bench.tasks.data.class_lists import VAL_IS_TEST, read_class_list
from vrft_bench.tasks.data.flower_names import FLOWER_NAMES
from vrft_bench.tasks.data.folders import load_class_folders
from vrft_bench.tasks.data.splits import draw_splits
from vrft_bench.tasks.data.survey import survey

savemat = pytest.importorskip("scipy.io").savemat


def images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (6, 4)).save(folder / name)


def pairs(samples: list[Sample]) -> list[tuple[str, str]]:
    return [(sample.id, sample.target.label) for sample in samples if isinstance(sample.target, ClassTarget)]


def read(folder: Path, split: str) -> list[tuple[str, str]]:
    return pairs(list(load_class_folders(folder, split).samples()))


def files(folder: Path, split: str) -> list[str]:
    paths = [sample.image.path for sample in load_class_folders(folder, split).samples()]
    return [path.relative_to(folder).as_posix() for path in paths if path is not None and path.is_file()]


def flowers(folder: Path) -> Path:
    """Images 1 to 5 of the classes 77, 77, 1, 102 and 1; 2 is for training, 4 for validation."""
    images(folder, *(f"jpg/image_{number:05d}.jpg" for number in range(1, 6)))
    savemat(folder / "imagelabels.mat", {"labels": np.array([[77, 77, 1, 102, 1]], dtype=np.uint8)})
    sets = {"trnid": [[2]], "valid": [[4]], "tstid": [[5, 1, 3]]}
    savemat(folder / "setid.mat", {name: np.array(ids, dtype=np.uint16) for name, ids in sets.items()})
    return folder


def test_flowers_by_setid_and_imagelabels(tmp_path: Path) -> None:
    folder = flowers(tmp_path)
    test = [
        ("image_00001.jpg", "passion flower"),
        ("image_00005.jpg", "pink primrose"),
        ("image_00003.jpg", "pink primrose"),
    ]
    assert read(folder, "test") == read(folder, "val") == test
    assert read(folder, "train") == [("image_00002.jpg", "passion flower")]
    assert read(folder, "validation") == [("image_00004.jpg", "blackberry lily")]
    assert len(read(folder, "trainval")) == 2
    assert load_class_folders(folder, "val").notes == (VAL_IS_TEST,)
    assert load_class_folders(folder, "test").notes == ()


def test_numbers_count_from_one(tmp_path: Path) -> None:
    """A 0 would be the last label in Python, and nobody would see it."""
    flowers(tmp_path)
    savemat(tmp_path / "imagelabels.mat", {"labels": np.array([[76, 76, 0, 101, 0]], dtype=np.uint8)})
    with pytest.raises(DataError, match=r"are not those of Flowers102 \(there is no number 0\)"):
        read(tmp_path, "val")


def test_the_flower_names_are_those_of_the_papers_labels(shared_data: Path) -> None:
    rows = csv.DictReader((shared_data / "visual_rft_labels" / "oxford_flowers.csv").read_text().splitlines())
    assert len(FLOWER_NAMES) == 102
    assert {row["label"] for row in rows} == set(FLOWER_NAMES)


def test_pets_by_their_lists(tmp_path: Path) -> None:
    images(tmp_path, "images/Abyssinian_201.jpg", "images/american_bulldog_7.jpg", "images/Abyssinian_2.jpg")
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "test.txt").write_text("# Image ID\nAbyssinian_201 1 1 1\namerican_bulldog_7 2 2 1\n")
    (tmp_path / "annotations" / "trainval.txt").write_text("Abyssinian_2 1 1 1\n")
    assert read(tmp_path, "val") == [
        ("Abyssinian_201.jpg", "abyssinian"),
        ("american_bulldog_7.jpg", "american_bulldog"),
    ]
    assert files(tmp_path, "val") == ["images/Abyssinian_201.jpg", "images/american_bulldog_7.jpg"]
    assert read(tmp_path, "train") == read(tmp_path, "trainval") == [("Abyssinian_2.jpg", "abyssinian")]
    with pytest.raises(DataError, match="the split that its owners call 'val' is not in"):
        read(tmp_path, "validation")


@pytest.mark.parametrize("part", ["data/", ""])
def test_aircraft_by_their_lists(tmp_path: Path, part: str) -> None:
    images(tmp_path, f"{part}images/1514522.jpg", f"{part}images/0747566.jpg")
    (tmp_path / f"{part}images_variant_test.txt").write_text("1514522 707-320\n0747566 F-16A/B\n")
    (tmp_path / f"{part}images_variant_val.txt").write_text("0747566 Cessna 172\n")
    assert read(tmp_path, "val") == [("1514522.jpg", "707-320"), ("0747566.jpg", "F-16A/B")]
    assert files(tmp_path, "val") == [f"{part}images/1514522.jpg", f"{part}images/0747566.jpg"]
    assert read(tmp_path, "validation") == [("0747566.jpg", "Cessna 172")]


@pytest.mark.parametrize(("beside", "nested"), [("", ""), ("devkit", ""), ("", "cars_test/")])
def test_cars_by_their_devkit(tmp_path: Path, beside: str, nested: str) -> None:
    images(tmp_path, "cars_train/00001.jpg", f"cars_test/{nested}00001.jpg")
    (tmp_path / "devkit").mkdir()
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)
    savemat(tmp_path / "devkit" / "cars_meta.mat", {"class_names": names})
    for path, number in ((tmp_path / beside / "cars_test_annos_withlabels.mat", 2),):
        savemat(path, {"annotations": np.array([(number, "00001.jpg")], dtype=[("class", "O"), ("fname", "O")])})
    train = np.array([(1, "00001.jpg")], dtype=[("class", "O"), ("fname", "O")])
    savemat(tmp_path / "devkit" / "cars_train_annos.mat", {"annotations": train})
    assert read(tmp_path, "val") == [("00001.jpg", "2012 Acura RL Sedan")]
    assert read(tmp_path, "train") == [("00001.jpg", "2000 AM General Hummer SUV")]
    assert files(tmp_path, "val") == [f"cars_test/{nested}00001.jpg"]
    assert files(tmp_path, "train") == ["cars_train/00001.jpg"]


def test_one_draw_and_one_hash_hold_for_every_copy_of_a_set(tmp_path: Path) -> None:
    """The owners' archive, torchvision and CoOp keep the same images and lists in folders of different names."""
    for place in ("fgvc-aircraft-2013b/data", "fgvc_aircraft"):
        images(tmp_path / place, *(f"images/{number}.jpg" for number in range(6)))
        (tmp_path / place / "images_variant_train.txt").write_text(
            "".join(f"{number} 707-320\n" for number in range(6))
        )
    archive = load_class_folders(tmp_path / "fgvc-aircraft-2013b", "train")
    coop = load_class_folders(tmp_path / "fgvc_aircraft", "train")
    assert list(draw_splits(archive, "t", [2], [0])) == list(draw_splits(coop, "t", [2], [0]))
    assert survey(archive).sha256 == survey(coop).sha256


def test_a_split_of_coop_comes_before_the_owners_list(tmp_path: Path) -> None:
    flowers(tmp_path)
    split = {"train": [], "val": [["image_00002.jpg", 0, "rose"]], "test": [["image_00004.jpg", 1, "water lily"]]}
    (tmp_path / "split_zhou_OxfordFlowers.json").write_text(json.dumps(split))
    assert read(tmp_path, "val") == [("image_00004.jpg", "water lily")]
    assert read(tmp_path, "validation") == [("image_00002.jpg", "rose")]
    with pytest.raises(DataError, match="names no image"):
        read(tmp_path, "train")


def test_a_list_of_ones_own_comes_first(tmp_path: Path) -> None:
    flowers(tmp_path)
    (tmp_path / "val.csv").write_text("image,label\nimage_00003.jpg,rose\n")
    assert read(tmp_path, "val") == [("image_00003.jpg", "rose")]
    assert load_class_folders(tmp_path, "val").notes == ()
    assert len(read(tmp_path, "test")) == 3


def test_the_papers_own_list_selects_its_images(shared_data: Path, tmp_path: Path) -> None:
    shutil.copy(shared_data / "visual_rft_labels" / "stanford_cars.csv", tmp_path / "val.csv")
    images(tmp_path, "cars_train/00001.jpg", "cars_test/00001.jpg")
    dataset = load_class_folders(tmp_path, "val", categories=["2007 Suzuki Aerio Sedan"])
    assert next(dataset.samples()).image.path == tmp_path / "cars_test" / "00001.jpg"
    listed = read_class_list(tmp_path, "val")
    assert listed is not None
    assert len(listed.rows) == 8041
    assert len({label for _, label in listed.rows}) == 196


@pytest.mark.parametrize("name", ["flower102", "flowers-102"])
def test_a_task_finds_the_set_under_the_data_root(tmp_path: Path, name: str) -> None:
    flowers(tmp_path / name)
    dataset = get_task("flower102_fewshot").load(DataSpec(root=tmp_path))
    assert [label for _, label in pairs(list(dataset.samples()))] == [
        "passion flower",
        "pink primrose",
        "pink primrose",
    ]
    assert dataset.categories == ("passion flower", "pink primrose")


def test_class_folders_named_test_are_what_val_means(tmp_path: Path) -> None:
    images(tmp_path, "stanford_cars/test/2012 Acura RL Sedan/1.jpg")
    dataset = get_task("cars196_fewshot").load(DataSpec(root=tmp_path))
    assert dataset.categories == ("2012 Acura RL Sedan",)
    assert dataset.notes == (VAL_IS_TEST,)


def test_a_folder_in_no_known_layout_is_refused(tmp_path: Path) -> None:
    images(tmp_path, "pets37/images/a.jpg")
    with pytest.raises(DataError, match="none of these is there"):
        get_task("pets37_fewshot").load(DataSpec(root=tmp_path))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"val.csv": "image,name\na.jpg,rose\n"}, "a row lacks 'image' or 'label'"),
        ({"val.csv": "image,label\na.jpg," + "x" * 200_000}, "val.csv is not CSV: field larger"),
        ({"val.csv": "image,label\na.jpg,rose\na.jpg,lily\n"}, "names the image 'a.jpg' twice"),
        ({"val.csv": "image,label\n../a.jpg,rose\n"}, "which leaves the image folder"),
        ({"val.csv": "image,label\n"}, "names no image"),
        ({"split_zhou_Pets.json": '{"test": [["a.jpg", 1]]}'}, "is not one of CoOp's split files"),
        ({"images_variant_test.txt": "1514522\n"}, "a line without a variant"),
        ({"setid.mat": "no matlab", "imagelabels.mat": "no matlab"}, "is not a MATLAB file"),
        ({"val.csv": "image,label\na.jpg,rose\n"}, "none of the first 20 images is there"),
    ],
)
def test_a_wrong_list_is_named(tmp_path: Path, files: dict[str, str], message: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        read(tmp_path, "val")


def test_without_scipy_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowers(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(UserError, match=r"scipy is not installed(.|\n)*pip install 'vrft-bench\[data\]'"):
        read(tmp_path, "val")
