"""The page as a document: hostile text stays text, and a report is written only where it may be."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.app import app
from vrft_bench.leaderboards.report import build, build_report
from vrft_bench.leaderboards.report.page import script_json
from vrft_bench.leaderboards.report.summary import model_name
from vrft_bench.leaderboards.runs import RunRow, open_run

MakeRun = Callable[..., RunRow]


class Document(HTMLParser):
    """The elements of a page, and what its scripts hold."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._into: list[str] | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._into = {"script": self.scripts, "style": self.styles}.get(tag)
        if self._into is not None:
            self._into.append("")

    def handle_endtag(self, tag: str) -> None:
        self._into = None

    def handle_data(self, data: str) -> None:
        if self._into is not None:
            self._into[-1] += data

    @property
    def policy(self) -> str:
        return next(
            attributes["content"] or ""
            for tag, attributes in self.tags
            if attributes.get("http-equiv") == "Content-Security-Policy"
        )

    @property
    def data(self) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.scripts[0])
        return value


def page_of(row: RunRow, tmp_path: Path) -> str:
    return build_report([row], tmp_path / "report.html").read_text()


def test_hostile_text_makes_no_element_and_no_attribute(hostile_run: RunRow, tmp_path: Path) -> None:
    text = page_of(hostile_run, tmp_path)
    document = Document(text)
    assert [attributes.get("type") for tag, attributes in document.tags if tag == "script"] == [
        "application/json",
        None,
    ]
    assert not {tag for tag, _ in document.tags} & {"img", "iframe", "object", "embed", "base", "form"}
    for tag, attributes in document.tags:
        assert not {name for name in attributes if name.startswith("on") or name == "style"}, tag
        assert not (attributes.get("href") or "#").lower().startswith(("javascript:", "http"))
    assert "\u2028" not in text
    assert "\x1b" not in text
    texts = [card["r"][0]["t"][1] for card in document.data["cards"]]
    assert any("</script><script>window.hacked = 2</script>" in said for said in texts)
    assert any("\u2028" in said for said in texts)


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else(
    detection: tuple[RunRow, RunRow], tmp_path: Path
) -> None:
    document = Document(page_of(detection[0], tmp_path))
    (style,) = document.styles
    script = document.scripts[1]
    hashes = [
        f"'sha256-{base64.b64encode(hashlib.sha256(part.encode()).digest()).decode()}'" for part in (style, script)
    ]
    assert document.policy == (
        f"default-src 'none'; img-src data:; style-src {hashes[0]}; script-src {hashes[1]}; "
        "base-uri 'none'; form-action 'none'"
    )


def test_our_scripts_write_text_and_never_markup() -> None:
    static = files("vrft_bench.leaderboards.report") / "static"
    for script in static.iterdir():
        source = script.read_text()
        assert not re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|Function\(|https?:",
            source.replace("http://www.w3.org/2000/svg", ""),
        )


@given(st.text())
def test_json_in_a_script_reads_back_and_cannot_end_it(text: str) -> None:
    written = script_json([text])
    assert json.loads(written) == [text]
    assert not set(written) & set("<>&\u2028\u2029")


def test_figures_stand_on_the_page_with_their_intervals_and_what_they_are_of(
    detection: tuple[RunRow, RunRow], tmp_path: Path
) -> None:
    row = detection[0]
    text = html.unescape(re.sub(r"<[^>]+>", " ", page_of(row, tmp_path).split('type="application/json"')[0]))
    assert row.report is not None
    ap = row.report.figures["ap"]
    assert f"{ap.value:.3f}" in text
    assert f"[{ap.low:.3f}, {ap.high:.3f}]" in text
    for said in ("SAMPLE DATA", "PARTIAL", "protocol", "strict", row.manifest.fingerprint[:16], "greedy"):
        assert said in text


def test_a_page_holds_no_path_of_this_machine(hostile_run: RunRow, tmp_path: Path) -> None:
    text = page_of(hostile_run, tmp_path)
    assert str(hostile_run.folder.parents[2]) not in text
    assert str(tmp_path.parent) not in text
    assert "no such file in hostile" in text


