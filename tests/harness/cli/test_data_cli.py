"""``vrft-bench data`` as a user types it."""

from __future__ import annotations

import functools
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import DataSpec
from vrft_bench.tasks.data import sources
from vrft_bench.tasks.data.sources import Download, Need

pytestmark = pytest.mark.usefixtures("sample_cache")


def images(folder: Path, *colours: tuple[int, int, int]) -> None:
    folder.mkdir(parents=True)
    for index, colour in enumerate(colours):
        picture = Image.linear_gradient("L").rotate(37 * colour[0]).convert("RGB")
        picture.save(folder / f"{index}.png")


def test_check_lists_what_is_missing_and_where_it_is_published(cli: Any, tmp_path: Path) -> None:
    outcome = cli("data", "check", "coco_fewshot", "--data", str(tmp_path), "--plain")
    assert outcome.code == 3
    lines = outcome.out.splitlines()
    assert lines[0] == f"data root {tmp_path}"
    assert lines[3].split() == ["coco_fewshot", "evaluation", "COCO", "2017", "annotations", "missing"]
    assert (
        "COCO val2017 images: `vrft-bench data fetch coco_fewshot --data DIR`; published at "
        "http://images.cocodataset.org/zips/val2017.zip; goes to coco/images/val2017"
    ) in lines


def test_check_finds_real_data_and_needs_no_root(cli: Any, tinycoco: Path) -> None:
    outcome = cli("data", "check", "coco_fewshot", "--data", str(tinycoco), "--json")
    assert outcome.code == 0
    value = json.loads(outcome.out)
    found = {row["what"]: row["found"] for row in value["needs"]}
    assert found["COCO val2017 images"] == str(tinycoco / "images" / "val2017")
    assert found["training set ViRFT_COCO_8_cate_4_shot"] is None
    everything = cli("data", "check")
    assert everything.code == 0
    assert everything.out.startswith("no data root: tasks run on the embedded sample data")
    assert "ReasonSeg val: by hand; published at the README of https://github.com/dvlab-research/LISA" in everything.out


def test_the_split_that_only_table_6_needs_is_optional(cli: Any, tmp_path: Path) -> None:
    images(tmp_path / "ReasonSeg" / "val", (1, 0, 0))
    outcome = cli("data", "check", "lisa_grounding", "--data", str(tmp_path), "--plain")
    assert outcome.code == 0, "what is optional may be missing"
    assert outcome.out.splitlines()[3:5] == [
        f"lisa_grounding  evaluation  ReasonSeg val                             {tmp_path}/ReasonSeg/val",
        "lisa_grounding  optional    ReasonSeg test (for the paper's table 6)  missing",
    ]
    fetched = cli("data", "fetch", "lisa_grounding", "--data", str(tmp_path))
    assert fetched.code == 0
    assert f"put it at {tmp_path}/ReasonSeg/test" in fetched.out
    images(tmp_path / "ReasonSeg" / "test", (1, 0, 0))
    assert "missing" not in cli("data", "check", "lisa_grounding", "--data", str(tmp_path)).out


@pytest.fixture
def owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that a server on loopback publishes, and from which coco_fewshot fetches its images."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

    folder = tmp_path / "owner"
    folder.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Silent, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{httpd.server_port}/val2017.zip"
    need = Need("COCO val2017 images", ("coco/images/val2017",), Download(url, "coco/images"))
    monkeypatch.setitem(sources._NEEDS, "coco_fewshot", (need,))
    yield folder
    httpd.shutdown()
    thread.join()
    httpd.server_close()


def test_fetch_brings_what_is_missing_once(cli: Any, tmp_path: Path, owner: Path) -> None:
    with zipfile.ZipFile(owner / "val2017.zip", "w") as archive:
        archive.writestr("val2017/000000000139.jpg", b"a picture")
    root = tmp_path / "data"
    command = ("data", "fetch", "coco_fewshot", "--data", str(root))
    dry = cli(*command, "--dry-run")
    assert dry.out.startswith("COCO val2017 images: of unknown size, from http://127.0.0.1:")
    assert not root.exists()
    assert cli(*command).out == f"COCO val2017 images: fetched, {root}/coco/images/val2017\n"
    assert (root / "coco" / "images" / "val2017" / "000000000139.jpg").read_bytes() == b"a picture"
    assert sorted(path.name for path in (root / "coco" / "images").iterdir()) == ["val2017"]
    (owner / "val2017.zip").unlink()
    assert cli(*command).out == f"COCO val2017 images: there, {root}/coco/images/val2017\n"


