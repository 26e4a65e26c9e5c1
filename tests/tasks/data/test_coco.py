"""COCO and LVIS files become questions, exactly and in a fixed order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, Dataset, DataSpec, ProtocolName, Sample
from vrft_bench.tasks.data.annotations import read_document
from vrft_bench.tasks.data.coco import load_detection
from vrft_bench.tasks.data.layout import coco_files

Document = dict[str, Any]
Load = Callable[..., Dataset]
Make = Callable[[], Document]


def ids(samples: Any) -> list[str]:
    return [sample.id for sample in samples()]


def by_id(dataset: Dataset) -> dict[str, Sample]:
    return {sample.id: sample for sample in dataset.samples()}


class TestCoco:
    def test_every_pair_is_asked_by_image_id_then_category_id(self, load: Load, coco_document: Make) -> None:
        dataset = load(coco_document())
        expected = ["2:cat", "2:dog", "2:hot dog", "10:cat", "10:dog", "10:hot dog"]
        assert ids(dataset.samples) == expected
        assert ids(dataset.samples) == expected, "a second walk differs"
        assert ids(dataset.unasked) == []
        assert dataset.categories == ("cat", "dog", "hot dog")
        assert (dataset.rules, dataset.ask, dataset.split, dict(dataset.frequency)) == ("coco", "all", "val", {})

    def test_boxes_are_xyxy_floats_in_annotation_order_and_crowds_apart(
        self, load: Load, tmp_path: Path, coco_document: Make
    ) -> None:
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

    def test_outlines_which_are_most_of_a_file_are_not_kept(self, tmp_path: Path, coco_document: Make) -> None:
        document = coco_document()
        document["annotations"][0]["segmentation"] = [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]
        (tmp_path / "a.json").write_text(json.dumps(document))
        assert all("segmentation" not in row for row in read_document(tmp_path / "a.json").raw["annotations"])

    def test_area_defaults_to_the_boxs(self, load: Load, coco_document: Make) -> None:
        document = coco_document()
        del document["annotations"][1]["area"]
        assert by_id(load(document))["10:hot dog"].target == BoxTarget(((0.0, 0.0, 60.0, 40.0),), (2400.0,))

    def test_present_asks_only_pairs_with_an_annotation_that_is_no_crowd(self, load: Load, coco_document: Make) -> None:
        assert ids(load(coco_document(), ask="present").samples) == ["2:cat", "10:hot dog"]

    @pytest.mark.parametrize("name", ["hot dog", "Hot_Dog", "HOT DOG", "hot_dog"])
    def test_names_match_ignoring_case_and_underscores(self, load: Load, name: str, coco_document: Make) -> None:
        dataset = load(coco_document(), categories=[name, "cat"])
        assert dataset.categories == ("hot dog", "cat")
        assert ids(dataset.samples) == ["2:hot dog", "2:cat", "10:hot dog", "10:cat"]

    def test_unknown_category_names_the_nearest(self, load: Load, coco_document: Make) -> None:
        with pytest.raises(
            UserError, match=r"no category 'hotdog'; did you mean 'hot dog'.*\n.*cat, dog, hot dog"
        ) as error:
            load(coco_document(), categories=["hotdog"])
        assert not isinstance(error.value, DataError)

    def test_a_category_given_twice_is_asked_once_in_its_first_place(self, load: Load, coco_document: Make) -> None:
        dataset = load(coco_document(), categories=["hot dog", "cat", "CAT", "hot_dog"])
        assert dataset.categories == ("hot dog", "cat")
        assert ids(dataset.samples) == ["2:hot dog", "2:cat", "10:hot dog", "10:cat"]

    def test_a_tasks_own_categories_are_a_default_and_missing_ones_the_datas_fault(
        self, load: Load, coco_document: Make
    ) -> None:
        assert load(coco_document(), default_categories=["dog"]).categories == ("dog",)
        assert load(coco_document(), categories=["cat"], default_categories=["dog"]).categories == ("cat",)
        with pytest.raises(DataError, match="asks for categories that the data does not have"):
            load(coco_document(), default_categories=["zebra"])

    def test_string_image_ids_follow_the_integers(self, load: Load, coco_document: Make) -> None:
        document = coco_document()
        document["images"].append({"id": "a", "file_name": "two.png", "width": 5, "height": 5})
        document["annotations"].append({"image_id": "a", "category_id": 7, "bbox": [0, 0, 5, 5]})
        assert ids(load(document, ask="present").samples) == ["2:cat", "10:hot dog", "a:cat"]

    def test_images_are_looked_for_in_every_folder(self, load: Load, tmp_path: Path, coco_document: Make) -> None:
        for name in ("a/ten.png", "b/two.png"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        samples = load(coco_document(), [tmp_path / "a", tmp_path / "b"], ask="present").samples()
        assert [sample.image.path for sample in samples] == [tmp_path / "b/two.png", tmp_path / "a/ten.png"]

    def test_one_missing_image_is_left_to_the_run(self, load: Load, tmp_path: Path, coco_document: Make) -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "two.png").touch()
        assert len(ids(load(coco_document(), [tmp_path / "a"]).samples)) == 6


class TestLvis:
    def test_only_judged_pairs_are_asked(self, load: Load, lvis_document: Make) -> None:
        dataset = load(lvis_document())
        assert dataset.rules == "lvis"
        assert ids(dataset.samples) == ["1:die", "2:die", "2:egg_roll"]
        assert dataset.frequency == {"die": "r", "egg_roll": "c"}

    def test_the_truth_says_where_annotation_is_not_exhaustive(self, load: Load, lvis_document: Make) -> None:
        samples = by_id(load(lvis_document()))
        assert samples["1:die"].target == BoxTarget(((1.0, 1.0, 6.0, 6.0),), (20.0,), exhaustive=False)
        assert samples["2:die"].target == BoxTarget(())

    def test_a_mark_of_not_exhaustive_alone_does_not_make_a_pair_judged(self, load: Load, lvis_document: Make) -> None:
        document = lvis_document()
        document["images"][2]["not_exhaustive_category_ids"] = [6]
        assert "3:egg_roll" not in ids(load(document).samples)

    def test_a_pair_that_lvis_never_checked_is_unverified_when_a_map_asks_it(
        self, load: Load, tmp_path: Path, lvis_document: Make
    ) -> None:
        (tmp_path / "map.json").write_text('{"1": ["egg roll"], "2": ["die"]}')
        samples = by_id(load(lvis_document(), ask=f"file:{tmp_path / 'map.json'}"))
        assert samples["1:egg_roll"].target == BoxTarget((), verified=False)
        assert samples["2:die"].target == BoxTarget(())

    def test_files_are_found_by_the_last_two_parts_of_the_url(
        self, load: Load, tmp_path: Path, lvis_document: Make
    ) -> None:
        paths = {sample.id: sample.image.path for sample in load(lvis_document()).samples()}
        assert paths["1:die"] == tmp_path / "images/val2017/one.png"
        assert paths["2:die"] == tmp_path / "images/train2017/two.png"

    def test_the_split_folder_may_be_a_link_to_where_coco_is_kept(
        self, load: Load, tmp_path: Path, lvis_document: Make
    ) -> None:
        (tmp_path / "coco").mkdir()
        (tmp_path / "coco" / "one.png").touch()
        (tmp_path / "linked").mkdir()
        (tmp_path / "linked" / "val2017").symlink_to(tmp_path / "coco")
        first = next(load(lvis_document(), [tmp_path / "linked"]).samples())
        assert first.image.path == tmp_path / "linked/val2017/one.png"

    def test_the_split_folder_itself_may_be_named(self, load: Load, tmp_path: Path, lvis_document: Make) -> None:
        (tmp_path / "val2017").mkdir()
        (tmp_path / "val2017" / "one.png").touch()
        assert next(load(lvis_document(), [tmp_path / "val2017"]).samples()).image.path == tmp_path / "val2017/one.png"

    @pytest.mark.parametrize("protocol", ["strict", "paper"])
    def test_a_task_of_lvis_takes_no_file_that_coco_s_rules_would_judge(
        self, tmp_path: Path, lvis_document: Make, protocol: ProtocolName
    ) -> None:
        document = lvis_document()
        for row in document["images"]:
            del row["neg_category_ids"]
        path = tmp_path / "annotations.json"
        path.write_text(json.dumps(document))
        (tmp_path / "val2017").mkdir()
        Image.new("RGB", (60, 40)).save(tmp_path / "val2017" / "one.png")
        spec = DataSpec(annotations=path, images=tmp_path, categories=("die",))
        with pytest.raises(
            DataError, match=r"is no LVIS file: none of its images says in 'neg_category_ids'.*'lvis_ovd'"
        ):
            get_task("lvis_ovd", protocol).load(spec)
        assert get_task("detection", protocol).load(spec).rules == "coco"
        path.write_text(json.dumps(lvis_document()))
        assert get_task("lvis_ovd", protocol).load(spec).rules == "lvis"
        assert get_task("detection", protocol).load(spec).rules == "lvis"


class TestAskMap:
    @pytest.fixture
    def ask(self, tmp_path: Path) -> Callable[[object], str]:
        def ask(value: object) -> str:
            path = tmp_path / "map.json"
            path.write_text(value if isinstance(value, str) else json.dumps(value))
            return f"file:{path}"

        return ask

    def test_asks_what_it_names_and_gives_the_rest_of_the_truth_as_unasked(
        self, load: Load, ask: Callable[[object], str], coco_document: Make
    ) -> None:
        dataset = load(coco_document(), ask=ask({"2": ["Hot_Dog", "dog"]}))
        assert ids(dataset.samples) == ["2:dog", "2:hot dog"]
        unasked = list(dataset.unasked())
        assert [sample.id for sample in unasked] == ["2:cat", "10:hot dog"]
        assert [len(sample.target.boxes) for sample in unasked] == [2, 1]  # type: ignore[union-attr]
        assert dataset.notes == ("1 of 2 images are not in the ask map: their objects count as missed",)

    def test_unasked_stays_within_the_chosen_categories(
        self, load: Load, ask: Callable[[object], str], coco_document: Make
    ) -> None:
        dataset = load(coco_document(), ask=ask({"2": ["dog"]}), categories=["dog", "hot dog"])
        assert ids(dataset.unasked) == ["10:hot dog"]

    def test_names_that_the_data_does_not_have_are_noted(
        self, load: Load, ask: Callable[[object], str], coco_document: Make
    ) -> None:
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
            ({"2": ["cat", "\ud800"]}, "image '2' has the category '.ud800', which is no text"),
            ("{", "is not JSON"),
        ],
    )
    def test_a_wrong_map_is_refused(
        self, load: Load, ask: Callable[[object], str], value: object, message: str, coco_document: Make
    ) -> None:
        with pytest.raises(DataError, match=message):
            load(coco_document(), ask=ask(value))

    def test_a_missing_map_is_named(self, load: Load, tmp_path: Path, coco_document: Make) -> None:
        with pytest.raises(DataError, match=r"there is no file .*nowhere\.json"):
            load(coco_document(), ask=f"file:{tmp_path / 'nowhere.json'}")

    @pytest.mark.parametrize("rule", ["presnt", "file:", "", "truth"])
    def test_an_unknown_rule_names_the_valid_ones(self, load: Load, rule: str, coco_document: Make) -> None:
        with pytest.raises(UserError, match="use present, all or file:PATH"):
            load(coco_document(), ask=rule)


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
