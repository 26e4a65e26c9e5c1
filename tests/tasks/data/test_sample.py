"""The embedded sample data: in the real formats, the same everywhere, and no image of train in any other split."""

from __future__ import annotations

import hashlib
import itertools
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.errors import UserError
from vrft_bench.tasks.base import BoxTarget, ClassTarget, Dataset, MaskTarget
from vrft_bench.tasks.data import sample
from vrft_bench.tasks.data.coco import load_detection
from vrft_bench.tasks.data.folders import load_class_folders
from vrft_bench.tasks.data.layout import coco_files, lvis_files
from vrft_bench.tasks.data.reasonseg import load_reasonseg
from vrft_bench.tasks.data.sample_scenes import COUNTS, LVIS_COMMON_4, LVIS_FREQUENT_3, coco_scene

pytestmark = pytest.mark.usefixtures("sample_cache")
SPLITS = [(kind, split) for kind, splits in COUNTS.items() for split in splits]


def load(kind: str, split: str, **options: Any) -> Dataset:
    root = sample.sample_folder(kind, split)
    match kind:
        case "coco":
            return load_detection(*coco_files(root, split), split=split, is_sample=True, **options)
        case "lvis":
            return load_detection(*lvis_files(root, split), split=split, is_sample=True, **options)
        case "reasonseg":
            return load_reasonseg(root / split, split, is_sample=True)
        case _:
            return load_class_folders(root / split, split, is_sample=True)


def image_files(kind: str, split: str) -> list[Path]:
    return sorted(sample.sample_folder(kind, split).rglob("*.png"))


def pixels(path: Path) -> bytes:
    with Image.open(path) as image:
        assert (image.size, image.mode) == ((84, 84), "RGB")
        return hashlib.sha256(image.tobytes()).digest()


def document(kind: str, split: str) -> dict[str, Any]:
    (path,) = (sample.sample_folder(kind, split) / "annotations").glob("*.json")
    value: dict[str, Any] = json.loads(path.read_text())
    return value


class TestNames:
    def test_the_twenty_categories_are_colours_times_shapes(self) -> None:
        assert len(set(sample.CATEGORIES)) == 20
        assert {name.split()[0] for name in sample.CATEGORIES} == {"red", "green", "blue", "yellow", "purple"}
        assert {name.split()[1] for name in sample.CATEGORIES} == {"circle", "square", "triangle", "cross"}

    def test_the_choices_are_made_of_them(self) -> None:
        assert (len(set(sample.FEWSHOT_8)), len(set(sample.NOVEL_5)), len(set(sample.CLASSES_8))) == (8, 5, 8)
        assert set(sample.FEWSHOT_8) | set(sample.NOVEL_5) | set(sample.CLASSES_8) <= set(sample.CATEGORIES)
        assert (len(set(sample.LVIS_RARE_13)), len(set(sample.LVIS_FEWSHOT_6))) == (13, 6)
        assert set(sample.LVIS_FEWSHOT_6) < set(sample.LVIS_RARE_13)
        assert {name.replace("_", " ") for name in sample.LVIS_RARE_13} < set(sample.CATEGORIES)


class TestPixels:
    def test_no_image_of_train_is_in_another_split_and_none_occurs_twice(self) -> None:
        hashes = {pair: [pixels(path) for path in image_files(*pair)] for pair in SPLITS}
        assert {pair: len(found) for pair, found in hashes.items()} == {
            (kind, split): COUNTS[kind][split] for kind, split in SPLITS
        }
        train = {digest for (_, split), found in hashes.items() if split == "train" for digest in found}
        held_out = {digest for (_, split), found in hashes.items() if split != "train" for digest in found}
        assert train.isdisjoint(held_out)
        assert len(train) + len(held_out) == sum(len(found) for found in hashes.values()) == 8140

    @pytest.mark.parametrize(
        ("kind", "split", "expected"),
        [
            ("coco", "val", "74b9db9c8a8b9f60"),
            ("lvis", "val", "dce7844b27d1862c"),
            ("reasonseg", "test", "b4bfd0a699ca16b3"),
            ("classes", "val", "45049425a67a1fcd"),
        ],
    )
    def test_pixels_are_the_same_on_every_machine(self, kind: str, split: str, expected: str) -> None:
        """A failure here means: the cache's version must change with the pixels (``sample-v2`` -> ``sample-v3``)."""
        digest = hashlib.sha256(b"".join(pixels(path) for path in image_files(kind, split))).hexdigest()
        assert digest[:16] == expected

    @pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
    def test_boxes_are_exact_and_the_polygon_and_area_fit_the_shape(self) -> None:
        from pycocotools.coco import COCO

        path = sample.sample_folder("coco", "val")
        coco = COCO(str(path / "annotations" / "instances_val2017.json"))
        for entry in coco.anns.values():
            x, y, width, height = entry["bbox"]
            with Image.open(path / "images" / "val2017" / coco.imgs[entry["image_id"]]["file_name"]) as image:
                cut = image.crop((x, y, x + width, y + height))
            tint = Counter(cut.get_flattened_data()).most_common(1)[0][0]
            drawn = [[cut.getpixel((i, j)) == tint for i in range(width)] for j in range(height)]
            assert sum(map(sum, drawn)) == entry["area"]
            assert any(drawn[0])
            assert any(drawn[-1])
            assert any(row[0] for row in drawn)
            assert any(row[-1] for row in drawn)
            mask = coco.annToMask(entry)[y : y + height, x : x + width]
            both = sum(bool(mask[j][i]) and drawn[j][i] for j in range(height) for i in range(width))
            assert both / (mask.sum() + entry["area"] - both) > 0.93


