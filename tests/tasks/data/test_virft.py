"""Visual-RFT's training sets are read from parquet, arrow and JSON, with the boxes back in pixels."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, ClassTarget, MaskTarget
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.data.rows import find_rows
from vrft_bench.tasks.data.virft import load_virft
from vrft_bench.tasks.profiles import ABS_ORIGINAL

pa = pytest.importorskip("pyarrow")

DETECT = "Detect all objects belonging to the category '{}' in the image, and provide the bounding boxes ..."
BUS = (
    "<answer>[{'Position': [1, 364, 98, 649], 'Confidence': 1}, "
    "{'Position': [0, 0, 1000, 500], 'Confidence': 1}]</answer>"
)
REGION = (
    "Output the bounding box in the image corresponding to the instruction: what keeps the rain off. "
    "Output the thinking process in <think>"
)


def png(width: int = 200, height: int = 100, colour: str = "red") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), colour).save(file, "PNG")
    return file.getvalue()


def bmp(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "BMP")
    return file.getvalue()


def row(problem: str, solution: str, image: bytes | None = None) -> dict[str, Any]:
    return {"image": {"bytes": image or png(), "path": "a.png"}, "problem": problem, "solution": solution}


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_arrow(path: Path, rows: list[dict[str, Any]]) -> Path:
    """As ``datasets.save_to_disk`` writes it: one record batch stream, and its bookkeeping beside it."""
    table = pa.Table.from_pylist(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    for name in ("dataset_info.json", "state.json"):
        (path.parent / name).write_text("{}")
    return path


def test_boxes_are_thousandths_of_the_image(tmp_path: Path) -> None:
    rows = [row(DETECT.format("bus"), BUS), row(DETECT.format("hot dog"), "<answer>No Objects</answer>")]
    dataset = load_virft(write_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", rows).parent, "detection")
    bus, dog = dataset.samples()
    assert bus.target == BoxTarget(((0.2, 36.4, 19.6, 64.9), (0.0, 0.0, 200.0, 50.0)))
    assert dog.target == BoxTarget(())
    assert (bus.id, dog.id) == ("0", "1")
    assert (bus.image.width, bus.image.height, bus.image.data) == (200, 100, png())
    assert bus.image.sha256 == hashlib.sha256(png()).hexdigest()
    assert bus.fields["category"] == "bus"
    assert bus.fields["image_id"] == dog.fields["image_id"]  # the same image, asked twice
    assert (dataset.categories, dataset.rules, dataset.split) == (("bus", "hot dog"), "coco", "train")


def test_a_row_is_a_sample_of_its_task(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [row(DETECT.format("bus"), BUS)])
    (sample,) = load_virft(path, "detection").samples()
    task = get_task("detection")
    frame = Frame(ABS_ORIGINAL, 200, 100)
    assert task.score(task.gold(sample, frame), task.ground_truth(sample, frame))["iou"] == pytest.approx(1, abs=1e-3)


def test_class_names_are_the_options(tmp_path: Path) -> None:
    rows = [row("Identify the model.", f"<answer>{name}</answer>") for name in ("737-400", "707-320", "737-400")]
    dataset = load_virft(
        write_arrow(tmp_path / "train" / "data-00000-of-00001.arrow", rows).parents[1], "classification"
    )
    assert [sample.target for sample in dataset.samples()] == [
        ClassTarget("737-400"),
        ClassTarget("707-320"),
        ClassTarget("737-400"),
    ]
    assert next(dataset.samples()).fields["options"] == "707-320, 737-400"
    assert dataset.categories == ("707-320", "737-400")


def test_the_papers_json_form_holds_paths(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    rows = [{"image": "pictures/a.png", "problem": REGION, "solution": "<answer> (100,80),(600,400) </answer>"}]
    (tmp_path / "lisa.json").write_text(json.dumps(rows))
    (tmp_path / "lisa.jsonl").write_text(json.dumps(rows[0]) + "\n")
    for name in ("lisa.json", "lisa.jsonl"):
        (sample,) = load_virft(tmp_path / name, "grounding").samples()
        assert sample.target == MaskTarget((20.0, 8.0, 120.0, 40.0), ())
        assert sample.fields["instruction"] == "what keeps the rain off"
        assert sample.image.path == tmp_path / "pictures" / "a.png"
    (sample,) = load_virft(tmp_path / "lisa.json", "grounding", images=tmp_path / "gone").samples()
    assert (sample.image.width, sample.image.sha256) == (1, None)


def test_images_are_read_while_iterating_and_texts_at_once(tmp_path: Path) -> None:
    rows = [row(DETECT.format("bus"), BUS, png(colour=name)) for name in ("red", "green", "blue")] * 20
    path = write_parquet(tmp_path / "rows.parquet", rows)
    dataset = load_virft(path, "detection")
    first, second = list(dataset.samples()), list(dataset.samples())
    assert len(first) == 60
    assert [sample.fields["image_id"] for sample in first] == [sample.fields["image_id"] for sample in second]
    assert len({sample.fields["image_id"] for sample in first}) == 3
    walk = dataset.samples()
    next(walk)
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        next(dataset.samples())


def test_a_walk_does_not_keep_the_file_in_memory(tmp_path: Path) -> None:
    import pyarrow.parquet

    path = tmp_path / "rows.parquet"
    noise = (Image.frombytes("RGB", (300, 300), os.urandom(270_000)) for _ in range(128))
    table = pa.Table.from_pylist([row(DETECT.format("bus"), BUS, bmp(image)) for image in noise])
    pyarrow.parquet.write_table(table, path, row_group_size=4)
    del table
    walk = load_virft(path, "detection").samples()
    before = pa.total_allocated_bytes()
    most = max(pa.total_allocated_bytes() - before for _ in walk)
    assert most < path.stat().st_size / 2


def test_one_split_of_several_is_taken(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        write_parquet(tmp_path / "data" / f"{name}.parquet", [row(DETECT.format(name), BUS)])
    train = [sample.fields["category"] for sample in load_virft(tmp_path, "detection").samples()]
    assert train == ["train-00000-of-00002", "train-00001-of-00002"]
    assert len(find_rows(tmp_path, "test").files) == 1
    with pytest.raises(DataError, match="no files of the split 'val'"):
        load_virft(tmp_path, "detection", split="val")


@pytest.mark.parametrize(
    ("family", "problem", "solution", "message"),
    [
        (
            "detection",
            DETECT.format("bus"),
            "<answer>a bus</answer>",
            "row 1 has the solution 'a bus', which is no list",
        ),
        (
            "detection",
            DETECT.format("bus"),
            "<answer>[{'Position': [1, 2]}]</answer>",
            "the box .1, 2., which is no four",
        ),
        ("detection", DETECT.format("bus"), "<answer>[3]</answer>", "which is no list of boxes"),
        ("detection", "Where are they?", BUS, "row 1 names no category"),
        ("classification", "Which?", "<answer> </answer>", "row 1 has an empty solution"),
        ("grounding", REGION, "<answer>(1,2)</answer>", r"row 1 has the solution '\(1,2\)'"),
        ("grounding", None, "<answer>(1,2)</answer>", "row 1 lacks a text 'problem'"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, family: Any, problem: Any, solution: str, message: str) -> None:
    right = {
        "detection": (DETECT.format("bus"), BUS),
        "classification": ("Which?", "rose"),
        "grounding": (REGION, "(1,2),(3,4)"),
    }
    path = write_parquet(tmp_path / "rows.parquet", [row(*right[family]), row(problem, solution)])
    with pytest.raises(DataError, match=message):
        load_virft(path, family)


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file or folder"):
        load_virft(tmp_path / "gone", "detection")
    with pytest.raises(DataError, match="holds no rows"):
        load_virft(tmp_path, "detection")
    with pytest.raises(UserError, match="unknown family 'boxes'"):
        load_virft(tmp_path, "boxes")  # type: ignore[arg-type]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        load_virft(tmp_path, "detection")
    write_parquet(tmp_path / "a.parquet", [{"image": None, "question": "?"}])
    with pytest.raises(DataError, match="has no column 'problem': it has image, question"):
        load_virft(tmp_path, "detection")
    (tmp_path / "b.json").write_text('[{"problem": "?"}]')
    with pytest.raises(DataError, match=r"b\.json: row 0 has no 'solution'"):
        load_virft(tmp_path / "b.json", "detection")
    (tmp_path / "b.json").write_text(json.dumps([{"image": "../a", "problem": REGION, "solution": "(1,2),(3,4)"}]))
    with pytest.raises(DataError, match=r"row 0 has the file name '\.\./a', which leaves the image folder"):
        list(load_virft(tmp_path / "b.json", "grounding").samples())


def test_without_pyarrow_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "rows.parquet", [row(DETECT.format("bus"), BUS)])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"read by pyarrow, which is not installed(.|\n)*'vrft-bench\[data\]'"):
        load_virft(path, "detection")
