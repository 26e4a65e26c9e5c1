"""Few-shot splits are drawn alike everywhere, kept in files that do not change, and taken up with their hashes."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.harness.images import ImageError, load_image
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, Dataset, DataSpec, ImageRef, Sample
from vrft_bench.tasks.data.folders import load_class_folders
from vrft_bench.tasks.data.splits import (
    FewShotSplit,
    draw_splits,
    few_shot,
    manifest_path,
    read_manifest,
    take_few_shot,
    write_manifest,
)


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for name, count in (("beagle", 20), ("pug", 3)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(tmp_path / "train" / name / f"{number}.png")
    return tmp_path / "train"


def draw(dataset: Dataset, shots: int, seed: int = 0) -> FewShotSplit:
    (split,) = draw_splits(dataset, "pets37_fewshot", [shots], [seed])
    return split


def test_each_category_gives_k_samples_or_all_that_it_has(pets: Path) -> None:
    split = draw(load_class_folders(pets, "train"), 4)
    assert Counter(shot.category for shot in split.samples) == {"beagle": 4, "pug": 3}
    assert split.short_of() == {"pug": 3}
    assert split.short_of(["beagle", "corgi", "pug"]) == {"corgi": 0, "pug": 3}
    first = split.samples[0]
    assert first.image_sha256 == hashlib.sha256((pets / first.id).read_bytes()).hexdigest()


def test_a_draw_is_nested_and_depends_on_the_seed_alone(pets: Path) -> None:
    dataset = load_class_folders(pets, "train")
    by_shots = {split.shots: split for split in draw_splits(dataset, "pets37_fewshot", [1, 2, 4, 8, 16], [0])}
    ids = {shots: {shot.id for shot in split.samples} for shots, split in by_shots.items()}
    assert ids[1] < ids[2] < ids[4] < ids[8] < ids[16]
    assert len(ids[16]) == 16 + 3
    backwards = replace(dataset, samples=lambda: iter(list(dataset.samples())[::-1]))
    assert draw(backwards, 4) == by_shots[4]
    assert draw(dataset, 4, seed=1).samples != by_shots[4].samples


def test_the_draw_is_the_one_that_was_drawn_before(pets: Path) -> None:
    """Pinned: manifests that users committed have to come out the same in every later version."""
    names = [shot.id for shot in draw(load_class_folders(pets, "train"), 2).samples]
    expected = []
    for category, count in (("beagle", 20), ("pug", 3)):
        ids = [f"{category}/{number}.png" for number in range(count)]
        expected += sorted(ids, key=lambda name: hashlib.sha256(f"0/{category}/{name}".encode()).hexdigest())[:2]
    assert names == expected


def test_only_questions_with_something_to_find_are_drawn(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")

    def samples() -> list[Sample]:
        boxes = {"cat": ((0.0, 0.0, 4.0, 4.0),), "dog": (), "bus": ((1.0, 1.0, 1.0, 5.0),)}
        image = ImageRef(8, 8, tmp_path / "a.png")
        return [Sample(f"1:{name}", image, {"category": name}, BoxTarget(found)) for name, found in boxes.items()]

    split = draw(Dataset("train", (), lambda: iter(samples())), 1)
    assert [shot.id for shot in split.samples] == ["1:cat"]
    with pytest.raises(DataError, match="has no sample to draw"):
        draw(Dataset("train", (), lambda: iter(samples()[1:])), 1)


def test_a_manifest_is_read_back_and_never_changed(pets: Path, tmp_path: Path) -> None:
    dataset = load_class_folders(pets, "train")
    split = draw(dataset, 4)
    path = manifest_path(tmp_path / "splits", "pets37_fewshot", 4, 0)
    assert path == tmp_path / "splits" / "pets37_fewshot" / "4-shot-seed-0.json"
    assert write_manifest(split, path)
    before = path.read_bytes()
    assert read_manifest(path) == split
    assert not write_manifest(split, path)
    with pytest.raises(UserError, match=r"4-shot-seed-0\.json is there and differs"):
        write_manifest(draw(dataset, 4, seed=1), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda value: value["samples"].pop(), "was changed after it was written"),
        (lambda value: value.update(seed=7), "was changed after it was written"),
        (lambda value: value.update(format=2), "has the format 2"),
        (lambda value: value.pop("samples"), "is no manifest"),
        (lambda value: value["samples"].append(3), "is no manifest"),
    ],
)
def test_an_edited_manifest_is_refused(pets: Path, tmp_path: Path, edit: object, message: str) -> None:
    path = tmp_path / "split.json"
    write_manifest(draw(load_class_folders(pets, "train"), 2), path)
    value = json.loads(path.read_text())
    edit(value)  # type: ignore[operator]
    path.write_text(json.dumps(value))
    with pytest.raises(DataError, match=message):
        read_manifest(path)


def test_a_run_takes_the_drawn_samples_and_refuses_changed_images(pets: Path) -> None:
    dataset = load_class_folders(pets, "train")
    split = draw(dataset, 2)
    chosen = few_shot(dataset, split)
    samples = list(chosen.samples())
    assert {sample.id for sample in samples} == {shot.id for shot in split.samples}
    assert len(samples) == 4
    assert list(few_shot(replace(dataset, unasked=dataset.samples), split).unasked()) == []
    assert chosen.notes[-1].startswith("few-shot split: 2 shots, seed 0, 4 samples, sha256 ")
    assert load_image(samples[0].image).image.size == (8, 8)
    Image.new("RGB", (8, 8), (9, 9, 9)).save(pets / samples[0].id)
    with pytest.raises(ImageError, match="the file changed"):
        load_image(next(chosen.samples()).image)


def test_other_data_than_those_drawn_from_are_refused(pets: Path) -> None:
    dataset = load_class_folders(pets, "train")
    split = draw(dataset, 2)
    with pytest.raises(DataError, match="drawn from the 'train' split of real data, and this is 'val' of real"):
        few_shot(replace(dataset, split="val"), split)
    with pytest.raises(DataError, match="and this is 'train' of sample data"):
        few_shot(replace(dataset, is_sample=True), split)
    (pets / split.samples[0].id).unlink()
    with pytest.raises(DataError, match="1 of 4 samples of the few-shot split are not in the data"):
        few_shot(load_class_folders(pets, "train"), split)


def test_a_missing_image_and_senseless_numbers_are_refused(pets: Path) -> None:
    dataset = load_class_folders(pets, "train")
    listed = list(dataset.samples())
    (pets / "pug" / "0.png").unlink()
    with pytest.raises(DataError, match=r"the image of sample 'pug/0\.png' cannot be read"):
        draw(replace(dataset, samples=lambda: iter(listed)), 16)
    with pytest.raises(UserError, match="--shots"):
        list(draw_splits(dataset, "t", [0], [0]))
    with pytest.raises(UserError, match="--seeds"):
        list(draw_splits(dataset, "t", [1], []))


def test_the_sample_data_of_every_family_can_be_drawn_from(sample_cache: Path) -> None:
    for name, categories in (("lvis_fewshot", 6), ("pets37_fewshot", 8), ("lisa_grounding", 1)):
        dataset = get_task(name).load(DataSpec(split="train"))
        (split,) = draw_splits(dataset, name, [4], [0])
        assert (len(split.samples), split.data) == (4 * categories, "sample")
        assert len(list(few_shot(dataset, split).samples())) == 4 * categories


def test_a_split_is_taken_by_shots_and_seed(pets: Path, tmp_path: Path) -> None:
    dataset = load_class_folders(pets, "train")
    folder = tmp_path / "splits"
    path = manifest_path(folder, "pets37_fewshot", 2, 0)
    with pytest.raises(DataError, match=r"data split pets37_fewshot --shots 2 --seeds 0 -o"):
        take_few_shot(dataset, "pets37_fewshot", 2, 0, folder)
    write_manifest(draw(dataset, 2), path)
    assert len(list(take_few_shot(dataset, "pets37_fewshot", 2, 0, folder).samples())) == 4
    with pytest.raises(DataError, match=r"virft-2-shot-seed-0\.json(.|\n)*--seeds 0 --split virft -o"):
        take_few_shot(replace(dataset, split="virft"), "pets37_fewshot", 2, 0, folder)
    path.rename(manifest_path(folder, "pets37_fewshot", 4, 0))
    with pytest.raises(DataError, match="is the 2-shot split of pets37_fewshot with seed 0"):
        take_few_shot(dataset, "pets37_fewshot", 4, 0, folder)
