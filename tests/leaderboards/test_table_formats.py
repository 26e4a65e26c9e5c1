"""The formats against golden files (``UPDATE_GOLDEN=1 pytest`` writes them anew), and against hostile names."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.leaderboards.runs import open_runs
from vrft_bench.leaderboards.table_build import build_tables
from vrft_bench.leaderboards.table_formats import to_csv, to_frame, to_html, to_json, to_latex, to_markdown
from vrft_bench.leaderboards.tables import TableOptions, Tables
from vrft_bench.leaderboards.text import markdown_text

Make = Callable[..., Path]
GOLDEN = Path(__file__).parent / "golden"
HOSTILE = (
    "<script>alert(1)</script>",
    "a|b\n| --- |",
    r"50% & $x_1^2$ #1 {~} \input{/etc/passwd}",
    "\x1b[31mred\x1b[0m\x07",
    '=HYPERLINK("http://evil.test")',
    "🦄 unicorn",
    "كلب",
    "abc\u202egnp.exe",
    "[click](javascript:alert(1)) ![x](http://evil.test/x.png) `code` **bold** _em_",
    "*starred",
)


@pytest.fixture
def papers(make_run: Make, trained: Any, tmp_path: Path) -> Tables:
    """Own runs by the paper's rules beside table 3, with gains, and a strict one that stands apart."""
    categories = ("bus", "train", "fire hydrant", "stop sign", "cat", "dog", "bed", "toilet")
    as_paper: dict[str, Any] = {"protocol": "paper", "ask": "file:", "samples": 1608}

    def figures(value: float) -> dict[str, Any]:
        rows = {name: {"ap": (value + place / 100, value - 0.1, None)} for place, name in enumerate(categories)}
        return {"figures": {"ap": (value, value - 0.05, value + 0.04)}, "by_category": rows}

    base = "hf/Qwen/Qwen2-VL-2B-Instruct"
    make_run("coco_fewshot", base, **figures(0.201), **as_paper)
    make_run("coco_fewshot", "hf/c/final", **figures(0.41234), **as_paper, trainings=[trained("grpo", shots=4)])
    make_run("coco_fewshot", base, **figures(0.31))
    torn = make_run("coco_fewshot", "hf/x/torn", **figures(0.1))
    (torn / "run.json").write_text("{")
    return build_tables(open_runs([tmp_path / "results"]), TableOptions(baseline="base"))


@pytest.fixture
def hostile(make_run: Make, tmp_path: Path) -> Tables:
    """A table whose models and categories are named to break out of it."""
    rows = {name: {"ap": 0.25} for name in HOSTILE}
    for name in HOSTILE:
        make_run("detection", f"hf/{name}", {"ap": 0.5}, rows, weights=name)
    return build_tables(open_runs([tmp_path / "results"]), TableOptions())


def hidden(text: str, tmp_path: Path) -> str:
    """``text`` without what differs from one call of the tests to the next."""
    return re.sub(r"(\d{6})Z-[0-9a-f]{8}", r"\1Z-FINGERPRINT", text.replace(str(tmp_path), "TMP"))


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("tables.md", lambda tables: to_markdown(tables, intervals=True)),
        ("tables.tex", lambda tables: to_latex(tables, intervals=True)),
        ("tables.html", lambda tables: to_html(tables, intervals=True)),
        ("tables.csv", to_csv),
        ("tables.json", to_json),
    ],
)
def test_each_format_is_as_its_golden_file(
    papers: Tables, name: str, write: Callable[[Tables], str], tmp_path: Path
) -> None:
    text = hidden(write(papers), tmp_path)
    if os.environ.get("UPDATE_GOLDEN"):
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8")


def test_no_format_lets_a_control_character_or_a_change_of_direction_through(hostile: Tables) -> None:
    for write in (to_markdown, to_latex, to_html, to_csv, to_json):
        text = write(hostile)
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", text), write.__name__


def test_markdown_keeps_its_columns_and_runs_no_markup(hostile: Tables) -> None:
    lines = [line for line in to_markdown(hostile).splitlines() if line.startswith("|")]
    bare = [re.sub(r"\\.", "", line) for line in lines]
    assert {line.count("|") for line in bare} == {len(HOSTILE) + 4}
    assert len(lines) == 2 + len(HOSTILE)
    text = "\n".join(bare)
    assert "<script" not in text
    assert "://" not in text
    assert not re.search(r"\]\(|`|(?<!\*)\*(?!\*)", text)
    assert "\u2068كلب\u2069" in text
    assert "🦄 unicorn" in text


