"""The registry: lazy, extensible by entry points and files, and unhurt by broken plugins."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from vrft_bench.errors import UserError
from vrft_bench.registry import TASKS, BuiltIn, Registry, include
from vrft_bench.tasks import get_task, select_tasks
from vrft_bench.tasks.catalog.coco_fewshot import coco_fewshot


def install(folder: Path, package: str, points: dict[str, str], code: str = "") -> None:
    """A distribution with entry points, as pip would leave it in site-packages."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (info / "entry_points.txt").write_text(f"[vrft_bench.tests]\n{lines}")
    (folder / f"{package}_code.py").write_text(code)


@pytest.fixture
def registry() -> Registry[object]:
    return Registry(
        "thing", "vrft_bench.tests", {"one": BuiltIn("json:dumps", "the first"), "lvis_fewshot": BuiltIn("x:y", "")}
    )


@pytest.fixture
def own_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    TASKS.names()
    monkeypatch.setattr(TASKS, "_entries", dict(TASKS._entries))


def test_a_built_in_is_imported_only_when_it_is_asked_for() -> None:
    lazy: Registry[object] = Registry("thing", "vrft_bench.tests", {"far": BuiltIn("no_such_module:thing", "")})
    assert lazy.names() == ["far"]
    with pytest.raises(UserError, match="no_such_module"):
        lazy.get("far")


def test_an_unknown_name_is_told_with_the_nearest(registry: Registry[object]) -> None:
    with pytest.raises(UserError, match="did you mean 'lvis_fewshot'") as error:
        registry.get("lvis_fewshots")
    assert "choose one of: one, lvis_fewshot" in str(error.value)


