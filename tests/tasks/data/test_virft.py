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
from vrft_bench.tasks.base import BoxTarget, ClassTarget, DataSpec, MaskTarget
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.data.rows import find_rows, is_rows
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
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001", "few.shot-00000-of-00001"):
        write_parquet(tmp_path / "data" / f"{name}.parquet", [row(DETECT.format(name), BUS)])
    train = [sample.fields["category"] for sample in load_virft(tmp_path, "detection").samples()]
    assert train == ["train-00000-of-00002", "train-00001-of-00002"]
    assert [len(find_rows(tmp_path, split).files) for split in ("test", "few.shot")] == [1, 1]
    with pytest.raises(DataError, match="no files of the split 'val'"):
        load_virft(tmp_path, "detection", split="val")


def test_the_cache_of_datasets_is_read_by_split_too(tmp_path: Path) -> None:
    """Its files begin with the dataset's name: rows of the test set must not get into training."""
    for name in ("vi_rft_coco-train", "vi_rft_coco-test"):
        write_arrow(tmp_path / "default" / "0.0.0" / "ab12" / f"{name}.arrow", [row(DETECT.format(name), BUS)])
    write_arrow(tmp_path / "default" / "0.0.0" / "ab12" / "cache-train.arrow", [row(DETECT.format("mapped"), BUS)])
    for split in ("train", "test"):
        (sample,) = load_virft(tmp_path, "detection", split=split).samples()
        assert sample.fields["category"] == f"vi_rft_coco-{split}"


