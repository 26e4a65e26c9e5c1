"""``audit`` and ``validate`` as a user calls them: what is printed, and the exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from vrft_bench.harness.cli.app import app

pytestmark = pytest.mark.usefixtures("sample_cache")

GAMED = """
from dataclasses import dataclass

from vrft_bench.registry import TASKS
from vrft_bench.tasks.base import Reward
from vrft_bench.tasks.classification import ClassificationTask


def generous(prediction, target):
    return 1.0


@dataclass(frozen=True)
class Gamed(ClassificationTask):
    @property
    def rewards(self):
        return (Reward("accuracy", generous),)


TASKS.register("gamed", lambda: Gamed("gamed", "1", "pays for anything"))
"""


def test_a_sound_task_passes_both() -> None:
    audited = CliRunner().invoke(app, ["audit", "lvis_fewshot", "--protocol", "strict"])
    assert audited.exit_code == 0, audited.output
    assert "within the bounds" in audited.output
    assert "always No Objects" in audited.output
    allowed = (
        "308 samples, 154 with truth. Allowed means: iou 0.600, confidence 0.600, metric 0.050. "
        "Over the samples with truth: iou 0.200, confidence 0.200."
    )
    assert allowed in audited.output.replace("\n", " ")
    assert "Highest ap without looking: 0.029, by the 30 likeliest boxes of the training set." in audited.output
    validated = CliRunner().invoke(app, ["validate", "lvis_fewshot", "--protocol", "strict", "-L", "8"])
    assert validated.exit_code == 0, validated.output
    assert "FAILED" not in validated.output


def test_a_task_that_can_be_gamed_ends_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "gamed.py").write_text(GAMED)
    # in processes of their own: what a file registers stays registered
    start = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()"]
    rest = ["gamed", "--include", "gamed.py", "--protocol", "strict", "-L", "8"]
    audited, validated = (
        subprocess.run([*start, verb, *rest], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        for verb in ("audit", "validate")
    )
    assert audited.returncode == 1, audited.stderr
    assert "ABOVE THE BOUNDS" in audited.stdout
    assert "above: accuracy" in audited.stdout
    assert validated.returncode == 1, validated.stderr
    assert "FAILED" in validated.stdout


def test_a_group_and_a_glob_are_checked_task_by_task(cli: Any) -> None:
    own = ("--protocol", "strict", "-L", "4")
    validated = cli("validate", "ovd", *own, "--profile", "qwen2-vl")
    assert validated.code == 0, validated.err
    assert [line for line in validated.out.splitlines() if "protocol strict" in line] == [
        "coco_ovd  |  protocol strict  |  ok: 9 checks",
        "lvis_ovd  |  protocol strict  |  ok: 9 checks",
    ]
    audited = cli("audit", "pets*,cars196_fewshot", *own, "--json")
    assert audited.code == 0, audited.err
    reports = [report for line in audited.out.splitlines() for report in json.loads(line)]
    assert [report["task"] for report in reports] == ["pets37_fewshot", "cars196_fewshot"]


def test_the_worst_of_a_group_decides_and_stops_no_other(cli: Any, root: Path) -> None:
    own = ("--protocol", "strict", "--profile", "qwen2-vl", "--data", str(root))
    outcome = cli("validate", "flower102_fewshot,pets37_fewshot", *own, "--json")
    assert outcome.code == 3, "the flowers are missing, and six images are not the pets"
    assert [json.loads(line)["task"] for line in outcome.out.splitlines()] == ["pets37_fewshot"]
    assert "1 of 2 tasks could not be checked:\n  flower102_fewshot: " in outcome.err
    assert cli("validate", "pets37_fewshot,pets*", *own).code == 1
    unknown = cli("audit", "fewshot_detecton")
    assert (unknown.code, "did you mean 'fewshot_detection'" in unknown.err) == (2, True)


def test_labels_are_those_of_one_task(cli: Any) -> None:
    outcome = cli("audit", "fewshot_classification", "--labels", "labels.csv")
    assert outcome.code == 2
    assert "--labels are those of one task, and 'fewshot_classification' names 4" in outcome.err


def test_json_holds_every_trick() -> None:
    audited = CliRunner().invoke(app, ["audit", "classification", "--protocol", "strict", "-L", "8", "--json"])
    (report,) = json.loads(audited.output)
    assert report["protocol"] == "strict"
    assert len(report["results"]) > 25
    validated = CliRunner().invoke(app, ["validate", "classification", "--protocol", "strict", "-L", "8", "--json"])
    assert all(check["passed"] for check in json.loads(validated.output)["strict"])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root with a part of the pets: three images of two breeds each."""
    for breed in ("abyssinian", "beagle"):
        folder = tmp_path / "data" / "pets37" / "val" / breed
        folder.mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_validate_holds_the_data_to_their_manifest_however_few_samples_are_tried(cli: Any) -> None:
    outcome = cli("validate", "coco_fewshot", "--protocol", "strict", "--profile", "qwen2-vl", "-L", "2")
    assert outcome.code == 0, outcome.err
    assert outcome.out == (
        "coco_fewshot  |  data of 2,400 questions  |  ok: manifest of the sample data\n"
        "coco_fewshot  |  protocol strict  |  ok: 9 checks\n"
    )


