"""Visual-RFT's training sets as the data of a task: ``--split virft``, and rows of one's own by ``--annotations``."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

pa = pytest.importorskip("pyarrow")

CATEGORIES = ("bus", "train", "fire hydrant", "stop sign", "cat", "dog", "bed", "toilet")
DETECT = "Detect all objects belonging to the category '{}' in the image, and provide the bounding boxes ..."
IDENTIFY = "This is an image containing a car. Please identify the model of the car based on the image."


def picture(number: int) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").rotate(20 * number).resize((200, 120)).save(file, "PNG")
    return file.getvalue()


def write(path: Path, texts: list[tuple[str, str]]) -> Path:
    import pyarrow.parquet

    rows = [
        {
            "image": {"bytes": picture(number), "path": None},
            "problem": problem,
            "solution": f"<answer>{answer}</answer>",
        }
        for number, (problem, answer) in enumerate(texts)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with the training sets of two tasks: 4 of each of 8 categories, and 4 of each of 2 cars."""
    boxes = (
        "[{'Position': [100, 50, 400, 600], 'Confidence': 1}, {'Position': [500, 500, 1000, 1000], 'Confidence': 1}]"
    )
    detection = [(DETECT.format(name), boxes) for name in CATEGORIES * 4]
    cars = [(IDENTIFY, name) for name in ("2012 Acura RL Sedan", "2007 BMW X5") * 4]
    virft = tmp_path / "data" / "virft"
    write(virft / "ViRFT_COCO_8_cate_4_shot" / "data" / "train-00000-of-00001.parquet", detection)
    write(virft / "ViRFT_CLS_car196_4shot" / "data" / "train-00000-of-00001.parquet", cars)
    return tmp_path / "data"


@pytest.mark.parametrize(("task", "rows"), [("coco_fewshot", 32), ("cars196_fewshot", 8)])
def test_a_run_asks_every_row_and_can_be_scored_again(cli: Any, root: Path, task: str, rows: int) -> None:
    outcome = cli("-t", task, "-m", "mock/gold", "--data", str(root), "--split", "virft", "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert result["report"]["figures"][result["report"]["headline"]]["value"] == 1.0
    assert len((Path(result["folder"]) / "samples.jsonl").read_text().splitlines()) == rows
    stored = json.loads((Path(result["folder"]) / "run.json").read_text())["identity"]["data"]
    assert (stored["split"], stored["kind"], stored["samples"]) == ("virft", "real", rows)
    again = cli("score", result["folder"], "--json")
    assert json.loads(again.out)["report"] == result["report"]


def test_the_other_verbs_take_the_split_too(cli: Any, root: Path) -> None:
    own = ("--data", str(root), "--split", "virft")
    outcome = cli("validate", "coco_fewshot", *own, "--protocol", "strict", "--json")
    assert outcome.code == 0, outcome.err + outcome.out
    outcome = cli("validate", "cars196_fewshot", *own, "--protocol", "strict", "--json")
    assert (outcome.code, "784 expected, 8 here" in outcome.out) == (1, True)
    for task, count in (("coco_fewshot", 32), ("cars196_fewshot", 8)):
        checked = cli("audit", task, *own, "--protocol", "strict", "--json")
        (report,) = json.loads(checked.out)
        assert (report["samples"], report["with_truth"], report["data"]) == (count, count, "real")
        assert "in the row itself\n  200x120 pixels" in cli("show", task, *own).out
    shared = cli("data", "overlap", "coco_fewshot:virft", "cars196_fewshot:virft", "--data", str(root), "--json")
    assert json.loads(shared.out)["images"] == [18, 8]  # after 18 turns of 20 degrees pictures repeat
    assert len(json.loads(shared.out)["exact"]) == 8


def test_shots_are_drawn_from_it_and_kept_apart_from_those_of_train(cli: Any, root: Path, tmp_path: Path) -> None:
    own = ("--data", str(root), "--split", "virft")
    drawn = cli("data", "split", "coco_fewshot", *own, "--shots", "1,2", "--json")
    assert [(row["path"], row["samples"]) for row in json.loads(drawn.out)] == [
        ("splits/coco_fewshot/virft-1-shot-seed-0.json", 8),
        ("splits/coco_fewshot/virft-2-shot-seed-0.json", 16),
    ]
    outcome = cli("-t", "coco_fewshot", "-m", "mock/gold", *own, "--shots", "2", "--json")
    assert outcome.code == 0, outcome.err
    assert len((Path(json.loads(outcome.out)["folder"]) / "samples.jsonl").read_text().splitlines()) == 16


def test_check_lists_it_and_a_task_without_one_says_what_to_do(cli: Any, root: Path) -> None:
    listed = json.loads(cli("data", "check", "cars196_fewshot", "--data", str(root), "--json").out)["needs"]
    places = {row["what"]: row["found"] for row in listed if row["part"] == "training"}
    assert places == {"training set ViRFT_CLS_car196_4shot": str(root / "virft" / "ViRFT_CLS_car196_4shot")}
    outcome = cli("-t", "lisa_grounding", "-m", "mock/gold", "--data", str(root), "--split", "virft")
    assert outcome.code == 2
    assert "published no training set for task 'lisa_grounding'" in outcome.err
    outcome = cli("-t", "pets37_fewshot", "-m", "mock/gold", "--data", str(root), "--split", "virft")
    assert outcome.code == 3
    assert "data fetch pets37_fewshot --part training" in outcome.err
    outcome = cli("-t", "pets37_fewshot", "-m", "mock/gold", "--split", "virft")
    assert "sample data has no split 'virft'" in outcome.err


def test_rows_of_ones_own_are_run_by_the_generic_tasks(cli: Any, tmp_path: Path) -> None:
    boxes = "[{'Position': [100, 50, 400, 600], 'Confidence': 1}]"
    parquet = write(tmp_path / "mine.parquet", [(DETECT.format("forklift"), boxes)] * 3)
    outcome = cli("-t", "detection", "-m", "mock/gold", "--annotations", str(parquet), "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["report"]["by_category"]["forklift"]["truths"] == 3
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "a.png").write_bytes(picture(1))
    problem = (
        "Output the bounding box in the image corresponding to the instruction: the cup. Output the thinking process"
    )
    rows = [{"image": "a.png", "problem": problem, "solution": "<answer> (100,80),(600,400) </answer>"}]
    (tmp_path / "lisa.json").write_text(json.dumps(rows))
    own = ("--annotations", "lisa.json", "--images", "pictures")
    outcome = cli("-t", "grounding", "-m", "mock/gold", *own, "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["report"]["figures"]["miou"]["value"] == pytest.approx(1.0)