def test_fetch_says_what_went_wrong(cli: Any, tmp_path: Path, owner: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ("data", "fetch", "coco_fewshot", "--data", str(tmp_path / "data"))
    outcome = cli(*command)
    assert outcome.code == 3
    assert "the server says 404" in outcome.err
    with zipfile.ZipFile(owner / "val2017.zip", "w") as archive:
        archive.writestr("val2014/000000000139.jpg", b"a picture")
    outcome = cli(*command)
    assert outcome.code == 3
    assert "came without coco/images/val2017" in outcome.err
    (need,) = sources.needs("coco_fewshot")
    assert isinstance(need.source, Download)
    wrong = replace(need, source=replace(need.source, sha256="0" * 64))
    monkeypatch.setitem(sources._NEEDS, "coco_fewshot", (wrong,))
    assert "gave a file with the sha256" in cli(*command).err


def test_fetch_shows_how_far_it_is(cli: Any, tmp_path: Path, owner: Path) -> None:
    with zipfile.ZipFile(owner / "val2017.zip", "w") as archive:
        archive.writestr("val2017/000000000139.jpg", bytes(2_500_000))
    lines = cli("data", "fetch", "coco_fewshot", "--data", str(tmp_path / "data")).err.splitlines()
    assert (lines[0], lines[-1]) == ("val2017.zip: 0.0 of 2.5 MB", "val2017.zip: 2.5 of 2.5 MB")
    assert len(lines) == 2, "off a terminal a line every ten seconds is enough"


def test_a_data_root_that_cannot_be_made_is_named(cli: Any, tmp_path: Path, owner: Path) -> None:
    (tmp_path / "file").write_text("")
    outcome = cli("data", "fetch", "coco_fewshot", "--data", str(tmp_path / "file" / "data"))
    assert (outcome.code, "coco/images cannot be made: Not a directory" in outcome.err) == (2, True)


def test_fetch_says_what_is_left_to_the_user(cli: Any, tmp_path: Path) -> None:
    outcome = cli("data", "fetch", "lisa_grounding", "--data", str(tmp_path))
    assert outcome.code == 3
    assert outcome.out == (
        "ReasonSeg val: to fetch by hand from the README of https://github.com/dvlab-research/LISA; "
        f"put it at {tmp_path}/ReasonSeg/val\n"
        "ReasonSeg test (for the paper's table 6): to fetch by hand from the README of "
        f"https://github.com/dvlab-research/LISA; put it at {tmp_path}/ReasonSeg/test\n"
    )
    assert "nothing to fetch" in cli("data", "fetch", "detection", "--data", str(tmp_path)).out
    assert "say where the data go" in cli("data", "fetch", "coco_ovd").err
    assert "unknown --part 'eval'" in cli("data", "fetch", "coco_ovd", "--data", "x", "--part", "eval").err


def test_of_many_categories_with_too_few_samples_the_first_are_named(cli: Any, tinycoco: Path) -> None:
    command = ("data", "split", "coco_ovd", "--shots", "16", "--data", str(tinycoco))
    (row,) = json.loads(cli(*command, "--json").out)
    named = [f"{name} ({count})" for name, count in row["short"].items()]
    assert len(named) > 50
    (line,) = [line for line in cli(*command, "--plain").out.splitlines() if line.endswith(".json")]
    assert f"  {', '.join(named[:3])} and {len(named) - 3} more  " in line
    assert len(line) < 160


def test_split_writes_manifests_that_do_not_change(cli: Any, tmp_path: Path) -> None:
    command = ("data", "split", "lvis_fewshot", "--shots", "1,4", "--seeds", "0,1")
    rows = json.loads(cli(*command, "--json").out)
    assert [(row["shots"], row["seed"], row["samples"], row["written"]) for row in rows] == [
        (1, 0, 6, True),
        (4, 0, 24, True),
        (1, 1, 6, True),
        (4, 1, 24, True),
    ]
    manifest = json.loads((tmp_path / "splits" / "lvis_fewshot" / "4-shot-seed-1.json").read_text())
    assert (manifest["split"], manifest["data"], len(manifest["samples"])) == ("train", "sample", 24)
    table = cli(*command, "--plain").out
    assert table.startswith("lvis_fewshot  |  split train  |  data: sample\n")
    assert table.count("unchanged") == 4
    other = cli(*command, "--categories", "red_circle")
    assert other.code == 2
    assert "is there and differs" in other.err
    assert "no list of numbers" in cli("data", "split", "lvis_fewshot", "--shots", "few").err


def test_split_names_a_category_that_has_nothing_to_draw(cli: Any, tmp_path: Path) -> None:
    images(tmp_path / "train", (1, 0, 0))
    document = {
        "images": [{"id": 1, "file_name": "0.png", "width": 256, "height": 256}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20]}],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}],
    }
    (tmp_path / "train.json").write_text(json.dumps(document))
    own = ("--annotations", "train.json", "--images", "train")
    (row,) = json.loads(cli("data", "split", "detection", *own, "--shots", "2", "--json").out)
    assert (row["samples"], row["short"]) == (1, {"cat": 1, "dog": 0})