def test_markdown_makes_no_links_and_mentions_nobody() -> None:
    assert markdown_text("@octocat https://evil.test www.evil.test") == (
        "@\u200boctocat https:\u200b//evil.test www\u200b.evil.test"
    )


def test_latex_escapes_every_special_character(hostile: Tables) -> None:
    text = to_latex(hostile)
    (body,) = re.findall(r"\\toprule\n(.*?)\\bottomrule", text, re.DOTALL)
    assert "\\input" not in body
    own = re.sub(
        r"\\(textbackslash|textasciicircum|textasciitilde|textless|textgreater|textbar|textasciigrave)\{\}", "", body
    )
    own = re.sub(r"\\(textbf|textsuperscript|midrule|\\|[{}$&#%_])", "", own)
    assert "\\" not in own
    assert not re.search(r"[$#%^~<>|]", own)
    assert {line.count("&") - line.count(r"\&") for line in body.splitlines() if "&" in line} == {len(HOSTILE) + 2}
    assert not [line for line in body.splitlines() if line.startswith(("*", "["))]


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="LaTeX is not installed (Debian: texlive-latex-base)")
def test_latex_compiles_and_its_labels_can_be_referred_to(papers: Tables, tmp_path: Path) -> None:
    text = to_latex(papers, intervals=True)
    labels = re.findall(r"\\label\{(.*)\}", text)
    assert len(labels) == len(set(labels)) == len(papers.tables)
    body = "\n".join([text, *(rf"\ref{{{name}}}" for name in labels)])
    document = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{body}\end{{document}}"
    (tmp_path / "paper.tex").write_text(document, encoding="utf-8")
    for _ in range(2):  # the second time, LaTeX knows the labels
        found = subprocess.run(
            ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            errors="replace",
        )
        assert found.returncode == 0, found.stdout[-2000:]
    assert "undefined" not in found.stdout
    assert "multiply defined" not in found.stdout


def test_tables_of_one_title_have_labels_of_their_own(make_run: Make, tmp_path: Path) -> None:
    make_run("coco_fewshot", "hf/a/b", {"ap": 0.5})
    make_run("coco_fewshot", "hf/a/b", {"ap": 0.5}, sampling={"n": 4})
    tables = build_tables(open_runs([tmp_path / "results"]), TableOptions(published=False))
    labels = re.findall(r"\\label\{(.*)\}", to_latex(tables))
    assert len({table.title for table in tables.tables}) == 1
    assert labels[1] == f"{labels[0]}-2"


def test_html_escapes_every_name(hostile: Tables) -> None:
    text = to_html(hostile)
    assert text.count("<script") == 0
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 2
    assert "default-src 'none'" in text
    assert "<bdi>كلب</bdi>" in text
    assert "<img" not in text


def test_csv_holds_no_formula_and_reads_back(hostile: Tables) -> None:
    rows = list(csv.DictReader(io.StringIO(to_csv(hostile))))
    assert len(rows) == len(HOSTILE) * (len(HOSTILE) + 1)
    for row in rows:
        assert not [value for value in row.values() if value.startswith(("=", "+", "-", "@"))]
    assert {float(row["value"]) for row in rows} == {25.0, 50.0}
    assert {row[name] for row in rows for name in ("low", "high", "gain")} == {""}


def test_json_is_ascii_with_the_names_as_they_are(hostile: Tables) -> None:
    text = to_json(hostile)
    assert text.isascii()
    (table,) = json.loads(text)["tables"]
    assert [column["heading"] for column in table["columns"]] == ["AP", *HOSTILE]
    assert table["unit"] == "percent"


def test_the_frame_has_a_line_per_figure(papers: Tables) -> None:
    frame = to_frame(papers)
    own = frame[(frame.origin == "own") & (frame.column == "mAP")]
    assert own.sort_values("value").value.round(3).tolist() == [20.1, 31.0, 41.234]
    published = frame[frame.origin == "published"]
    assert len(published) == 126
    assert published.low.isna().all()
    assert frame.shots.dtype == "Int64"


def test_nothing_at_all_is_an_empty_table_in_every_format() -> None:
    empty = Tables(())
    assert to_markdown(empty) == ""
    assert to_csv(empty).strip() == ""
    assert json.loads(to_json(empty)) == {"tables": [], "left_out": []}
