"""COCO and LVIS files become questions, exactly and in a fixed order; what is wrong with a file is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import BoxTarget, Dataset, Sample
from vrft_bench.tasks.data.coco import load_detection
from vrft_bench.tasks.data.layout import coco_files

Document = dict[str, Any]
Load = Callable[..., Dataset]


def annotation(number: int, image: object, category: object, bbox: object, **more: object) -> Document:
    return {"id": number, "image_id": image, "category_id": category, "bbox": bbox, "area": 50, "iscrowd": 0, **more}


def coco_document() -> Document:
    """Image 2: two cats and a crowd of dogs; image 10: a hot dog; listed out of order."""
    return {
        "images": [
            {"id": 10, "file_name": "ten.png", "width": 60, "height": 40},
            {"id": 2, "file_name": "two.png", "width": 60, "height": 40},
        ],
        "annotations": [
            annotation(1, 2, 7, [1, 2, 3, 4.5]),
            annotation(2, 10, 9, [0, 0, 60, 40], area=2000.5),
            annotation(3, 2, 7, [10, 10, 0, 5]),
            annotation(4, 2, 8, [5, 5, 20, 20], iscrowd=1, area=300),
        ],
        "categories": [{"id": 9, "name": "hot dog"}, {"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}],
    }


def lvis_document() -> Document:
    """Die and mallet; image 1 shows a die (not exhaustive), 2 verifies its absence, 3 was checked for neither."""
    host = "http://images.cocodataset.org"
    federated: Document = {"neg_category_ids": [], "not_exhaustive_category_ids": [], "width": 60, "height": 40}
    return {
        "images": [
            {**federated, "id": 1, "coco_url": f"{host}/val2017/one.png", "not_exhaustive_category_ids": [5]},
            {**federated, "id": 2, "coco_url": f"{host}/train2017/two.png", "neg_category_ids": [5, 6]},
            {**federated, "id": 3, "coco_url": f"{host}/val2017/three.png"},
        ],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 1, 5, 5], "area": 20.0}],
        "categories": [
            {"id": 5, "name": "die", "frequency": "r", "synset": "die.n.01"},
            {"id": 6, "name": "egg_roll", "frequency": "c", "synset": "egg_roll.n.01"},
        ],
    }


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """Writes a document and its images (unless ``images`` is given), and loads it."""

    def load(document: object, images: list[Path] | None = None, **options: Any) -> Dataset:
        path = tmp_path / "annotations.json"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        if images is None:
            images = [tmp_path / "images"]
            for name in ("two.png", "ten.png", "val2017/one.png", "val2017/three.png", "train2017/two.png"):
                (images[0] / name).parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (60, 40)).save(images[0] / name)
        return load_detection(path, images, split="val", **options)

    return load


def ids(samples: Any) -> list[str]:
    return [sample.id for sample in samples()]


def by_id(dataset: Dataset) -> dict[str, Sample]:
    return {sample.id: sample for sample in dataset.samples()}


class TestCoco:
    def test_every_pair_is_asked_by_image_id_then_category_id(self, load: Load) -> None:
        dataset = load(coco_document())
        expected = ["2:cat", "2:dog", "2:hot dog", "10:cat", "10:dog", "10:hot dog"]
        assert ids(dataset.samples) == expected
        assert ids(dataset.samples) == expected, "a second walk differs"
        assert ids(dataset.unasked) == []
        assert dataset.categories == ("cat", "dog", "hot dog")
        assert (dataset.rules, dataset.ask, dataset.split, dict(dataset.frequency)) == ("coco", "all", "val", {})

    def test_boxes_are_xyxy_floats_in_annotation_order_and_crowds_apart(self, load: Load, tmp_path: Path) -> None:
        samples = by_id(load(coco_document()))
        cats = samples["2:cat"]
        assert cats.target == BoxTarget(((1.0, 2.0, 4.0, 6.5), (10.0, 10.0, 10.0, 15.0)), (50.0, 50.0))
        assert all(type(number) is float for box in cats.target.boxes for number in box)  # type: ignore[union-attr]
        assert samples["2:dog"].target == BoxTarget((), (), ((5.0, 5.0, 25.0, 25.0),), (300.0,))
        assert samples["10:hot dog"].target == BoxTarget(((0.0, 0.0, 60.0, 40.0),), (2000.5,))
        assert samples["10:cat"].target == BoxTarget(())
        assert cats.fields == {"category": "cat", "image_id": "2"}
        assert cats.image.path == tmp_path / "images" / "two.png"
        assert (cats.image.width, cats.image.height) == (60, 40)

    def test_area_defaults_to_the_boxs(self, load: Load) -> None:
        document = coco_document()
        del document["annotations"][1]["area"]
        assert by_id(load(document))["10:hot dog"].target == BoxTarget(((0.0, 0.0, 60.0, 40.0),), (2400.0,))

    def test_present_asks_only_pairs_with_an_annotation_that_is_no_crowd(self, load: Load) -> None:
        assert ids(load(coco_document(), ask="present").samples) == ["2:cat", "10:hot dog"]

    @pytest.mark.parametrize("name", ["hot dog", "Hot_Dog", "HOT DOG", "hot_dog"])
    def test_names_match_ignoring_case_and_underscores(self, load: Load, name: str) -> None:
        dataset = load(coco_document(), categories=[name, "cat"])
        assert dataset.categories == ("hot dog", "cat")
        assert ids(dataset.samples) == ["2:hot dog", "2:cat", "10:hot dog", "10:cat"]

    def test_unknown_category_names_the_nearest(self, load: Load) -> None:
        with pytest.raises(
            UserError, match=r"no category 'hotdog'; did you mean 'hot dog'.*\n.*cat, dog, hot dog"
        ) as error:
            load(coco_document(), categories=["hotdog"])
        assert not isinstance(error.value, DataError)

    def test_a_category_given_twice_is_refused(self, load: Load) -> None:
        with pytest.raises(UserError, match="'cat' is asked for twice"):
            load(coco_document(), categories=["cat", "CAT"])

    def test_a_tasks_own_categories_are_a_default_and_missing_ones_the_datas_fault(self, load: Load) -> None:
        assert load(coco_document(), default_categories=["dog"]).categories == ("dog",)
        assert load(coco_document(), categories=["cat"], default_categories=["dog"]).categories == ("cat",)
        with pytest.raises(DataError, match="asks for categories that the data does not have"):
            load(coco_document(), default_categories=["zebra"])

    def test_string_image_ids_follow_the_integers(self, load: Load) -> None:
        document = coco_document()
        document["images"].append({"id": "a", "file_name": "two.png", "width": 5, "height": 5})
        document["annotations"].append(annotation(9, "a", 7, [0, 0, 5, 5]))
        assert ids(load(document, ask="present").samples) == ["2:cat", "10:hot dog", "a:cat"]

    def test_images_are_looked_for_in_every_folder(self, load: Load, tmp_path: Path) -> None:
        for name in ("a/ten.png", "b/two.png"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        samples = load(coco_document(), [tmp_path / "a", tmp_path / "b"], ask="present").samples()
        assert [sample.image.path for sample in samples] == [tmp_path / "b/two.png", tmp_path / "a/ten.png"]

    def test_one_missing_image_is_left_to_the_run(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "two.png").touch()
        assert len(ids(load(coco_document(), [tmp_path / "a"]).samples)) == 6


class TestLvis:
    def test_only_judged_pairs_are_asked(self, load: Load) -> None:
        dataset = load(lvis_document())
        assert dataset.rules == "lvis"
        assert ids(dataset.samples) == ["1:die", "2:die", "2:egg_roll"]
        assert dataset.frequency == {"die": "r", "egg_roll": "c"}

    def test_the_truth_says_where_annotation_is_not_exhaustive(self, load: Load) -> None:
        samples = by_id(load(lvis_document()))
        assert samples["1:die"].target == BoxTarget(((1.0, 1.0, 6.0, 6.0),), (20.0,), exhaustive=False)
        assert samples["2:die"].target == BoxTarget(())

    def test_a_mark_of_not_exhaustive_alone_does_not_make_a_pair_judged(self, load: Load) -> None:
        document = lvis_document()
        document["images"][2]["not_exhaustive_category_ids"] = [6]
        assert "3:egg_roll" not in ids(load(document).samples)

    def test_a_pair_that_lvis_never_checked_is_unverified_when_a_map_asks_it(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "map.json").write_text('{"1": ["egg roll"], "2": ["die"]}')
        samples = by_id(load(lvis_document(), ask=f"file:{tmp_path / 'map.json'}"))
        assert samples["1:egg_roll"].target == BoxTarget((), verified=False)
        assert samples["2:die"].target == BoxTarget(())

    def test_files_are_found_by_the_last_two_parts_of_the_url(self, load: Load, tmp_path: Path) -> None:
        paths = {sample.id: sample.image.path for sample in load(lvis_document()).samples()}
        assert paths["1:die"] == tmp_path / "images/val2017/one.png"
        assert paths["2:die"] == tmp_path / "images/train2017/two.png"

    def test_the_split_folder_may_be_a_link_to_where_coco_is_kept(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "coco").mkdir()
        (tmp_path / "coco" / "one.png").touch()
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "val2017").symlink_to(tmp_path / "coco")
        first = next(load(lvis_document(), [tmp_path / "linked"]).samples())
        assert first.image.path == tmp_path / "linked/val2017/one.png"

    def test_the_split_folder_itself_may_be_named(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "val2017").mkdir()
        (tmp_path / "val2017" / "one.png").touch()
        assert next(load(lvis_document(), [tmp_path / "val2017"]).samples()).image.path == tmp_path / "val2017/one.png"


class TestAskMap:
    @pytest.fixture
    def ask(self, tmp_path: Path) -> Callable[[object], str]:
        def ask(value: object) -> str:
            path = tmp_path / "map.json"
            path.write_text(value if isinstance(value, str) else json.dumps(value))
            return f"file:{path}"

        return ask

    def test_asks_what_it_names_and_gives_the_rest_of_the_truth_as_unasked(
        self, load: Load, ask: Callable[[object], str]
    ) -> None:
        dataset = load(coco_document(), ask=ask({"2": ["Hot_Dog", "dog"]}))
        assert ids(dataset.samples) == ["2:dog", "2:hot dog"]
        unasked = list(dataset.unasked())
        assert [sample.id for sample in unasked] == ["2:cat", "10:hot dog"]
        assert [len(sample.target.boxes) for sample in unasked] == [2, 1]  # type: ignore[union-attr]
        assert dataset.notes == ("1 of 2 images are not in the ask map: their objects count as missed",)

    def test_unasked_stays_within_the_chosen_categories(self, load: Load, ask: Callable[[object], str]) -> None:
        dataset = load(coco_document(), ask=ask({"2": ["dog"]}), categories=["dog", "hot dog"])
        assert ids(dataset.unasked) == ["10:hot dog"]

    def test_names_that_the_data_does_not_have_are_noted(self, load: Load, ask: Callable[[object], str]) -> None:
        dataset = load(coco_document(), ask=ask({"2": ["cat", "zebra"], "10": []}))
        assert dataset.notes == ("the ask map names categories that the data does not have: zebra",)

    @pytest.mark.parametrize(
        ("value", "message"),
        [
            ({"99": ["cat"]}, r"names no image of .*annotations\.json, whose ids are '2', '10'"),
            ({"2": ["zebra"], "10": []}, r"names no category of .*annotations\.json, which has 'cat'"),
            (["cat"], "is not an ask map: it is a list"),
            ({"2": "cat"}, "is not an ask map: image '2' has 'cat'"),
            ({"2": [7]}, "is not an ask map: image '2' has"),
            ("{", "is not JSON"),
        ],
    )
    def test_a_wrong_map_is_refused(
        self, load: Load, ask: Callable[[object], str], value: object, message: str
    ) -> None:
        with pytest.raises(DataError, match=message):
            load(coco_document(), ask=ask(value))

    def test_a_missing_map_is_named(self, load: Load, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"there is no file .*nowhere\.json"):
            load(coco_document(), ask=f"file:{tmp_path / 'nowhere.json'}")

    @pytest.mark.parametrize("rule", ["presnt", "file:", "", "truth"])
    def test_an_unknown_rule_names_the_valid_ones(self, load: Load, rule: str) -> None:
        with pytest.raises(UserError, match="use present, all or file:PATH"):
            load(coco_document(), ask=rule)


class TestRefusals:
    def test_missing_annotation_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"there is no file .*no\.json"):
            load_detection(tmp_path / "no.json", [tmp_path], split="val")

    def test_a_folder_in_place_of_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            load_detection(tmp_path, [tmp_path], split="val")

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
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
                "it is a list, as results files are",
            ),
            ("7", "holds a int"),
            ({"images": [], "annotations": []}, "the key 'categories' is missing"),
            ({**coco_document(), "annotations": {}}, "'annotations' is not a list of objects but a dict"),
            ({**coco_document(), "images": [1]}, "'images' is not a list of objects"),
            ({**coco_document(), "images": []}, "lists no images"),
            ({**coco_document(), "categories": [{"name": "x"}]}, "lacks an integer 'id'"),
            ({**coco_document(), "categories": [{"id": 1, "name": "x"}] * 2}, "'x' .id 1. is listed twice"),
        ],
    )
    def test_not_coco(self, load: Load, document: object, message: str) -> None:
        with pytest.raises(DataError, match=message):
            load(document)

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
        ],
    )
    def test_a_wrong_annotation_is_named(self, load: Load, change: Document, message: str) -> None:
        document = coco_document()
        document["annotations"][0].update(change)
        with pytest.raises(DataError, match=message):
            load(document)

    def test_a_wrong_annotation_of_a_category_that_is_not_asked_is_named_too(self, load: Load) -> None:
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
            ({"width": 0}, "image 10 has the width 0"),
            ({"height": "40"}, "image 10 has the height '40'"),
            ({"file_name": None}, "image 10 has neither a 'file_name' nor a 'coco_url'"),
            ({"neg_category_ids": "die"}, "image 10: 'neg_category_ids' is not a list of category ids"),
        ],
    )
    def test_a_wrong_image_is_named(self, load: Load, change: Document, message: str) -> None:
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
    def test_a_file_name_that_leaves_the_image_folder_is_refused(self, load: Load, name: str) -> None:
        document = coco_document()
        document["images"][0]["file_name"] = name
        with pytest.raises(DataError, match="leaves the image folder"):
            load(document)

    def test_a_url_whose_last_parts_leave_the_folder_is_refused(self, load: Load) -> None:
        document = lvis_document()
        document["images"][0]["coco_url"] = "http://example.org/../passwd"
        with pytest.raises(DataError, match="leaves the image folder"):
            load(document)

    @pytest.mark.parametrize("link", ["ten.png", "inner"])
    def test_a_link_inside_the_image_folder_that_points_out_of_it_is_refused(
        self, load: Load, tmp_path: Path, link: str
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

    def test_a_link_within_the_folder_and_a_linked_folder_are_fine(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "real" / "two.png").touch()
        (tmp_path / "real" / "ten.png").symlink_to("two.png")
        (tmp_path / "link").symlink_to(tmp_path / "real")
        assert len(ids(load(coco_document(), [tmp_path / "link"]).samples)) == 6

    def test_missing_image_folder_is_named(self, load: Load, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"image folder is not there: .*nowhere"):
            load(coco_document(), [tmp_path / "nowhere"])

    def test_a_folder_with_none_of_the_images_is_named(self, load: Load, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match=r"the first is two\.png.; looked in .*empty"):
            load(coco_document(), [tmp_path / "empty"])

    def test_no_question_left(self, load: Load) -> None:
        with pytest.raises(DataError, match="no question is left"):
            load(coco_document(), ask="present", categories=["dog"])


class TestRealCoco:
    @pytest.mark.parametrize(
        ("split", "images", "objects", "crowds"), [("train", 32, 284, 4), ("val", 6, 135, 1)], ids=["train", "val"]
    )
    def test_counts(self, tinycoco: Path, split: str, images: int, objects: int, crowds: int) -> None:
        samples = list(load_detection(*coco_files(tinycoco, split), split=split).samples())
        assert len(samples) == images * 80
        targets = [sample.target for sample in samples if isinstance(sample.target, BoxTarget)]
        assert sum(len(target.boxes) for target in targets) == objects
        assert sum(len(target.crowd) for target in targets) == crowds

    def test_person_of_val(self, tinycoco: Path) -> None:
        dataset = load_detection(*coco_files(tinycoco, "val"), split="val", categories=["Person"])
        targets = [sample.target for sample in dataset.samples() if isinstance(sample.target, BoxTarget)]
        assert len(targets) == 6
        assert sum(len(target.boxes) + len(target.crowd) for target in targets) == 27

    def test_sizes_and_files_agree_with_the_images(self, tinycoco: Path) -> None:
        for sample in load_detection(*coco_files(tinycoco, "val"), split="val", categories=["person"]).samples():
            assert sample.image.path is not None
            with Image.open(sample.image.path) as image:
                assert image.size == (sample.image.width, sample.image.height)

    def test_a_published_exist_map_is_read(self, tinycoco: Path, shared_data: Path) -> None:
        path = shared_data / "exist_maps" / "exist_map_coco_Qwen2_vl_2B_baseline.json"
        dataset = load_detection(*coco_files(tinycoco, "train"), split="train", ask=f"file:{path}")
        asked, unasked = set(ids(dataset.samples)), set(ids(dataset.unasked))
        assert (len(asked), len(unasked)) == (152, 15)
        assert {"37777:banana", "37777:refrigerator"} <= asked
        present = set(ids(load_detection(*coco_files(tinycoco, "train"), split="train", ask="present").samples))
        assert present - asked == unasked

    def test_a_map_of_other_images_is_refused(self, tinycoco: Path, shared_data: Path) -> None:
        path = shared_data / "exist_maps" / "exist_map_coco_Qwen2_vl_2B_baseline.json"
        with pytest.raises(DataError, match="names no image"):
            load_detection(*coco_files(tinycoco, "val"), split="val", ask=f"file:{path}")