def test_overlap_finds_shared_images(cli: Any, tmp_path: Path) -> None:
    images(tmp_path / "train", (1, 0, 0), (2, 0, 0))
    images(tmp_path / "test", (2, 0, 0), (4, 0, 0))
    outcome = cli("data", "overlap", "train", "test", "--plain", "--threshold", "0")
    assert outcome.code == 0
    assert "1.png  0.png  same pixels" in outcome.out
    last = outcome.out.splitlines()[-1]
    assert last == "2 and 2 images: 1 pairs with the same pixels, 0 nearly the same (at most 0 of 64 bits apart)"
    gated = cli("data", "overlap", "train", "test", "--json", "--gate")
    assert gated.code == 1
    assert json.loads(gated.out)["exact"] == [{"a": "1.png", "b": "0.png"}]


def test_overlap_takes_the_splits_of_a_task(cli: Any) -> None:
    value = json.loads(cli("data", "overlap", "lisa_grounding:val", "lisa_grounding:val", "--json").out)
    assert value["images"] == [200, 200]
    assert len(value["exact"]) >= 200
    assert "is neither a file or folder nor a task" in cli("data", "overlap", "nothing", "lisa_grounding").err


def test_ask_map_writes_what_a_run_takes(cli: Any, tmp_path: Path) -> None:
    outcome = cli("data", "ask-map", "lvis_fewshot", "--model", "mock/gold", "-o", "map.json", "--plain")
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    assert lines[-1] == "map.json"
    assert lines[0].endswith("0 unclear, 0 failed; 100.0% agree with the truth")
    run = cli("-t", "lvis_fewshot", "-m", "mock/gold", "--ask", "file:map.json", "--json")
    report = json.loads(run.out)["report"]
    assert report["figures"][report["headline"]]["value"] == 1.0
    again = cli("data", "ask-map", "lvis_fewshot", "--model", "mock/gold", "-o", "map.json")
    assert (again.code, "is there already" in again.err) == (2, True)


def test_what_an_ask_map_leaves_out_is_missed_and_not_said_to_be_asked(cli: Any) -> None:
    present = get_task("coco_fewshot").load(DataSpec(ask="present"))
    chosen, *left_out = [sample.fields for sample in present.samples()]
    Path("map.json").write_text(json.dumps({chosen["image_id"]: [chosen["category"]]}))
    asked = ("-t", "coco_fewshot", "-m", "mock/gold", "--ask", "file:map.json", "--json")
    rows = json.loads(cli(*asked).out)["report"]["by_category"]
    assert {name: row["images"] for name, row in rows.items() if row["images"]} == {chosen["category"]: 1}
    assert all(rows[fields["category"]]["truths"] for fields in left_out)


def test_a_file_where_a_folder_is_wanted_is_one_message(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "afile").write_text("")
    for argv in (
        ("data", "fetch", "coco_fewshot", "--data", str(tmp_path / "afile")),
        ("data", "check", "coco_fewshot", "--data", str(tmp_path / "afile")),
        ("data", "split", "coco_fewshot", "--shots", "1", "-o", str(tmp_path / "afile")),
        ("data", "ask-map", "coco_fewshot", "-m", "mock/gold", "-o", str(tmp_path / "afile" / "m.json")),
    ):
        outcome = cli(*argv)
        assert outcome.code in (2, 3), argv
        assert "fix:" in outcome.err, argv
        assert "Traceback" not in outcome.err, argv


def test_a_presence_prompt_may_hold_braces_of_its_own(cli: Any, tmp_path: Path) -> None:
    prompt = 'Is {category} there? {x} {0} {"a": 1}'
    argv = ("data", "ask-map", "coco_fewshot", "-m", "mock/gold", "--prompt", prompt, "-o", str(tmp_path / "m.json"))
    outcome = cli(*argv)
    assert outcome.code == 0, outcome.err
    assert (tmp_path / "m.json").is_file()