class TestCoco:
    def test_objects_do_not_overlap_and_cover_whole_cells(self) -> None:
        data = document("coco", "train")
        cells: Counter[tuple[int, int, int]] = Counter()
        sizes: Counter[tuple[int, int]] = Counter()
        for entry in data["annotations"]:
            x, y, width, height = (side // 28 for side in entry["bbox"])
            assert [x * 28, y * 28, width * 28, height * 28] == entry["bbox"]
            sizes[width, height] += 1
            cells.update((entry["image_id"], x + i, y + j) for i in range(width) for j in range(height))
        assert max(cells.values()) == 1
        assert set(sizes) == {(1, 1), (1, 2), (2, 1), (2, 2)}
        assert min(sizes.values()) > 1000
        per_image = Counter(entry["image_id"] for entry in data["annotations"])
        assert (len(per_image), set(per_image.values())) == (4000, {1, 2, 3, 4})

    def test_two_things_of_one_category_never_share_an_edge(self) -> None:
        for index in range(2000):
            things = coco_scene("train", index).things
            for one, other in itertools.combinations(things, 2):
                if one.category == other.category:
                    gaps = [max(one.box[i], other.box[i]) - min(one.box[i + 2], other.box[i + 2]) for i in (0, 1)]
                    assert max(gaps) > 0 or gaps == [0, 0], f"scene {index}"

    def test_every_category_is_often_in_val_and_sometimes_twice_in_an_image(self) -> None:
        dataset = load("coco", "val", ask="present")
        assert dataset.is_sample
        assert dataset.categories == sample.CATEGORIES
        counts = Counter(item.fields["category"] for item in dataset.samples())
        assert min(counts[name] for name in sample.CATEGORIES) >= 12
        assert sum(len(item.target.boxes) > 1 for item in dataset.samples() if isinstance(item.target, BoxTarget)) == 62

    def test_ids_of_images_differ_between_splits(self) -> None:
        train, val = ({image["id"] for image in document("coco", split)["images"]} for split in ("train", "val"))
        assert train.isdisjoint(val)


class TestLvis:
    def test_frequencies_are_what_lviss_rule_makes_of_train(self) -> None:
        dataset = load("lvis", "train", ask="present")
        images = Counter(item.fields["category"] for item in dataset.samples())
        rule = {name: "r" if images[name] <= 10 else "c" if images[name] <= 100 else "f" for name in dataset.categories}
        assert min(images.values()) >= 1
        assert dataset.frequency == rule == load("lvis", "val").frequency
        assert {name for name, kind in rule.items() if kind == "r"} == set(sample.LVIS_RARE_13)
        assert {name for name, kind in rule.items() if kind == "c"} == set(LVIS_COMMON_4)
        assert {name for name, kind in rule.items() if kind == "f"} == set(LVIS_FREQUENT_3)
        listed = {row["name"]: row["image_count"] for row in document("lvis", "val")["categories"]}
        assert listed == images

    def test_every_category_is_in_val_and_is_verified_absent_in_val(self) -> None:
        targets = [(item.fields["category"], item.target) for item in load("lvis", "val").samples()]
        present = Counter(name for name, target in targets if isinstance(target, BoxTarget) and target.boxes)
        absent = Counter(name for name, target in targets if isinstance(target, BoxTarget) and not target.boxes)
        names = {name.replace(" ", "_") for name in sample.CATEGORIES}
        assert min(present[name] for name in names) >= 8
        assert min(absent[name] for name in names) >= 8
        assert 5 <= sum(isinstance(target, BoxTarget) and not target.exhaustive for _, target in targets) <= 40

    @pytest.mark.parametrize("split", ["train", "val"])
    def test_federated_fields_hold_what_they_promise(self, split: str) -> None:
        data = document("lvis", split)
        present: dict[int, set[int]] = {image["id"]: set() for image in data["images"]}
        for entry in data["annotations"]:
            present[entry["image_id"]].add(entry["category_id"])
        for image in data["images"]:
            assert present[image["id"]].isdisjoint(image["neg_category_ids"])
            assert 3 <= len(set(image["neg_category_ids"])) <= 6
            assert present[image["id"]].issuperset(image["not_exhaustive_category_ids"])
            assert "file_name" not in image

    def test_lviss_own_api_reads_it(self) -> None:
        from lvis import LVIS

        annotations, _ = lvis_files(sample.sample_folder("lvis", "val"), "val")
        api = LVIS(str(annotations))
        assert (len(api.imgs), len(api.cats)) == (200, 20)
        first = next(iter(api.anns.values()))
        assert api.ann_to_mask(first).shape == (84, 84)


class TestGrounding:
    def test_every_image_has_its_instructions_and_target(self) -> None:
        samples = list(load("reasonseg", "val").samples())
        assert len(samples) == 200
        assert len({item.fields["instruction"] for item in samples}) > 20
        for item in samples:
            assert isinstance(item.target, MaskTarget)
            assert all(side % 28 == 0 for side in item.target.box)
        assert 1500 <= len(list(load("reasonseg", "train").samples())) <= 2500


class TestClasses:
    def test_every_class_has_as_many_images(self) -> None:
        dataset = load("classes", "val")
        labels = Counter(item.target.label for item in dataset.samples() if isinstance(item.target, ClassTarget))
        assert labels == {name.replace(" ", "_"): 30 for name in sample.CLASSES_8}


class TestCache:
    @pytest.fixture
    def cache(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setenv("VRFT_BENCH_CACHE", str(tmp_path / "cache"))
        return tmp_path / "cache"

    def test_only_the_split_that_is_asked_for_is_drawn(self, cache: Path) -> None:
        root = sample.sample_folder("classes", "val")
        assert root == cache / "sample-v2" / "classes" / "val"
        assert sorted(path.name for path in cache.rglob("*") if path.is_dir() and path.parent == root.parent) == ["val"]
        assert len(list(cache.rglob("*.png"))) == 240

    def test_it_is_drawn_once(self, cache: Path) -> None:
        before = {path: path.stat().st_mtime_ns for path in sample.sample_folder("classes", "val").rglob("*")}
        after = {path: path.stat().st_mtime_ns for path in sample.sample_folder("classes", "val").rglob("*")}
        assert before == after
        assert cache.is_dir()

    def test_a_drawing_that_fails_leaves_nothing_behind(self, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from vrft_bench.tasks.data import sample_formats

        drawn = []

        def fail(path: Path, **_: object) -> None:
            drawn.append(path)
            if len(drawn) == 5:
                raise OSError(28, "No space left on device")

        def draw(_: object) -> object:
            return type("Broken", (), {"save": staticmethod(fail)})

        monkeypatch.setattr(sample_formats, "draw", draw)
        with pytest.raises(UserError, match=r"cannot be written to .*: No space left(.|\n)*VRFT_BENCH_CACHE"):
            sample.sample_folder("coco", "val")
        assert len(drawn) == 5
        assert list((cache / "sample-v2" / "coco").iterdir()) == []
        monkeypatch.undo()

    def test_two_processes_at_once_agree(self, cache: Path) -> None:
        script = "from vrft_bench.tasks.data.sample import sample_folder; sample_folder('classes', 'val')"
        running = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(3)]
        assert [process.wait(timeout=120) for process in running] == [0, 0, 0]
        assert [path.name for path in (cache / "sample-v2" / "classes").iterdir()] == ["val"]
        assert len(list(cache.rglob("*.png"))) == 240

    def test_a_killed_process_leaves_no_split(self, cache: Path) -> None:
        script = (
            "import os, vrft_bench.tasks.data.sample_formats as f\n"
            "from vrft_bench.tasks.data.sample import sample_folder\n"
            "f._write_json = lambda *_: os._exit(9)\n"
            "sample_folder('coco', 'val')"
        )
        assert subprocess.run([sys.executable, "-c", script], timeout=120, check=False).returncode == 9
        assert not (cache / "sample-v2" / "coco" / "val").exists()
        assert len(list(sample.sample_folder("coco", "val").rglob("*.png"))) == 300

    def test_a_cache_that_cannot_be_written_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "file").touch()
        monkeypatch.setenv("VRFT_BENCH_CACHE", str(tmp_path / "file"))
        with pytest.raises(UserError, match="set VRFT_BENCH_CACHE to a folder"):
            sample.sample_folder("coco", "val")

    def test_an_unknown_split_names_the_valid_ones(self) -> None:
        with pytest.raises(UserError, match=r"no split 'test'(.|\n)*--split train or val"):
            sample.sample_folder("coco", "test")

    def test_where_the_cache_is(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.delenv("VRFT_BENCH_CACHE", raising=False)
        monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
        assert sample.cache_folder() == tmp_path / ".cache" / "vrft-bench"
        monkeypatch.setenv("XDG_CACHE_HOME", "relative")
        assert sample.cache_folder() == tmp_path / ".cache" / "vrft-bench"
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert sample.cache_folder() == tmp_path / "xdg" / "vrft-bench"
        monkeypatch.setenv("VRFT_BENCH_CACHE", "~/own")
        assert sample.cache_folder() == tmp_path / "own"
