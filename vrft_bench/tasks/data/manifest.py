"""What a task's data should hold, and whether they do: published counts, the sample data's manifest, and pins.

Nobody publishes a checksum of what a reader makes of a data set, but its owners say how many images and annotations it
has. What they do not say a user can *pin*: the numbers and the hash of what is there (see
:mod:`~vrft_bench.tasks.data.survey`) go to a file in the data root, or beside the user's own data, and later checks
hold the data to it. A pin comes before what is published, so that a subset can be deliberate.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vrft_bench.errors import DataError, UserError
from vrft_bench.tasks.base import Dataset, DataSpec, Task
from vrft_bench.tasks.data.annotations import read_json
from vrft_bench.tasks.data.new_file import write_new
from vrft_bench.tasks.data.published_counts import published_counts
from vrft_bench.tasks.data.survey import IMAGE_BYTES, MISSING, DataFacts

SAMPLE_MANIFEST = Path(__file__).with_name("sample_manifest.json")
"""What the embedded sample data hold, by task and split. ``scripts/write_sample_manifest.py`` writes it."""

_FORMAT = 1


@dataclass(frozen=True)
class Manifest:
    """What a split should hold. ``source`` says who says so, ``fix`` what to do where the data differ.

    Numbers that ``counts`` does not name may be any.
    """

    source: str
    fix: str
    counts: Mapping[str, int]
    sha256: str | None = None

    def differences(self, facts: DataFacts) -> list[str]:
        """How ``facts`` differ, as lines like ``images: 5,000 expected, 4,999 here``; none where they agree."""
        lines = []
        for name, expected in self.counts.items():
            if (here := facts.counts.get(name, 0)) != expected:
                first = f" (first: {facts.first_missing})" if name == MISSING and facts.first_missing else ""
                lines.append(f"{name}: {expected:,} expected, {here:,} here{first}")
        if self.sha256 is not None and self.sha256 != facts.sha256:
            lines.append(f"sha256 of ids, truth and image names: {self.sha256[:12]} expected, {facts.sha256[:12]} here")
        return lines


def expected(task: Task, spec: DataSpec, dataset: Dataset) -> tuple[Manifest, ...]:
    """What the data of ``spec`` are held to: any one of these, of which there is always one.

    Where nobody says what they hold, they are held to being complete: no image file is missing. Raises
    :class:`DataError` for a pin that cannot be read.
    """
    if dataset.is_sample and (found := _sample_manifests().get(task.name, {}).get(dataset.split)):
        return (found,)
    path = pin_path(task, spec, dataset.split)
    if path is not None and path.exists():
        return (read_pin(path),)
    to_pin = f"; if the subset is meant, pin it: {_pin_command(task, spec)}" if path is not None else ""
    fix = f"complete the data{to_pin}"
    published = published_counts(task, dataset.split, len(dataset.categories)) if spec.root is not None else {}
    if not published:
        return (Manifest("no published counts and no pin", fix, {MISSING: 0}),)
    return tuple(
        Manifest(f"published counts ({source})", fix, {**counts, MISSING: 0}) for source, counts in published.items()
    )


def sample_facts_to_json(facts: DataFacts) -> dict[str, object]:
    """What the shipped manifest keeps of a split of the sample data.

    The size of its image files is left out: it depends on the library that compresses them.
    """
    counts = {name: number for name, number in facts.counts.items() if name != IMAGE_BYTES}
    return {"counts": dict(sorted(counts.items())), "sha256": facts.sha256}


def pin_path(task: Task, spec: DataSpec, split: str) -> Path | None:
    """Where the pin of a task's split lies; ``None`` where the data are neither in a root nor in files of the user's.

    ``DIR/coco_fewshot-val.pin.json`` for ``--data DIR``; for ``--annotations my.json``, beside that file,
    ``my-detection-val.pin.json``.
    """
    name = re.sub(r"[^\w.-]", "_", f"{task.name}-{split}.pin.json")
    if spec.root is not None:
        return spec.root / name
    own = spec.annotations or spec.images
    if own is None:
        return None
    own = own.resolve()
    return own.parent / f"{own.stem if own.is_file() else own.name}-{name}"


def write_pin(task: Task, spec: DataSpec, dataset: Dataset, facts: DataFacts) -> Path:
    """Pin what ``facts`` say to the file of :func:`pin_path`, which is left alone where it says the same.

    Raises :class:`UserError` where a different pin is there, for the sample data, and where it cannot be written.
    """
    path = None if dataset.is_sample else pin_path(task, spec, dataset.split)
    if path is None:
        whose = "the sample data, which have a manifest of their own" if dataset.is_sample else "data of its own"
        raise UserError(
            f"there is no place for a pin: task {task.name!r} reads {whose}",
            fix="name real data: --data DIR, or your own files",
        )
    value = {
        "format": _FORMAT,
        "task": task.name,
        "split": dataset.split,
        "counts": dict(facts.counts),
        "sha256": facts.sha256,
    }
    try:
        write_new(path, json.dumps(value, indent=1) + "\n")
    except FileExistsError:
        there = read_pin(path)
        if lines := there.differences(facts):
            raise UserError(f"{path} pins other data: {'; '.join(lines)}", fix=there.fix) from None
    except OSError as error:
        raise UserError(
            f"the pin cannot be written to {path}: {error.strerror or error}", fix="make its folder writable"
        ) from error
    return path


def read_pin(path: Path) -> Manifest:
    """The pin in ``path``. Raises :class:`DataError` where it is none."""
    value = read_json(path)
    fix = "delete it, and pin the data again with `vrft-bench validate TASK --pin`"
    if not isinstance(value, dict) or value.get("format") != _FORMAT:
        raise DataError(f"{path} is no pin of format {_FORMAT}", fix=fix)
    counts, sha256 = value.get("counts"), value.get("sha256")
    if not isinstance(counts, dict) or not all(type(number) is int for number in counts.values()):
        raise DataError(f"{path} is no pin: its 'counts' are no numbers", fix=fix)
    if not isinstance(sha256, str):
        raise DataError(f"{path} is no pin: it lacks 'sha256'", fix=fix)
    fix = "if the data have changed on purpose, delete that file and pin them again"
    return Manifest(f"pinned in {path}", fix, counts, sha256)


def _pin_command(task: Task, spec: DataSpec) -> str:
    words = ["vrft-bench", "validate", task.name]
    given = {"--split": spec.split, "--data": spec.root, "--annotations": spec.annotations, "--images": spec.images}
    for flag, value in given.items():
        if value is not None:
            words += [flag, str(value)]
    return f"{shlex.join(words)} --pin"


@cache
def _sample_manifests() -> dict[str, dict[str, Manifest]]:
    value = json.loads(SAMPLE_MANIFEST.read_text(encoding="utf-8"))
    fix = "delete the cache folder of vrft-bench: the sample data are then drawn anew"
    return {
        task: {
            split: Manifest("manifest of the sample data", fix, entry["counts"], entry["sha256"])
            for split, entry in splits.items()
        }
        for task, splits in value.items()
    }
