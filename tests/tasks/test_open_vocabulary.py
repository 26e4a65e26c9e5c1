"""Training never sees a novel category unless the user names it."""

from __future__ import annotations

import itertools

import pytest

from vrft_bench.errors import UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.data.sample import CATEGORIES, NOVEL_5


def asked(task: str, split: str, categories: tuple[str, ...] = ()) -> set[str]:
    dataset = get_task(task).load(DataSpec(split=split, categories=categories))
    return {sample.fields["category"] for sample in itertools.islice(dataset.samples(), 200)}


def test_the_training_split_of_coco_ovd_asks_for_base_categories_only() -> None:
    assert asked("coco_ovd", "train") == set(CATEGORIES) - set(NOVEL_5)
    assert asked("coco_ovd", "val") == set(CATEGORIES)


def test_novel_categories_that_the_user_names_are_asked() -> None:
    assert asked("coco_ovd", "train", NOVEL_5[:2]) == set(NOVEL_5[:2])


def test_lvis_ovd_has_no_training_split() -> None:
    with pytest.raises(UserError, match="training must not see"):
        get_task("lvis_ovd").load(DataSpec(split="train"))
    assert asked("lvis_ovd", "train", ("red_circle",)) == {"red_circle"}