def test_endings_in_capitals_and_byte_order_marks_are_no_matter(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "ROWS.PARQUET", [row(DETECT.format("bus"), BUS)])
    lines = tmp_path / "rows.JSONL"
    (tmp_path / "a.png").write_bytes(png())
    text = json.dumps({"image": "a.png", "problem": DETECT.format("bus"), "solution": BUS})
    lines.write_text(text + "\n", encoding="utf-8-sig")
    for file in (path, lines):
        assert is_rows(file)
        (sample,) = load_virft(file, "detection").samples()
        assert sample.image.width == 200


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
        (
            "detection",
            DETECT.format("bus"),
            "<answer>[{'Position': [9, 2, 3, 4]}]</answer>",
            "row 1 has the box .9, 2, 3, 4., whose corners are in the wrong order",
        ),
        ("grounding", REGION, "<answer>(1,4),(3,2)</answer>", "whose corners are in the wrong order"),
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
    import pyarrow.parquet

    with pytest.raises(DataError, match="there is no file or folder"):
        load_virft(tmp_path / "gone", "detection")
    with pytest.raises(DataError, match="holds no rows"):
        load_virft(tmp_path, "detection")
    with pytest.raises(UserError, match="unknown family 'boxes'"):
        load_virft(tmp_path, "boxes")  # type: ignore[arg-type]
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        load_virft(tmp_path, "detection")
    latin = pa.StringArray.from_buffers(1, pa.array([0, 4], pa.int32()).buffers()[1], pa.py_buffer(b"caf\xe9"))
    pyarrow.parquet.write_table(pa.table({"image": ["a"], "problem": latin, "solution": [BUS]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read: 'utf-8' codec can't decode"):
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


IDENTIFY = "This is an image containing a car. Please identify the model of the car based on the image."
PUBLISHED = {
    "coco_fewshot": "ViRFT_COCO_8_cate_4_shot",
    "coco_ovd": "ViRFT_COCO_base65",
    "lvis_fewshot": "ViRFT_LVIS_few_shot",
    "lvis_ovd": "ViRFT_COCO_base65",
    "flower102_fewshot": "ViRFT_CLS_flower_4_shot",
    "pets37_fewshot": "ViRFT_CLS_pets37_4shot",
    "fgvc_aircraft_fewshot": "ViRFT_CLS_fgvc_aircraft_4_shot",
    "cars196_fewshot": "ViRFT_CLS_car196_4shot",
}


def published(root: Path, task: str, rows: list[dict[str, Any]]) -> Path:
    """The training set of ``task`` where `data fetch` puts it, as the hub lays it out; returns its folder."""
    folder = root / "virft" / PUBLISHED[task]
    write_parquet(folder / "data" / "train-00000-of-00001.parquet", rows)
    (folder / "README.md").write_text("a card")
    return folder


@pytest.mark.parametrize("name", ["coco_fewshot", "coco_ovd", "lvis_fewshot", "lvis_ovd"])
def test_the_split_virft_of_a_detection_task_is_its_published_training_set(name: str, tmp_path: Path) -> None:
    rows = [row(DETECT.format("kitchen_table"), BUS), row(DETECT.format("bus"), "<answer>No Objects</answer>")]
    published(tmp_path, name, rows)
    task = get_task(name)
    dataset = task.load(DataSpec(tmp_path, "virft"))
    assert (dataset.split, dataset.categories, dataset.rules) == ("virft", ("bus", "kitchen_table"), "coco")
    table, bus = dataset.samples()
    assert table.target == BoxTarget(((0.2, 36.4, 19.6, 64.9), (0.0, 0.0, 200.0, 50.0)))
    assert bus.target == BoxTarget(())
    assert task.prompt(table, ABS_ORIGINAL).startswith("Find every 'kitchen table' in the image.")


def test_a_question_is_worded_by_the_protocol_and_not_by_the_row(tmp_path: Path) -> None:
    pytest.importorskip("math_verify")
    published(tmp_path, "coco_fewshot", [row("In old words: category 'bus' in the image?", BUS)])
    published(tmp_path, "cars196_fewshot", [row("In old words?", "<answer>2010 Chevrolet Malibu</answer>")])
    for name, words in (
        ("coco_fewshot", "Detect all objects belonging to the category 'bus' in the image, and"),
        ("cars196_fewshot", IDENTIFY),
    ):
        task = get_task(name, "paper")
        (sample,) = task.load(DataSpec(tmp_path, "virft")).samples()
        assert task.prompt(sample, ABS_ORIGINAL).startswith(words)
        assert "old words" not in json.dumps(dict(sample.fields))


@pytest.mark.parametrize("name", ["flower102_fewshot", "pets37_fewshot", "fgvc_aircraft_fewshot", "cars196_fewshot"])
def test_the_split_virft_of_a_classification_task_is_its_published_training_set(name: str, tmp_path: Path) -> None:
    rows = [row(IDENTIFY, f"<answer>{label}</answer>") for label in ("passion flower", "737-400")]
    published(tmp_path, name, rows)
    task = get_task(name)
    dataset = task.load(DataSpec(tmp_path, "virft"))
    first, _ = dataset.samples()
    assert first.target == ClassTarget("passion flower")
    assert "It is one of: 737-400, passion flower." in task.prompt(first, ABS_ORIGINAL)
    assert (dataset.split, dataset.ask, dataset.is_sample) == ("virft", None, False)


def test_a_training_set_that_is_not_there_names_the_command_that_fetches_it(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ViRFT_COCO_base65 is not there(.|\n)*data fetch coco_ovd --part training"):
        get_task("coco_ovd").load(DataSpec(tmp_path, "virft"))
    folder = published(tmp_path, "coco_ovd", [row(DETECT.format("bus"), BUS)])
    (folder / ".cache").mkdir()  # what a download that was stopped leaves behind
    with pytest.raises(DataError, match="was not fetched to its end"):
        get_task("coco_ovd").load(DataSpec(tmp_path, "virft"))


@pytest.mark.parametrize("name", ["lisa_grounding", "grounding", "detection", "classification"])
def test_a_task_without_a_published_training_set_says_so(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"no training set for task '{name}'(.|\\n)*--annotations PATH"):
        get_task(name).load(DataSpec(tmp_path, "virft"))


def test_rows_of_ones_own_are_annotations_like_others(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(png())
    region = {"image": "a.png", "problem": REGION, "solution": "<answer> (100,80),(600,400) </answer>"}
    as_json = tmp_path / "lisa_train.json"
    as_json.write_text("\n " + json.dumps([region]))
    spec = DataSpec(annotations=as_json, images=tmp_path / "pictures", split="train")
    for name in ("grounding", "lisa_grounding"):
        dataset = get_task(name).load(spec)
        (sample,) = dataset.samples()
        assert (dataset.split, sample.target) == ("train", MaskTarget((20.0, 8.0, 120.0, 40.0), ()))
        assert "this refers to: what keeps the rain off\n" in get_task(name).prompt(sample, ABS_ORIGINAL)
    parquet = write_parquet(tmp_path / "rows.parquet", [row(DETECT.format("bus"), BUS)])
    assert get_task("detection").load(DataSpec(annotations=parquet)).split == "val"
    folder = write_arrow(tmp_path / "cars" / "train" / "data-00000.arrow", [row(IDENTIFY, "2012 Acura")]).parents[1]
    (sample,) = get_task("classification").load(DataSpec(annotations=folder, split="train")).samples()
    assert sample.target == ClassTarget("2012 Acura")
    with pytest.raises(UserError, match="and both are given"):
        get_task("detection").load(DataSpec(root=tmp_path, annotations=parquet))


def test_a_json_file_holds_rows_where_it_is_a_list(tmp_path: Path) -> None:
    (tmp_path / "coco.json").write_text('{"images": []}')
    (tmp_path / "rows.json").write_bytes(b"\xef\xbb\xbf \r\n[]")
    assert [is_rows(tmp_path / name) for name in ("coco.json", "rows.json", "gone.json")] == [False, True, False]


def test_categories_choose_rows_and_keep_their_numbers(tmp_path: Path) -> None:
    names = ("hot dog", "bus", "hot dog", "cat")
    published(tmp_path, "coco_fewshot", [row(DETECT.format(name), BUS) for name in names])
    published(tmp_path, "pets37_fewshot", [row(IDENTIFY, name) for name in names])
    dataset = get_task("coco_fewshot").load(DataSpec(tmp_path, "virft", ("Hot_Dog", "cat")))
    assert [sample.id for sample in dataset.samples()] == ["0", "2", "3"]
    assert dataset.categories == ("hot dog", "cat")
    dataset = get_task("pets37_fewshot").load(DataSpec(tmp_path, "virft", ("cat", "bus")))
    assert [(sample.id, sample.fields["options"]) for sample in dataset.samples()] == [
        ("1", "cat, bus"),
        ("3", "cat, bus"),
    ]


def test_what_rows_do_not_have_is_refused(tmp_path: Path) -> None:
    published(tmp_path, "coco_fewshot", [row(DETECT.format("bus"), BUS)])
    published(tmp_path, "pets37_fewshot", [row(IDENTIFY, "Scottish_Terrier"), row(IDENTIFY, "scottish terrier")])
    with pytest.raises(UserError, match="has no category 'busses'; did you mean 'bus'"):
        get_task("coco_fewshot").load(DataSpec(tmp_path, "virft", ("busses",)))
    with pytest.raises(UserError, match=r"--ask all does not apply to .*each row asks one question"):
        get_task("coco_fewshot").load(DataSpec(tmp_path, "virft", ask="all"))
    with pytest.raises(DataError, match="are one name to the scorer"):
        get_task("pets37_fewshot").load(DataSpec(tmp_path, "virft"))
    rows = write_parquet(tmp_path / "rows.parquet", [row(REGION, "(1,2),(3,4)")])
    with pytest.raises(UserError, match="has no categories"):
        get_task("grounding").load(DataSpec(annotations=rows, categories=("cup",)))
