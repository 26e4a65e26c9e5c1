"""Data are held to their pin, to what their owners publish, or to the manifest that ships with the sample data."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.catalog.coco_ovd import BASE, NOVEL
from vrft_bench.tasks.data.manifest import SAMPLE_MANIFEST, pin_path, read_pin
from vrft_bench.tasks.data.sample import sample_folder
from vrft_bench.tasks.validate import check_data

pytestmark = pytest.mark.usefixtures("sample_cache")
SCRIPT = Path(__file__).parents[3] / "scripts" / "write_sample_manifest.py"


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    """A data root with six flowers: a subset, of whatever is published."""
    folder = tmp_path / "data" / "flower102" / "val"
    for index, name in enumerate(["rose", "petunia"]):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, index, 0)).save(folder / name / f"{number}.png")
    return tmp_path / "data"


def test_the_shipped_manifest_is_what_the_script_writes() -> None:
    """Fails after a change of the sample data or of a task's choice of it: run scripts/write_sample_manifest.py."""
    code = "import json, runpy, sys; print(json.dumps(runpy.run_path(sys.argv[1])['sample_manifest']()))"
    done = subprocess.run([sys.executable, "-c", code, str(SCRIPT)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    written = json.loads(done.stdout)
    assert written == json.loads(SAMPLE_MANIFEST.read_text())
    assert {"lvis_ovd", "coco_fewshot", "classification", "lisa_grounding"} <= set(written)


@pytest.mark.parametrize(
    ("name", "split", "counts"),
    [
        ("coco_ovd", "train", {"images": 4_000, "annotations": 9_970, "categories": 20, "questions": 60_000}),
        ("lvis_fewshot", "val", {"images": 200, "categories": 20, "questions": 430}),
        ("lisa_grounding", "test", {"images": 200, "questions": 200}),
        ("pets37_fewshot", "val", {"images": 240, "categories": 8, "questions": 240}),
    ],
)
def test_the_sample_data_fit_their_manifest(name: str, split: str, counts: dict[str, int]) -> None:
    check = check_data(get_task(name), DataSpec(split=split))
    assert (check.passed, check.detail) == (True, "manifest of the sample data")
    shipped = json.loads(SAMPLE_MANIFEST.read_text())[name][split]["counts"]
    assert counts.items() <= shipped.items()


def test_sample_data_that_were_changed_do_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VRFT_BENCH_CACHE", str(tmp_path))
    path = sample_folder("coco", "val") / "annotations" / "instances_val2017.json"
    document = json.loads(path.read_text())
    next(row for row in document["annotations"] if row["category_id"] == 1)["bbox"][0] += 1
    path.write_text(json.dumps(document))
    check = check_data(get_task("coco_fewshot"), DataSpec(categories=("red circle",)))
    assert not check.passed
    assert check.detail.startswith("manifest of the sample data: sha256 of ids, truth and image names: ")
    assert "delete the cache folder" in check.fix


def test_a_task_without_a_training_split_of_its_own_is_held_to_what_is_chosen(tmp_path: Path) -> None:
    shutil.copytree(sample_folder("lvis", "train"), tmp_path / "data")
    task, spec = get_task("lvis_ovd"), DataSpec(tmp_path / "data", "train")
    with pytest.raises(UserError, match="no training split"):
        check_data(task, spec)
    check = check_data(task, replace(spec, categories=("red_square",)))
    assert not check.passed
    assert "published counts (LVIS v1): images: 100,170 expected, 1,000 here; annotations: 1,270,141" in check.detail


def write_coco_val(root: Path) -> None:
    """Files with the counts of COCO val2017; the images are empty."""
    images = [{"id": n, "file_name": f"{n:012d}.jpg", "width": 640, "height": 480} for n in range(1, 5_001)]
    annotations = [
        {"id": n, "image_id": n % 5_000 + 1, "category_id": n % 80 + 1, "bbox": [1, 2, 30, 40]} for n in range(36_781)
    ]
    categories = [{"id": n, "name": name} for n, name in enumerate(BASE + NOVEL, start=1)]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "instances_val2017.json").write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    (root / "val2017").mkdir()
    for image in images:
        (root / "val2017" / str(image["file_name"])).touch()


def test_real_data_are_held_to_what_their_owners_publish(tmp_path: Path) -> None:
    write_coco_val(tmp_path)
    task, spec = get_task("coco_fewshot"), DataSpec(tmp_path)
    whole = check_data(task, spec)
    assert (whole.passed, whole.looked_at, whole.detail) == (True, 40_000, "published counts (COCO 2017)")
    (tmp_path / "val2017" / "000000004711.jpg").unlink()
    part = check_data(task, spec)
    assert part.detail == (
        "published counts (COCO 2017): missing image files: 0 expected, 1 here (first: 000000004711.jpg)"
    )
    assert part.fix.endswith(f"pin it: vrft-bench validate coco_fewshot --data {tmp_path} --pin")
    assert not part.passed


def test_a_set_that_is_published_twice_may_be_either(tmp_path: Path) -> None:
    folder = tmp_path / "flower102"
    (folder / "jpg").mkdir(parents=True)
    rows = [f"image_{number:05d}.jpg,class {number % 102}" for number in range(2_463)]
    for row in rows:
        (folder / "jpg" / row.partition(",")[0]).touch()
    task, spec = get_task("flower102_fewshot"), DataSpec(tmp_path)
    (folder / "val.csv").write_text("\n".join(["image,label", *rows]))
    assert check_data(task, spec).detail == "published counts (CoOp's split file)"
    (folder / "val.csv").write_text("\n".join(["image,label", *rows[:-1]]))
    check = check_data(task, spec)
    assert not check.passed
    assert check.detail == (
        "published counts (the owners' lists): images: 6,149 expected, 2,462 here | "
        "published counts (CoOp's split file): images: 2,463 expected, 2,462 here"
    )


def test_a_pin_comes_before_what_is_published(flowers: Path) -> None:
    task, spec = get_task("flower102_fewshot"), DataSpec(flowers)
    assert not check_data(task, spec).passed
    path = flowers / "flower102_fewshot-val.pin.json"
    assert not path.exists(), "only --pin pins"
    pinned = check_data(task, spec, pin=True)
    assert (pinned.passed, pinned.detail) == (True, f"pinned in {path}")
    counts = json.loads(path.read_text())["counts"]
    assert {"images": 6, "categories": 2, "questions": 6, "missing image files": 0}.items() <= counts.items()
    assert check_data(task, replace(spec, categories=("rose",))).passed, "the choice of categories does not count"


def test_a_pin_says_what_has_changed(flowers: Path) -> None:
    task, spec = get_task("flower102_fewshot"), DataSpec(flowers)
    check_data(task, spec, pin=True)
    images = flowers / "flower102" / "val"

    before = (images / "rose" / "0.png").read_bytes()
    (images / "rose" / "0.png").write_bytes(before + b"more")
    size = sum(path.stat().st_size for path in images.rglob("*.png"))
    assert check_data(task, spec).detail.endswith(f"bytes of image files: {size - 4:,} expected, {size:,} here")
    (images / "rose" / "0.png").write_bytes(before)
    assert check_data(task, spec).passed

    (images / "rose" / "0.png").rename(images / "rose" / "9.png")
    (line,) = check_data(task, spec).detail.split("; ")
    assert "sha256 of ids, truth and image names: " in line

    (images / "rose" / "9.png").unlink()
    check = check_data(task, spec)
    assert "images: 6 expected, 5 here; questions: 6 expected, 5 here; bytes of image files: " in check.detail
    assert check.fix == "if the data have changed on purpose, delete that file and pin them again"


def test_a_different_pin_is_never_replaced(flowers: Path) -> None:
    task, spec = get_task("flower102_fewshot"), DataSpec(flowers)
    check_data(task, spec, pin=True)
    path = flowers / "flower102_fewshot-val.pin.json"
    before = path.read_bytes()
    check_data(task, spec, pin=True)
    (flowers / "flower102" / "val" / "rose" / "0.png").unlink()
    with pytest.raises(UserError, match="pins other data: images: 6 expected, 5 here") as failure:
        check_data(task, spec, pin=True)
    assert "delete that file" in str(failure.value.fix)
    assert path.read_bytes() == before


def test_ones_own_files_are_held_to_a_pin_beside_them(tmp_path: Path) -> None:
    root = sample_folder("coco", "val")
    own = tmp_path / "my.json"
    own.write_bytes((root / "annotations" / "instances_val2017.json").read_bytes())
    task, spec = get_task("detection"), DataSpec(annotations=own, images=root / "images" / "val2017")
    assert check_data(task, spec).detail == "no published counts and no pin"
    assert check_data(task, spec, pin=True).detail == f"pinned in {tmp_path / 'my-detection-val.pin.json'}"
    document = json.loads(own.read_text())
    document["annotations"].pop()
    own.write_text(json.dumps(document))
    check = check_data(task, spec)
    assert "annotations: 725 expected, 724 here; sha256 of ids, truth and image names: " in check.detail


def test_an_image_folder_has_its_pin_beside_it_where_no_reader_takes_it_for_data(flowers: Path) -> None:
    folder = flowers / "flower102" / "val"
    spec = DataSpec(images=folder)
    assert check_data(get_task("classification"), spec, pin=True).passed
    assert pin_path(get_task("classification"), spec, "val") == folder.with_name("val-classification-val.pin.json")
    assert [path.name for path in folder.parent.iterdir() if path.is_file()] == ["val-classification-val.pin.json"]
    assert check_data(get_task("flower102_fewshot"), DataSpec(flowers)).looked_at == 6


def test_ones_own_data_without_a_pin_have_to_be_complete(tmp_path: Path) -> None:
    root = sample_folder("coco", "val")
    (tmp_path / "images").mkdir()
    for name in ("000000000001.png", "000000000002.png"):
        (tmp_path / "images" / name).write_bytes((root / "images" / "val2017" / name).read_bytes())
    spec = DataSpec(annotations=root / "annotations" / "instances_val2017.json", images=tmp_path / "images")
    check = check_data(get_task("detection"), spec)
    assert (check.passed, check.detail) == (
        False,
        "no published counts and no pin: missing image files: 0 expected, 298 here (first: 000000000003.png)",
    )
    assert check.fix.startswith("complete the data; if the subset is meant, pin it: vrft-bench validate detection")


def test_the_sample_data_cannot_be_pinned() -> None:
    with pytest.raises(UserError, match="no place for a pin: task 'coco_fewshot' reads the sample data"):
        check_data(get_task("coco_fewshot"), DataSpec(), pin=True)


def test_a_pin_that_cannot_be_written_is_told(flowers: Path) -> None:
    task = replace(get_task("flower102_fewshot"), name="x" * 300)
    with pytest.raises(UserError, match=r"the pin cannot be written to .*: File name too long"):
        check_data(task, DataSpec(flowers), pin=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("[]", "is no pin of format 1"),
        ('{"format": 2}', "is no pin of format 1"),
        ('{"format": 1, "counts": {"images": "6"}}', "'counts' are no numbers"),
        ('{"format": 1, "counts": {"images": true}}', "'counts' are no numbers"),
        ('{"format": 1, "counts": {}}', "lacks 'sha256'"),
    ],
)
def test_a_damaged_pin_is_told(flowers: Path, text: str, message: str) -> None:
    path = flowers / "flower102_fewshot-val.pin.json"
    path.write_text(text)
    for act in (lambda: read_pin(path), lambda: check_data(get_task("flower102_fewshot"), DataSpec(flowers))):
        with pytest.raises(DataError, match=message):
            act()


def test_tinycoco_is_a_subset_until_it_is_pinned(tinycoco: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny").symlink_to(tinycoco, target_is_directory=True)
    check = check_data(get_task("coco_fewshot"), DataSpec(tmp_path / "tiny"))
    assert not check.passed
    assert "images: 5,000 expected, 6 here; annotations: 36,781 expected, 136 here; " in check.detail
    assert "if the subset is meant, pin it: " in check.fix
