"""What a task needs agrees with where its reader looks."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vrft_bench.registry import TASK_GROUPS
from vrft_bench.tasks.data.fetch import is_there
from vrft_bench.tasks.data.layout import coco_files, lvis_files, reasonseg_root
from vrft_bench.tasks.data.sources import Download, HubDataset, needs

TASKS = TASK_GROUPS["visual_rft"]


def put(root: Path, *places: str) -> None:
    for place in places:
        path = root / place
        path = path if path.suffix else path / "1.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


@pytest.mark.parametrize("task", TASKS)
def test_every_task_of_the_paper_says_what_it_needs(task: str) -> None:
    listed = needs(task)
    assert any(need.part == "evaluation" for need in listed)
    for need in listed:
        assert need.published
        if isinstance(need.source, Download):
            into = need.source.into
            assert need.source.sha256 is None or len(need.source.sha256) == 64
            assert not into or need.places[0].startswith(into)
        if isinstance(need.source, HubDataset):
            assert need.places == (need.source.into,)


def test_the_users_own_tasks_need_nothing() -> None:
    assert needs("detection") == needs("classification") == needs("grounding") == ()


def evaluation_needs(task: str, root: Path) -> list[bool]:
    return [is_there(need, root) for need in needs(task) if need.part == "evaluation"]


def test_where_fetch_puts_coco_and_lvis_their_readers_look(tmp_path: Path) -> None:
    assert not any(evaluation_needs("lvis_fewshot", tmp_path) + evaluation_needs("coco_ovd", tmp_path))
    put(
        tmp_path,
        "coco/annotations/instances_val2017.json",
        "coco/images/val2017",
        "coco/images/train2017",
        "lvis/lvis_v1_val.json",
    )
    assert coco_files(tmp_path, "val")[0] == tmp_path / "coco/annotations/instances_val2017.json"
    assert lvis_files(tmp_path, "val")[1] == [tmp_path / "coco/images"]
    assert all(evaluation_needs("lvis_fewshot", tmp_path) + evaluation_needs("coco_ovd", tmp_path))


def test_an_empty_folder_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "ReasonSeg" / "val").mkdir(parents=True)
    assert evaluation_needs("lisa_grounding", tmp_path) == [False]
    put(tmp_path, "ReasonSeg/val")
    assert evaluation_needs("lisa_grounding", tmp_path) == [True]
    assert reasonseg_root(tmp_path) == tmp_path / "ReasonSeg"


@pytest.mark.parametrize(
    ("task", "folder"),
    [("pets37_fewshot", "pets37"), ("flower102_fewshot", "flower102"), ("fgvc_aircraft_fewshot", "fgvc_aircraft")],
)
def test_class_folders_are_all_that_a_classification_task_needs(tmp_path: Path, task: str, folder: str) -> None:
    (tmp_path / folder / "val" / "a").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / folder / "val" / "a" / "1.png")
    assert all(evaluation_needs(task, tmp_path))


def test_a_stopped_fetch_of_the_hub_is_not_there(tmp_path: Path) -> None:
    need = next(need for need in needs("coco_fewshot") if isinstance(need.source, HubDataset))
    put(tmp_path, f"{need.places[0]}/data/train.parquet")
    assert is_there(need, tmp_path)  # a copy of the user's own
    (tmp_path / need.places[0] / ".cache").mkdir()
    assert not is_there(need, tmp_path)