def test_validate_shows_every_check_when_asked(cli: Any) -> None:
    command = ("validate", "coco_fewshot", "--protocol", "strict", "--profile", "qwen2-vl", "-L", "2", "--plain")
    lines = cli(*command, "--verbose").out.splitlines()
    assert lines[1] == "coco_fewshot  |  protocol strict"
    shown = [line.split("  ")[0] for line in lines[4:] if line]
    assert shown == [check["check"] for check in json.loads(cli(*command, "--json").out)["strict"]]
    assert all(line.endswith(" 2  ok") for line in lines[4:] if line)
    assert cli(*command, "-v").out.splitlines() == lines


def test_validate_tells_a_remark_once_and_a_failure_under_each_protocol(cli: Any, tmp_path: Path) -> None:
    Image.new("RGB", (40, 60)).save(tmp_path / "a.png")
    boxes = [[1, 2, 10, 10], [1, 2, 10, 10]]
    document = {
        "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
        "annotations": [{"id": n, "image_id": 1, "category_id": 1, "bbox": box} for n, box in enumerate(boxes)],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(document))
    outcome = cli("validate", "detection", "--annotations", "a.json", "--images", ".", "--profile", "qwen2-vl")
    assert outcome.code == 1
    size = "image files open with the size that the data state: 1 samples, first '1:cat'"
    twice = "no object is listed twice: 1 of 2 boxes equal an earlier one of their sample, first '1:cat'"
    failure = f"  FAILED: {size}: a.png has (40, 60) pixels, and the data state (60, 40)"
    assert outcome.out.splitlines()[1:] == [
        "detection  |  protocol strict  |  FAILED: 1 of 9 checks",
        failure,
        f"  remark: {twice}",
        "detection  |  protocol paper  |  FAILED: 1 of 8 checks",
        failure,
    ]


def test_a_deliberate_subset_is_pinned_and_later_held_to_its_pin(cli: Any, root: Path) -> None:
    command = ("validate", "pets37_fewshot", "--protocol", "strict", "--profile", "qwen2-vl", "--data", str(root))
    outcome = cli(*command)
    assert outcome.code == 1, "six images are not the pets"
    assert "data of 6 questions  |  FAILED\n  FAILED: the data fit their manifest: " in outcome.out
    assert "published counts (the owners' lists): images: 3,669 expected, 6 here; categories: 37" in outcome.out
    assert f"if the subset is meant, pin it: vrft-bench validate pets37_fewshot --data {root} --pin" in outcome.out

    assert cli(*command, "--pin").code == 0
    assert cli(*command).code == 0
    pin = root / "pets37_fewshot-val.pin.json"
    before = pin.read_bytes()

    (root / "pets37" / "val" / "beagle" / "0.png").unlink()
    outcome = cli(*command, "--json")
    assert outcome.code == 1
    value = json.loads(outcome.out)
    (of_data,) = value["data"]
    assert of_data["passed"] is False
    assert of_data["detail"].startswith(f"pinned in {pin}: images: 6 expected, 5 here; questions: 6 expected, 5 here; ")
    assert of_data["fix"] == "if the data have changed on purpose, delete that file and pin them again"
    assert all(check["passed"] for check in value["strict"])

    outcome = cli(*command, "--pin")
    assert outcome.code == 2
    assert f"{pin} pins other data: images: 6 expected, 5 here" in outcome.err
    assert pin.read_bytes() == before