@pytest.mark.parametrize(
    ("model", "shown"),
    [
        ("hf//home/someone/grpo/final", "hf/grpo/final"),
        ("/home/someone/grpo/final", "grpo/final"),
        ("hf/~/grpo/final", "hf/grpo/final"),
        ("./grpo/final", "./grpo/final"),
        ("hf/Qwen/Qwen2-VL-2B", "hf/Qwen/Qwen2-VL-2B"),
        ("mock/noisy", "mock/noisy"),
    ],
)
def test_a_model_is_called_by_its_name_and_not_by_where_it_lies(model: str, shown: str) -> None:
    assert model_name(model) == shown


def test_a_missing_image_is_a_card_with_its_reason(hostile_run: RunRow, tmp_path: Path) -> None:
    data = Document(page_of(hostile_run, tmp_path)).data
    assert [bool(url) for url, *_ in data["images"]] == [True] * (len(data["images"]) - 1) + [False]
    assert data["images"][-1][3]
    notes = re.findall(r"<li><bdi>(.*?)</bdi>", page_of(hostile_run, tmp_path))
    assert any("images are missing" in note for note in notes)


def test_many_images_lie_beside_the_page(
    detection: tuple[RunRow, RunRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "MOST_INLINE", 5)
    page = build_report([detection[0]], tmp_path / "large.html")
    urls = [image[0] for image in Document(page.read_text()).data["images"]]
    assert urls[0] == "large_thumbnails/000000.webp"
    assert sorted(path.name for path in (tmp_path / "large_thumbnails").iterdir()) == [Path(url).name for url in urls]
    (tmp_path / "large_thumbnails" / "009999.webp").touch()
    folder = build_report([detection[0]], tmp_path / "folder")
    assert folder == tmp_path / "folder" / "index.html"
    assert (tmp_path / "folder" / "thumbnails" / "000000.webp").is_file()
    build_report([detection[0]], tmp_path / "large.html")
    assert not (tmp_path / "large_thumbnails" / "009999.webp").exists()


def test_a_file_that_is_no_report_is_left_alone(detection: tuple[RunRow, RunRow], tmp_path: Path) -> None:
    mine = tmp_path / "index.html"
    mine.write_text("my own page")
    with pytest.raises(UserError, match="is no report"):
        build_report([detection[0]], tmp_path)
    assert mine.read_text() == "my own page"
    mine.unlink()
    build_report([detection[0]], tmp_path)
    build_report([detection[0]], tmp_path)


def test_runs_of_two_tasks_are_refused(detection: tuple[RunRow, RunRow], make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="about one task, and these runs are of flower102_fewshot, lvis_fewshot"):
        build_report([detection[0], make_run("flower102_fewshot", "mock/gold", "-L", "5")], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_runs_that_differ_in_the_truth_of_a_question_are_refused(make_run: MakeRun, tmp_path: Path) -> None:
    Image.new("RGB", (90, 60)).save(tmp_path / "a.png")
    rows = []
    for name, width in (("one", 40), ("other", 41)):
        truth = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, width, 30], "area": 1200, "iscrowd": 0}
        image = {"id": 1, "file_name": "a.png", "width": 90, "height": 60}
        path = tmp_path / f"{name}.json"
        path.write_text(
            json.dumps({"images": [image], "annotations": [truth], "categories": [{"id": 1, "name": "box"}]})
        )
        rows.append(make_run("detection", "mock/gold", "--annotations", str(path), "--images", str(tmp_path)))
    with pytest.raises(UserError, match="runs A and B are on different data: the truth of question '1:box'"):
        build_report(rows, tmp_path / "r.html")


def copy_of(row: RunRow, tmp_path: Path, name: str = "run") -> Path:
    return Path(shutil.copytree(row.folder, tmp_path / name))


def opened(folder: Path) -> RunRow:
    row = open_run(folder)
    assert isinstance(row, RunRow)
    return row


