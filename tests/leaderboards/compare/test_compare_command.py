"""``vrft-bench compare`` as a user sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.app import app
from vrft_bench.tasks.data.sample import sample_folder

HOSTILE = "\x1b[31mred|\u202e<script>alert(1)</script> `x` [a](javascript:b)"


def compare(*arguments: str | Path, code: int = 0) -> Result:
    outcome = CliRunner().invoke(app, ["compare", "--replicates", "100", *map(str, arguments)])
    if code == 0:
        assert outcome.exit_code == 0, outcome.output
    return outcome


@pytest.fixture
def pair(ran: Any) -> list[Path]:
    answers = {"one": ran.sometimes(0.9, seed="a"), "two": ran.sometimes(0.4, seed="b", otherwise=ran.unreadable)}
    return [ran("classification", name, answer, limit=60) for name, answer in answers.items()]


def test_tables_come_before_what_can_be_concluded(pair: list[Path]) -> None:
    lines = compare(*pair).stdout.splitlines()
    assert lines[0] == "classification  |  data: sample  |  60 shared samples of 60 images"
    titles = [line for line in lines if line.startswith("B against A: ")]
    assert titles == [
        "B against A: figures",
        "B against A: answers that are right in whole",
        "B against A: by how answers were read",
        "B against A: answers to the same question, by how both were read",
        "B against A: accuracy by category",
        "B against A: mean reward per answer",
        "B against A: mean length of answers",
    ]
    place = lines.index("what can be concluded, and what cannot")
    assert place > lines.index(titles[-1])
    assert lines[place + 1].startswith("- B is worse than A in accuracy: -0.")
    assert any("seed 0" in line for line in lines[place:])


def test_differing_conditions_stand_above_everything(ran: Any) -> None:
    one = ran("classification", "one", ran.gold, limit=30)
    two = ran("classification", "two", ran.gold, limit=20, temperature=1.0)
    lines = compare(one, two).stdout.splitlines()
    assert lines[0] == "read this first"
    assert lines[1].startswith("- the runs differ in sampling: greedy")
    assert lines[3] == "- not compared: 10 samples of A are not in every run"


def test_json_says_what_the_tables_say(pair: list[Path]) -> None:
    found = json.loads(compare(*pair, "--json", "--seed", "7").stdout)
    assert found == json.loads(compare(*pair, "--format", "json", "--seed", "7").stdout)
    assert found["seed"] == 7
    assert [run["model"] for run in found["runs"]] == ["mock/one", "mock/two"]
    headline = found["pairs"][0]["headline"]
    assert headline["difference"] == pytest.approx(headline["run"] - headline["baseline"])
    assert headline["low"] < headline["difference"] < headline["high"] < 0
    flips = found["pairs"][0]["flips"]
    assert len(flips["samples"]) == flips["gained"] + flips["lost"]
    assert flips["lost"] - flips["gained"] == round(-60 * headline["difference"])
    assert found["conclusions"][0].startswith("B is worse than A in accuracy")


def test_flips_are_listed_on_demand(pair: list[Path]) -> None:
    flips = json.loads(compare(*pair, "--json").stdout)["pairs"][0]["flips"]["samples"]
    wanted = [f"{flip['id']}: {flip['baseline']:g} -> {flip['run']:g}" for flip in flips]
    assert set(wanted) <= set(compare(*pair, "--list-flips").stdout.splitlines())
    assert not set(wanted) & set(compare(*pair).stdout.splitlines())


def test_markdown_is_made_of_whole_tables(pair: list[Path]) -> None:
    text = compare(*pair, "--format", "md").stdout
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 8
    for table in tables:
        rows = table.splitlines()
        cells = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
        assert set(cells) == {cells[0]}
        assert set(rows[1]) <= set("|-: ")
    assert "\n### what can be concluded, and what cannot\n" in text


def test_names_from_the_data_reach_neither_terminal_nor_page_raw(ran: Any, tmp_path: Path) -> None:
    root = sample_folder("coco", "val")
    truth = json.loads((root / "annotations" / "instances_val2017.json").read_text())
    truth["categories"][0]["name"] = HOSTILE
    file = tmp_path / "truth.json"
    file.write_text(json.dumps(truth))
    data = {"annotations": file, "images": root / "images" / "val2017", "ask": "present", "limit": 120}
    runs = [ran("detection", str(miss), ran.noisy(miss=miss), **data) for miss in (0.1, 0.4)]
    text = compare(*runs, "--list-flips").stdout
    assert "red|<script>" in text
    assert not set(text) & {"\x1b", "\u202e"}
    page = compare(*runs, "--format", "md", "--list-flips").stdout
    assert r"red\|&lt;script&gt;alert" in page
    assert "<script" not in page
    assert not re.search(r"(?<!\\)\]\(", page)
    json.loads(compare(*runs, "--json").stdout)


def test_of_many_categories_those_that_changed_most_are_shown(ran: Any) -> None:
    runs = [ran("coco_ovd", str(miss), ran.noisy(miss=miss), limit=600) for miss in (0.1, 0.3)]
    found = json.loads(compare(*runs, "--json").stdout)["pairs"][0]["by_category"]
    assert len(found) > 12
    from vrft_bench.leaderboards import compare_show

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_show, "_MOST_CATEGORIES", 5)
        lines = compare(*runs).stdout.splitlines()
    assert f"{len(found) - 5} more categories changed less; --json has them all" in lines
    start = next(number for number, line in enumerate(lines) if line.endswith("AP by category"))
    shown = {re.split(r"  +", line)[0] for line in lines[start + 3 : start + 8]}
    changes = sorted(found, key=lambda item: -abs(item["difference"]))
    assert shown == {item["category"] for item in changes[:5]}


def test_a_mistake_is_one_message(pair: list[Path], tmp_path: Path) -> None:
    outcome = compare(pair[0], code=2)
    assert isinstance(outcome.exception, UserError)
    assert outcome.exception.exit_code == 2
    missing = compare(pair[0], tmp_path / "nothing", code=3).exception
    assert isinstance(missing, UserError)
    assert missing.exit_code == 3
    assert "nothing does not exist" in missing.message
