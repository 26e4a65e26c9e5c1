"""``vrft-bench new``: a plugin that works as written, in one file, with a test that passes as written.

The templates under ``assets/templates`` are real plugins: they are linted, type-checked and run by the tests, and a new
one differs from its template in its name alone.
"""

from __future__ import annotations

import contextlib
import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from vrft_bench.errors import UserError
from vrft_bench.registry import MODELS, PROFILES, TASK_GROUPS, TASKS, TRAINERS, Registry

Kind = Literal["model", "profile", "detection", "classification", "grounding", "trainer"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


@dataclass(frozen=True, slots=True)
class _Template:
    """``file`` and ``test`` under the templates; ``placeholder`` is the name in them; ``target`` what is registered."""

    file: str
    test: str
    placeholder: str
    target: str
    registries: tuple[Registry[Any], ...]


def _task(family: str) -> _Template:
    return _Template(f"my_task_{family}.py", "test_my_task.py", "my_task", "my_task", (TASKS,))


_TEMPLATES: Mapping[Kind, _Template] = {
    "model": _Template("my_model.py", "test_my_model.py", "my_model", "MyModelBackend", (MODELS, PROFILES)),
    "profile": _Template("my_profile.py", "test_my_profile.py", "my_profile", "PROFILE", (PROFILES,)),
    "detection": _task("detection"),
    "classification": _task("classification"),
    "grounding": _task("grounding"),
    "trainer": _Template("my_trainer.py", "test_my_trainer.py", "my_trainer", "MyTrainer", (TRAINERS,)),
}


@dataclass(frozen=True, slots=True)
class Scaffold:
    """What was written, and the entry point that a package needs so that no ``--include`` does."""

    plugin: Path
    test: Path
    entry_point: str


def scaffold(kind: Kind, name: str, folder: Path) -> Scaffold:
    """Write the plugin ``name.py`` and ``test_name.py`` into ``folder``.

    Raises :class:`UserError` for a name that cannot be one, that is taken, or whose files are there: nothing is ever
    overwritten.
    """
    template = _TEMPLATES[kind]
    plugin, test = folder / f"{name}.py", folder / f"test_{name}.py"
    for file in (plugin, test):
        if file.exists():
            raise UserError(f"{file} is there already, and nothing is overwritten", fix="choose another name or place")
    _check_name(name, template.registries)
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, source in ((plugin, template.file), (test, template.test)):
            with file.open("x", encoding="utf-8") as stream:
                written.append(file)
                stream.write(_named(_read(source), template, name))
    except OSError as error:
        for file in written:
            with contextlib.suppress(OSError):
                file.unlink()
        raise UserError(
            f"{folder} cannot be written: {error.strerror or error}", fix="choose another place with --output-dir"
        ) from error
    group = template.registries[0].group
    target = _named(template.target, template, name)
    return Scaffold(plugin, test, f'[project.entry-points."{group}"]\n{name} = "my_package.{name}:{target}"')


def _check_name(name: str, registries: tuple[Registry[Any], ...]) -> None:
    if _NAME.fullmatch(name) is None or keyword.iskeyword(name):
        raise UserError(
            f"{name!r} cannot name a Python file and a plugin",
            fix="use lower-case letters, digits and underscores, 40 at most, a letter first, no keyword: my_model",
        )
    for registry in registries:
        if name in registry:
            raise UserError(
                f"there is a {registry.kind} {name!r} already ({registry.source(name)})", fix="choose another name"
            )
    if TASKS in registries and name in TASK_GROUPS:
        raise UserError(f"there is a group of tasks {name!r} already", fix="choose another name")
    if name.startswith("test_") or name == "conftest":
        raise UserError(f"pytest would take {name}.py for tests of its own", fix="choose another name")
    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise UserError(f"{name}.py would hide the Python module {name!r}", fix="choose another name")


def _read(template: str) -> str:
    return (files("vrft_bench") / "assets" / "templates" / template).read_text(encoding="utf-8")


def _named(text: str, template: _Template, name: str) -> str:
    return text.replace(template.placeholder, name).replace(_camel(template.placeholder), _camel(name))


def _camel(name: str) -> str:
    return "".join(part.capitalize() for part in name.split("_"))
