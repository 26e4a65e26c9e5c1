from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vrft_bench.errors import UserError
from vrft_bench.leaderboards import site as module
from vrft_bench.leaderboards.runs import open_runs
from vrft_bench.leaderboards.site import build_site, read_index

Make = Callable[..., Path]


@pytest.fixture(scope="session")
def real_runs(tmp_path_factory: pytest.TempPathFactory, sample_cache: Path) -> Path:
    """Finished runs of three mocks, two of which answer alike but for a few samples, and a partial one."""
    from vrft_bench.harness.config import RunConfig
    from vrft_bench.harness.models import load_backend
    from vrft_bench.harness.run import evaluate
    from vrft_bench.tasks import get_task

    root = tmp_path_factory.mktemp("site") / "results"
    for model, args, limit in (
        ("mock/gold", {}, None),
        ("mock/noisy", {}, None),
        ("mock/noisy", {"miss": 0.13}, None),
        ("mock/constant:x", {}, None),
        ("mock/gold", {}, 9),
    ):
        config = RunConfig(task=["pets37_fewshot"], model=model, model_args=args, limit=limit, output_dir=root)
        evaluate(get_task("pets37_fewshot"), load_backend(model, args), config)
    return root


@pytest.fixture
def results(real_runs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(real_runs, tmp_path / "results"))


def ranks_of(site: Path, table: int = 0) -> dict[str, str | None]:
    """The ranks in the column of Pets37, by model and by what sets the row apart."""
    view = read_index(site)["tables"][table]
    place = [column["task"] for column in view["columns"]].index("pets37_fewshot")
    return {" ".join((row["model"], *row["marks"])): row["cells"][place]["rank"] for row in view["rows"]}


def test_models_that_a_paired_test_cannot_tell_apart_share_a_rank(results: Path, tmp_path: Path) -> None:
    build_site(open_runs([results]), tmp_path / "site")
    found = ranks_of(tmp_path / "site")
    assert found["mock/gold"] == "1"
    assert found["mock/constant:x"] == "3"
    noisy = [rank for name, rank in found.items() if name.startswith("mock/noisy")]
    assert noisy == ["2", "2"]


def test_sample_data_and_partial_runs_are_fenced_off_with_the_reason(results: Path, tmp_path: Path) -> None:
    built = build_site(open_runs([results]), tmp_path / "site")
    assert [board.fences for board in built.boards] == [("SAMPLE DATA",), ("SAMPLE DATA", "PARTIAL")]
    page = (tmp_path / "site" / "fewshot_classification.html").read_text()
    assert page.count('class="fenced"') == 2
    assert "Fenced off: SAMPLE DATA, PARTIAL. These figures may not be read beside any other table." in page


def test_protocols_are_in_tables_of_their_own_and_real_runs_come_first(make_run: Make, tmp_path: Path) -> None:
    for protocol in ("strict", "paper"):
        make_run("coco_ovd", f"hf/x/{protocol}", {"ap": 0.5}, protocol=protocol)
    make_run("coco_ovd", "hf/x/cut", {"ap": 0.5}, limit=3)
    built = build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    assert [board.table.flags for board in built.boards] == [
        ("protocol paper",),
        ("protocol strict",),
        ("protocol strict", "PARTIAL"),
    ]


def test_runs_that_cannot_be_shown_are_refused_on_the_front_page_without_their_place(
    make_run: Make, tmp_path: Path
) -> None:
    make_run("coco_ovd", "hf/x/a", {"ap": 0.5})
    make_run("coco_ovd", "hf/x/b", {"ap": 0.5}, status="interrupted")
    torn = make_run("coco_ovd", "hf/x/c", {"ap": 0.5})
    (torn / "run.json").write_text("{")
    built = build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    assert len(built.refused) == 2
    page = (tmp_path / "site" / "index.html").read_text()
    assert "unfinished: its status is &#39;interrupted&#39;" in page
    assert "is damaged" in page
    assert str(tmp_path) not in page


def test_every_row_links_to_its_report_and_its_run_json(results: Path, tmp_path: Path) -> None:
    def report(run: Any, path: Path) -> None:
        path.write_text(f"report of {run.manifest.model}")

    site = tmp_path / "site"
    build_site(open_runs([results]), site, report=report)
    page = (site / "fewshot_classification.html").read_text()
    links = re.findall(r'href="(runs/[^"]+)"', page)
    assert len(links) == 10
    assert all((site / link).is_file() for link in links)
    run = json.loads((site / links[1]).read_text())
    assert (site / links[0]).read_text() == f"report of {run['model']}"
    build_site(open_runs([results]), site)
    assert "report.html" not in (site / "fewshot_classification.html").read_text()


def test_the_pages_load_nothing_and_run_only_their_own_script(results: Path, tmp_path: Path) -> None:
    build_site(open_runs([results]), tmp_path / "site")
    text = (tmp_path / "site" / "fewshot_classification.html").read_text()
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', text)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
    assert "http" not in re.sub(r"http-equiv", "", text)


