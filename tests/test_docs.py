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
            assert set(given.split(",")) <= names | own, f"{page.name}: {flag} {given}"
    for backend in re.findall(r"--model ([a-z]+)/", text):
        assert backend in MODELS, f"{page.name}: --model {backend}/"


def test_every_task_is_documented() -> None:
    text = "".join(page.read_text() for page in PAGES)
    for name in TASKS.names():
        assert f"`{name}`" in text, name


def test_the_plugin_of_the_plugins_page_works(tmp_path: Path, sample_cache: Path) -> None:
    page = (ROOT / "docs" / "plugins.md").read_text()
    (code,) = re.findall(r"^```python\n(# my_plugin\.py\n.*?)^```", page, re.MULTILINE | re.DOTALL)
    (command,) = re.findall(r"^```sh\nvrft-bench (.*?)\n```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "my_plugin.py").write_text(code)
    run = [sys.executable, "-c", "from vrft_bench.harness.cli.app import main; main()", *shlex.split(command)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("vehicles  |  mock/gold")