def test_a_file_that_registers_itself_may_be_packaged_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry point imports it, and importing it registers the name once more."""
    registry: Registry[object] = Registry("thing", "vrft_bench.tests", {})
    code = "import builtins\nclass Two: pass\nbuiltins.own_registry.register('two', Two)\nclass Other: pass\n"
    install(tmp_path, "both", {"two": "both_code:Two"}, code)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("builtins.own_registry", registry, raising=False)
    two = registry.get("two")
    assert two is sys.modules["both_code"].Two
    assert [(entry.name, entry.source) for entry in registry] == [("two", "package both")]
    with pytest.raises(UserError, match="'two' is claimed twice"):
        registry.register("two", sys.modules["both_code"].Other)


def test_entry_points_add_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[object]) -> None:
    install(tmp_path, "plugged", {"two": "plugged_code:value"}, "value = 22")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.names() == ["one", "lvis_fewshot", "two"]
    assert registry.get("two") == 22
    assert [entry.source for entry in registry if entry.name == "two"] == ["package plugged"]


def test_two_packages_with_one_name_are_an_error_that_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[object]
) -> None:
    install(tmp_path, "first", {"two": "first_code:value"}, "value = 1")
    install(tmp_path, "second", {"two": "second_code:value"}, "value = 2")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match="claimed twice") as error:
        registry.get("two")
    assert "package first" in str(error.value)
    assert "package second" in str(error.value)
    assert registry.get("one") is not None


def test_a_package_that_claims_a_built_in_name_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[object]
) -> None:
    install(tmp_path, "greedy", {"one": "greedy_code:value"}, "value = 1")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(UserError, match=r"built in .* and package greedy"):
        registry.get("one")


def test_a_broken_plugin_is_listed_with_its_reason_and_hurts_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[object]
) -> None:
    install(tmp_path, "broken", {"bad": "broken_code:value"}, "raise RuntimeError('half installed')")
    monkeypatch.syspath_prepend(str(tmp_path))
    reasons = {entry.name: registry.broken(entry) for entry in registry}
    assert reasons == {"one": None, "lvis_fewshot": None, "bad": "RuntimeError: half installed"}
    with pytest.raises(UserError, match="package broken does not import: RuntimeError: half installed"):
        registry.get("bad")


def test_a_plugin_that_exits_at_import_is_listed_as_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, registry: Registry[object]
) -> None:
    install(tmp_path, "quitter", {"quits": "quitter_code:value"}, "import sys\nsys.exit(7)")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert [registry.broken(entry) for entry in registry if entry.name == "quits"] == ["it calls sys.exit(7)"]
    with pytest.raises(UserError, match=r"package quitter does not import: it calls sys\.exit\(7\)"):
        registry.get("quits")


def fails() -> None:
    raise LookupError("no such\nbenchmark")


def exits() -> None:
    sys.exit("no licence")


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (fails, "task 'theirs' from package theirs cannot be made: LookupError: no such benchmark"),
        (exits, r"cannot be made: it calls sys\.exit\('no licence'\)"),
        (dict, "task 'theirs' from package theirs returns an object of type dict, and no Task"),
        (3, "task 'theirs' from package theirs is an object of type int, and no function"),
        (coco_fewshot(), "is an object of type DetectionTask, and no function"),
    ],
)
def test_a_plugin_that_gives_no_task_is_named(own_tasks: None, target: object, said: str) -> None:
    TASKS.register("theirs", target, source="package theirs")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=said) as caught:
        get_task("theirs")
    assert "returns a Task" in (caught.value.fix or "")


def test_registering_a_taken_name_is_an_error(registry: Registry[object]) -> None:
    registry.register("mine", 1, source="here")
    registry.register("mine", 1, source="here")
    with pytest.raises(UserError, match=r"claimed twice: by here .* and there"):
        registry.register("mine", 2, source="there")


def test_a_file_can_be_included(tmp_path: Path, own_tasks: None) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from vrft_bench.registry import TASKS\n"
        "from vrft_bench.tasks.catalog.coco_fewshot import coco_fewshot\n"
        "TASKS.register('my_included_task', lambda: replace(coco_fewshot(), name='my_included_task'))\n"
    )
    include(file)
    include(file)
    assert get_task("my_included_task").name == "my_included_task"


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("import sys\nsys.exit()", r"it calls sys\.exit\(None\)"),
    ],
)
def test_a_file_that_fails_says_why(tmp_path: Path, code: str, reason: str) -> None:
    file = tmp_path / "bad.py"
    file.write_text(code)
    with pytest.raises(UserError, match=reason):
        include(file)
    with pytest.raises(UserError, match="no such file"):
        include(tmp_path / "absent.py")


def test_tasks_are_selected_by_name_group_and_glob_each_once() -> None:
    assert select_tasks(["coco_fewshot", "fewshot_detection"]) == ["coco_fewshot", "lvis_fewshot"]
    assert select_tasks(["*_ovd"]) == ["coco_ovd", "lvis_ovd"]
    assert len(select_tasks(["visual_rft"])) == 9
    assert select_tasks(["*_ovd", "-lvis_ovd", "lisa_grounding"]) == ["coco_ovd", "lisa_grounding"]
    assert select_tasks(["visual_rft", "-*_fewshot", "-ovd"]) == ["lisa_grounding"]
    with pytest.raises(UserError, match="no task is left"):
        select_tasks(["coco_ovd", "-*_ovd"])
    with pytest.raises(UserError, match="unknown task 'coco_few'"):
        select_tasks(["visual_rft", "-coco_few"])
    with pytest.raises(UserError, match="did you mean 'coco_fewshot'"):
        select_tasks(["coco_few"])


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys\nsys.argv = ['vrft-bench', 'ls', '{what}']\n"
        "from vrft_bench.harness.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        "heavy = {{'torch', 'transformers', 'pandas', 'numpy', 'PIL', 'pycocotools', 'vllm', 'trl'}}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    for what in ("tasks", "models", "profiles", "trainers", "runs"):
        subprocess.run([sys.executable, "-c", code.format(what=what)], check=True, capture_output=True)
    subprocess.run([sys.executable, "-c", code.format(what="x").replace("'ls', 'x'", "'--help'")], check=True)
