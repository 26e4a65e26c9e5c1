"""Documentation that cannot drift: every ``console`` example runs, every name and link exists."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vrft_bench.harness.cli.app import app, arguments
from vrft_bench.registry import MODELS, PROFILES, TASK_GROUPS, TASKS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
IDS = [str(page.relative_to(ROOT)) for page in PAGES]
VERBS = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}


def examples(page: Path) -> list[str]:
    """The ``$ vrft-bench ...`` lines of the page's console blocks."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ vrft-bench")]


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_example_runs(page: Path, tmp_path: Path, sample_cache: Path) -> None:
    for example in examples(page):
        argv = shlex.split(example)[1:]
        command = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", *argv]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{example}\n{done.stderr}"
        assert done.stdout.strip(), example


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_command_that_a_page_mentions_exists(page: Path) -> None:
    for line in re.findall(r"vrft-bench ((?:[a-z]+|--?[a-z])[^\n`|]*)", page.read_text()):
        verb = arguments(line.split())[0]
        assert verb in VERBS, f"{page.name} mentions `vrft-bench {line}`"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=IDS)
def test_every_task_model_and_profile_in_an_example_is_registered(page: Path) -> None:
    text = page.read_text()
    for flag, names in (("--task", {*TASKS.names(), *TASK_GROUPS}), ("--profile", set(PROFILES.names()))):
        for given in re.findall(rf"{flag} ([a-z0-9_.,-]+[a-z0-9])", text):
            own = set(re.findall(r'register\("([^"]+)"', text))
            own |= set(re.findall(r"vrft-bench new (?:model|task) ([a-z0-9_]+)", text))
            assert {name.removeprefix("-") for name in given.split(",")} <= names | own, f"{page.name}: {flag} {given}"
    for backend in re.findall(r"--model ([a-z]+)/", text):
        assert backend in MODELS, f"{page.name}: --model {backend}/"


def test_every_task_is_documented() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for name in TASKS.names():
        assert f"`{name}`" in text, name


def test_the_model_of_the_models_page_works(tmp_path: Path, sample_cache: Path) -> None:
    """Begun as the page says, replaced by its code, tested, run and examined by its commands, with its verdict."""
    page = (ROOT / "docs" / "models.md").read_text()
    (code,) = re.findall(r"^```python\n(# my_model\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (promised,) = re.findall(r"^```text\n(verdict: .*?)\n```", page, re.MULTILINE | re.DOTALL)
    (entry_point,) = re.findall(r"^```toml\n(.*?)\n```", page, re.MULTILINE | re.DOTALL)
    shell = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    main = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()"]

    def call(line: str) -> str:
        program, *argv = shlex.split(line)
        start = main if program == "vrft-bench" else [sys.executable]
        done = subprocess.run([*start, *argv], cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    begun = call(next(line for line in examples(ROOT / "docs" / "models.md") if " new " in line))
    assert entry_point.splitlines() == [line.strip() for line in begun.splitlines()[-2:]]
    (tmp_path / "my_model.py").write_text(code)
    assert [line.split()[0] for line in shell] == ["python", "vrft-bench", "vrft-bench"]
    assert "3 passed" in call(shell[0])
    assert "answers: 100 (repaired 0.0%, unparsable 0.0%" in call(shell[1])
    assert call(shell[2]).splitlines()[-1] == promised


def test_the_plugin_of_the_plugins_page_works(tmp_path: Path, sample_cache: Path) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    (code,) = re.findall(r"^```python\n(# my_plugin\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^```sh\nvrft-bench (.*?)\n```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_plugin.py").write_text(code)
    run = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", *shlex.split(command)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vehicles  |  mock/gold")


def test_the_trainer_of_the_trainers_page_works(tmp_path: Path, sample_cache: Path) -> None:
    """The page's code trains by the page's command, and what it leaves evaluates by the next one."""
    page = (ROOT / "docs" / "trainers" / "plugins.md").read_text()
    (code,) = re.findall(r"^```python\n(# best_of_n\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    lines = [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
        if line.startswith("vrft-bench")
    ]
    (tmp_path / "best_of_n.py").write_text(code)
    for line in lines:
        argv = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", *shlex.split(line)[1:]]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    assert len(lines) == 2
    assert "answers: 4 (repaired 0.0%, unparsable 0.0%" in done.stdout
