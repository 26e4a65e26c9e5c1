"""``vrft-bench new``: what is written works as it stands, and nothing is overwritten."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vrft_bench.errors import UserError
from vrft_bench.harness.scaffold import Kind, scaffold

KINDS = get_args(Kind)
TEMPLATES = Path(__file__).parents[2] / "vrft_bench" / "assets" / "templates"
CLI = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()"]


def test_every_test_that_is_written_passes_as_written(tmp_path: Path, sample_cache: Path) -> None:
    for kind in KINDS:
        scaffold(kind, f"own_{kind}", tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    assert "13 passed" in done.stdout


def test_the_written_tests_fail_where_the_plugin_is_wrong(tmp_path: Path, sample_cache: Path) -> None:
    breaks = {
        "model": ('"<think>I see nothing.</think>\\n<answer>No Objects</answer>"', '"Nothing."'),
        "profile": ('"norm_1000",', '"norm_1",'),
        "detection": ('("red circle", "blue square")', '("red circle", "bus")'),
    }
    for kind in KINDS:
        if kind in breaks:
            plugin = scaffold(kind, f"own_{kind}", tmp_path).plugin
            text = plugin.read_text()
            assert breaks[kind][0] in text
            plugin.write_text(text.replace(*breaks[kind]))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    failed = {line.split("::")[0].removeprefix("FAILED test_own_") for line in done.stdout.splitlines() if "::" in line}
    assert failed == {f"{kind}.py" for kind in breaks}, done.stdout


def test_a_new_plugin_differs_from_its_template_in_its_name_alone(tmp_path: Path) -> None:
    written = scaffold("model", "my_model", tmp_path)
    assert written.plugin.read_text() == (TEMPLATES / "my_model.py").read_text()
    assert written.test.read_text() == (TEMPLATES / "test_my_model.py").read_text()
    other = scaffold("model", "great_eyes", tmp_path).plugin.read_text()
    assert "class GreatEyesBackend:" in other
    assert 'MODELS.register("great_eyes", GreatEyesBackend' in other
    assert "my_model" not in other.lower()


@given(name=st.from_regex(r"[a-z][a-z0-9_]{0,15}", fullmatch=True), kind=st.sampled_from(KINDS))
def test_whatever_name_is_accepted_gives_python(name: str, kind: Kind) -> None:
    with TemporaryDirectory() as folder:
        try:
            written = scaffold(kind, name, Path(folder))
        except UserError:
            assume(False)
        ast.parse(written.plugin.read_text())
        ast.parse(written.test.read_text())


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("model", "My-Model", "cannot name a Python file"),
        ("model", "", "cannot name a Python file"),
        ("model", "../up", "cannot name a Python file"),
        ("model", "été", "cannot name a Python file"),
        ("detection", "class", "cannot name a Python file"),
        ("model", "x" * 41, "cannot name a Python file"),
        ("model", "hf", "there is a model 'hf' already (built in)"),
        ("model", "norm_1", "there is a profile 'norm_1' already (built in)"),
        ("profile", "abs_original", "there is a profile 'abs_original' already (built in)"),
        ("detection", "lvis_fewshot", "there is a task 'lvis_fewshot' already (built in)"),
        ("trainer", "grpo", "there is a trainer 'grpo' already (built in)"),
        ("grounding", "visual_rft", "there is a group of tasks 'visual_rft' already"),
        ("model", "test_mine", "pytest would take test_mine.py for tests of its own"),
        ("model", "random", "random.py would hide the Python module 'random'"),
        ("model", "numpy", "numpy.py would hide the Python module 'numpy'"),
        ("detection", "vrft_bench", "vrft_bench.py would hide the Python module 'vrft_bench'"),
    ],
)
def test_names_that_cannot_work_are_refused(kind: Kind, name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as refusal:
        scaffold(kind, name, tmp_path)
    assert said in refusal.value.message
    assert refusal.value.fix is not None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["mine.py", "test_mine.py"])
def test_nothing_is_overwritten_and_nothing_half_written(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("my work")
    with pytest.raises(UserError, match=f"{there} is there already"):
        scaffold("model", "mine", tmp_path)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {there: "my work"}


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be written: (Not a directory|File exists)"):
        scaffold("model", "mine", tmp_path / "file" / "folder")


def test_packaged_with_the_one_entry_point_it_needs_no_include(tmp_path: Path, sample_cache: Path) -> None:
    """The file is as it was written; the entry point is the one that is printed."""
    package = tmp_path / "site" / "my_package"
    points = [scaffold(kind, f"own_{kind}", package).entry_point for kind in ("model", "profile", "detection")]
    (package / "__init__.py").write_text("")
    info = tmp_path / "site" / "my_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-package\nVersion: 1.0\n")
    sections = [
        point.replace('[project.entry-points."', "[").replace('"]', "]").replace('"', "") + "\n" for point in points
    ]
    (info / "entry_points.txt").write_text("".join(sections))

    def call(*argv: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
        done = subprocess.run([*CLI, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=300, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    for what, name in (("models", "own_model"), ("profiles", "own_profile"), ("tasks", "own_detection")):
        rows = {row["name"]: row for row in json.loads(call("ls", what, "--json"))}
        assert rows[name]["from"] == "package my-package"
        assert "BROKEN" not in rows[name]["what"]
    ran = call("run", "-t", "own_detection", "-m", "own_model/x", "--profile", "own_profile", "-L", "10")
    assert "own_detection  |  own_model/x  |  profile own_profile" in ran