def test_hostile_names_neither_run_nor_leave_the_site(make_run: Make, tmp_path: Path) -> None:
    make_run("detection", "hf/<img src=x onerror=alert(1)>", {"ap": 0.5}, {"</script><b>": {"ap": 0.5}})
    rename(make_run("evil", "hf/x/a", {"ap": 0.5}), "../../evil")
    site = tmp_path / "deep" / "site"
    build_site(open_runs([tmp_path / "results"]), site)
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["site"]
    assert "../../evil" in (site / "index.html").read_text()
    pages = sorted(path.name for path in site.glob("*.html"))
    assert [page.partition("-")[0] for page in pages] == ["index.html", "task", "task"]
    body = (site / "task-detection.html").read_text()
    assert (body.count("<script"), body.count("</script"), body.count("<img")) == (1, 1, 0)
    assert "&lt;img src=x onerror=alert(1)&gt;" in body


def rename(run: Path, task: str) -> None:
    """Give a run's task a name that is a path, and keep the manifest consistent."""
    from vrft_bench.harness.identity import fingerprint

    manifest = json.loads((run / "run.json").read_text())
    manifest["identity"]["task"]["name"] = manifest["task"] = task
    manifest["config"]["task"] = [task]
    manifest["fingerprint"] = fingerprint(manifest["identity"])
    (run / "run.json").write_text(json.dumps(manifest))


def test_a_site_takes_the_place_of_an_older_one_and_of_nothing_else(make_run: Make, tmp_path: Path) -> None:
    make_run("coco_ovd", "hf/x/a", {"ap": 0.5})
    site = tmp_path / "site"
    build_site(open_runs([tmp_path / "results"]), site)
    (site / "runs" / "stray.html").write_text("left by an edited build")
    (site / ".git").mkdir()
    (site / ".git" / "HEAD").write_text("years of work")
    for other in (".git/HEAD", "runs/stray.html"):
        with pytest.raises(UserError, match=f"also holds {other}, which would be lost"):
            build_site(open_runs([tmp_path / "results"]), site)
        (site / other).unlink()
    build_site(open_runs([tmp_path / "results"]), site)
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("years of work")
    for place in (other, other / "chapter.tex"):
        with pytest.raises(UserError, match="exists and is no leaderboard"):
            build_site(open_runs([tmp_path / "results"]), place)
    assert (other / "chapter.tex").read_text() == "years of work"


def test_a_link_in_a_run_publishes_nothing(make_run: Make, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("a token")
    good, linked = make_run("coco_ovd", "hf/x/a", {"ap": 0.5}), make_run("coco_ovd", "hf/x/b", {"ap": 0.6})
    (linked / "samples.jsonl").unlink()
    (linked / "samples.jsonl").symlink_to(tmp_path / "secret")
    built = build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    assert [row.folder for row in built.runs.values()] == [good]
    assert built.refused == ("/".join(linked.parts[-3:]) + ": its samples.jsonl is a link",)


def test_a_build_that_fails_leaves_the_old_site_and_nothing_half_written(make_run: Make, tmp_path: Path) -> None:
    make_run("coco_ovd", "hf/x/a", {"ap": 0.5})
    site = tmp_path / "site"
    build_site(open_runs([tmp_path / "results"]), site)
    before = (site / "index.html").read_bytes()

    def broken(run: Any, path: Path) -> None:
        raise UserError("the disk is full")

    with pytest.raises(UserError, match="the disk is full"):
        build_site(open_runs([tmp_path / "results"]), site, report=broken)
    assert (site / "index.html").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["results", "site"]


def test_without_data_the_rows_stand_unranked_and_say_why(make_run: Make, tmp_path: Path) -> None:
    for name in "ab":
        make_run("coco_ovd", f"hf/x/{name}", {"ap": 0.5}, weights=name)
    built = build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    (board,) = built.boards
    assert board.ranks == {}
    assert board.unranked[0].startswith("mAP all: not ranked, for the runs cannot be tested here: ")


def test_two_runs_of_one_experiment_have_two_names(make_run: Make, tmp_path: Path) -> None:
    for created in ("2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"):
        make_run("coco_ovd", "hf/x/a", {"ap": 0.5}, created=created)
    rows = open_runs([tmp_path / "results"]).rows
    names = list(module._names(rows).values())
    assert names[1] == f"{names[0]}-2"


def test_nothing_that_can_be_shown_is_an_error_with_the_reasons(make_run: Make, tmp_path: Path) -> None:
    make_run("coco_ovd", "hf/x/a", {"ap": 0.5}, status="failed")
    with pytest.raises(UserError, match=r"no run can stand on a leaderboard; .*its status is 'failed'"):
        build_site(open_runs([tmp_path / "results"]), tmp_path / "site")
    assert not (tmp_path / "site").exists()