def test_torn_unfinished_and_empty_runs_are_shown_with_what_is_wrong(
    detection: tuple[RunRow, RunRow], tmp_path: Path
) -> None:
    folder = copy_of(detection[0], tmp_path)
    lines = (folder / "samples.jsonl").read_text().splitlines(keepends=True)
    (folder / "samples.jsonl").write_text("".join(lines[:50]) + lines[50][:30])
    text = page_of(opened(folder), tmp_path)
    assert "Partial: 70 of 120 answers are not stored" in text
    assert len(Document(text).data["cards"]) == 50
    (folder / "samples.jsonl").write_text("")
    assert Document(page_of(opened(folder), tmp_path)).data["cards"] == []
    (folder / "samples.jsonl").write_text("not json\n")
    assert "Answers cannot be shown" in page_of(opened(folder), tmp_path)
    (folder / "samples.jsonl").unlink()
    (folder / "metrics.json").unlink()
    text = page_of(opened(folder), tmp_path)
    assert "It has lost its samples.jsonl" in text
    assert "No figures" in text


def test_answers_are_shown_without_the_data_they_are_about(
    hostile_run: RunRow, detection: tuple[RunRow, RunRow], tmp_path: Path
) -> None:
    folder = copy_of(hostile_run, tmp_path)
    manifest = json.loads((folder / "run.json").read_text())
    manifest["config"]["annotations"] = str(tmp_path / "gone.json")
    (folder / "run.json").write_text(json.dumps(manifest))
    text = page_of(opened(folder), tmp_path)
    data = Document(text).data
    assert "the data are not here" in text
    assert str(tmp_path) not in text
    assert [card["i"] for card in data["cards"]] == [-1] * len(hostile_run_records(hostile_run))
    assert all(card["r"][0]["t"][1] for card in data["cards"])


def hostile_run_records(row: RunRow) -> list[str]:
    return (row.folder / "samples.jsonl").read_text().splitlines()


def test_runs_that_share_no_question_and_lack_a_figure_say_so(make_run: MakeRun, tmp_path: Path) -> None:
    ids = [("lvis_fewshot", "mock/noisy", "--sample-id", name) for name in ("1:red_circle", "2:blue_triangle")]
    one, other = (make_run(*flags) for flags in ids)
    folder = copy_of(other, tmp_path)
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["report"]["figures"]["precision"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    text = build_report([one, opened(folder)], tmp_path / "r.html").read_text()
    assert "These runs have no question in common" in text
    assert [[bool(answer) for answer in card["r"]] for card in Document(text).data["cards"]] == [
        [True, False],
        [False, True],
    ]


def test_the_command_writes_a_page_and_tells_where(detection: tuple[RunRow, RunRow], tmp_path: Path) -> None:
    output = tmp_path / "r.html"
    call = ["report", *(str(row.folder) for row in detection), "-o", str(output), "--title", "<b>mine</b>"]
    outcome = CliRunner().invoke(app, call)
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.splitlines()[-1] == str(output)
    text = output.read_text()
    assert "&lt;b&gt;mine&lt;/b&gt;" in text
    assert [run["letter"] for run in Document(text).data["runs"]] == ["A", "B"]


@pytest.mark.parametrize(("library", "kind"), [("jinja2", "html"), ("matplotlib", "png")])
def test_without_its_library_a_report_says_what_to_install(
    detection: tuple[RunRow, RunRow], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, kind: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    outcome = CliRunner().invoke(app, ["report", str(detection[0].folder), "--format", kind, "-o", str(tmp_path / "r")])
    assert isinstance(outcome.exception, UserError)
    assert library in outcome.exception.message
    assert outcome.exception.fix == "pip install 'vrft-bench[report]'"


def test_a_run_of_a_newer_format_is_refused_by_name(detection: tuple[RunRow, RunRow], tmp_path: Path) -> None:
    folder = copy_of(detection[0], tmp_path)
    manifest = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps({**manifest, "format": 99}))
    outcome = CliRunner().invoke(app, ["report", str(folder), "-o", str(tmp_path / "r.html")])
    assert outcome.exit_code != 0
    assert "is of format 99" in str(outcome.exception)
