"""Arrows point one way, and nothing in tasks or leaderboards needs a model library."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "vrft_bench"
ALLOWED = {
    "tasks": {"tasks", "registry", "errors"},
    "harness": {"harness", "tasks", "registry", "errors"},
    "trainers": {"trainers", "harness", "tasks", "registry", "errors"},
    "leaderboards": {"leaderboards", "harness", "tasks", "registry", "errors"},
}
HEAVY = {"torch", "transformers", "vllm", "trl", "accelerate", "peft", "torchvision", "ray"}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_imports_point_one_way(file: Path) -> None:
    house = file.relative_to(PACKAGE).parts[0]
    tree = ast.parse(file.read_text())
    for name in imports(tree):
        parts = name.split(".")
        if parts[0] == "vrft_bench" and len(parts) > 1 and house in ALLOWED:
            assert parts[1] in ALLOWED[house], f"{file.name} imports {name}"
        if house in ("tasks", "leaderboards"):
            assert parts[0] not in HEAVY, f"{file.name} imports {name}"


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(PACKAGE)))
def test_heavy_libraries_are_imported_only_where_they_are_used(file: Path) -> None:
    tree = ast.parse(file.read_text())
    at_top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in at_top:
        for name in imports(ast.Module(body=[node], type_ignores=[])):
            assert name.split(".")[0] not in HEAVY, f"{file.name} imports {name} at its top"


def test_no_file_is_two_ideas() -> None:
    assert {file.name: length for file in FILES if (length := len(file.read_text().splitlines())) > 400} == {}