def test_the_sample_data_cannot_be_pinned(cli: Any) -> None:
    outcome = cli("validate", "coco_fewshot", "--pin")
    assert outcome.code == 2
    assert "there is no place for a pin" in outcome.err


def test_a_list_of_labels_is_audited_without_images(cli: Any, shared_data: Path) -> None:
    pytest.importorskip("math_verify", reason="needs math-verify (the extra [paper])")
    path = shared_data / "visual_rft_labels" / "stanford_cars.csv"
    if not path.is_file():
        pytest.skip("needs ../shared/data/visual_rft_labels beside the repository, which is not there")
    strict = cli("audit", "cars196_fewshot", "--labels", str(path), "--protocol", "strict")
    assert strict.code == 0, strict.err
    assert "cars196_fewshot  |  protocol strict  |  profile qwen2-vl  |  data: labels" in strict.out
    assert "8041 samples, 8041 with truth. Allowed means: accuracy 0.008, metric 0.008." in strict.out

    paper = cli("audit", "cars196_fewshot", "--labels", str(path), "--protocol", "paper", "--json")
    assert paper.code == 1
    (report,) = json.loads(paper.out)
    metric = {row["trick"]: round(100 * row["metric"], 1) for row in report["results"]}
    wanted = ("empty answer", "the constant '0'", "the constant '20'", "the constant '2012'")
    assert [metric[name] for name in wanted] == [100.0, 96.7, 93.9, 59.1]
    assert (report["data"], report["passed"]) == ("labels", False)


def test_a_small_list_passes_by_the_sound_rules_and_the_limit_is_taken(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("pug\nbeagle\npug\npug\n")
    command = ("audit", "pets37_fewshot", "--labels", "labels.txt", "--protocol", "strict")
    outcome = cli(*command)
    assert outcome.code == 0, outcome.err
    assert "4 samples, 4 with truth. Allowed means: accuracy 0.750, metric 0.750." in outcome.out
    assert "3 samples, 3 with truth." in cli(*command, "-L", "3").out
    alone = cli(*command, "-L", "1")
    assert (alone.code, "from 1 samples of one class" in alone.err) == (2, True)


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (("pets37_fewshot", "--labels", "absent.csv"), 3, "No such file"),
        (("pets37_fewshot", "--labels", "empty.json"), 3, "empty.json is not JSON"),
        (("pets37_fewshot", "--labels", "empty.csv"), 3, "empty.csv has no label in it"),
        (("pets37_fewshot", "--labels", "picture.txt"), 3, "picture.txt is not UTF-8"),
        (("pets37_fewshot", "--labels", "."), 3, ". is a folder, not a list of labels"),
        (("coco_fewshot", "--labels", "empty.csv"), 2, "task 'coco_fewshot' is detection"),
        (("lisa_grounding", "--labels", "empty.csv"), 2, "task 'lisa_grounding' is grounding"),
        (("pets37_fewshot", "--labels", "empty.csv", "--data", "."), 2, "--labels is given together with other data"),
        (("pets37_fewshot", "--labels", "empty.csv", "--split", "val"), 2, "--labels is given together"),
    ],
)
def test_what_cannot_be_audited_as_labels_is_told(
    cli: Any, tmp_path: Path, argv: tuple[str, ...], code: int, message: str
) -> None:
    for name in ("empty.json", "empty.csv"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "picture.txt").write_bytes(b"\x89PNG\r\n")
    outcome = cli("audit", *argv, "--protocol", "strict")
    assert outcome.code == code, outcome.err
    assert message in outcome.err
    assert "fix: " in outcome.err
