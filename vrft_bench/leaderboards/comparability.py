"""What two runs must share for their figures to stand in one column, and what is said where they do not.

Every condition has a name, by which ``--allow`` overrides it, but for the first:

* ``protocol``: the two measure different things, and never share a column;
* ``version`` of the task; ``split``; the rule by which categories are asked (``ask``);
* ``data``: which samples, with which images and truth. A run that ``--limit`` cut down has other data;
* ``prompt``: the questions, apart from the coordinates that a model speaks;
* ``sampling``: temperature, top-p, longest answer, completions per sample. A seed is no difference;
* ``plugins``: the content of included files, where one of them defines the task.

Sample data stand beside nothing else, whatever is allowed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vrft_bench.errors import UserError, did_you_mean
from vrft_bench.harness.store import Manifest
from vrft_bench.registry import TASKS

ALLOWABLE = ("version", "data", "split", "ask", "prompt", "sampling", "plugins")
NAMES = ("protocol", *ALLOWABLE)
_HASH = re.compile(r"\b([0-9a-f]{12})[0-9a-f]{52}\b")


@dataclass(frozen=True, slots=True)
class Conditions:
    """How a figure came about: ``parts`` by name. Of a published row only some are known, and only those count.

    ``samples`` is how many questions there were; of a published row how many there may have been, if that is known.
    """

    task: str
    kind: Literal["sample", "real"]
    parts: Mapping[str, str] = field(hash=False)
    samples: tuple[int, ...] = ()

    def key(self, allowed: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Equal for runs that agree in all but what is allowed to differ."""
        return (self.task, self.kind, *(self.parts[name] for name in NAMES if name not in allowed))


def conditions_of(manifests: Sequence[Manifest]) -> list[Conditions]:
    """The conditions of each run. Data and prompts are told apart by hashes that do not depend on a model's profile.

    Runs of earlier versions have only one hash, over both and with the profile. Such a run takes the hashes of another
    that has the same one; where there is none, it agrees with runs of the same hash alone.
    """
    known = {item.identity["data"]["sha256"]: item.content for item in manifests if item.content}
    return [_conditions(item, known.get(item.identity["data"]["sha256"], {})) for item in manifests]


def differing(one: Conditions, other: Conditions) -> list[str]:
    """The names of the conditions in which two runs differ, ``task`` and ``sample data`` before all others."""
    names = []
    if one.task != other.task:
        names.append("task")
    if one.kind != other.kind:
        names.append("sample data")
    for name in NAMES:
        if name in one.parts and name in other.parts and one.parts[name] != other.parts[name]:
            names.append(name)
    if "data" not in names and one.samples and other.samples and not {*one.samples} & {*other.samples}:
        names.append("data")
    return names


def difference_lines(one: Conditions, other: Conditions) -> list[str]:
    """:func:`differing` in words: ``protocol: strict here, paper there``, where ``one`` is here."""
    return [f"{name}: {said(one, name)} here, {said(other, name)} there" for name in differing(one, other)]


def said(conditions: Conditions, name: str) -> str:
    """One condition in words, hashes cut short."""
    if name == "task":
        return conditions.task
    if name == "sample data":
        return "sample data" if conditions.kind == "sample" else "real data"
    if name == "data" and name not in conditions.parts:
        return f"{' or '.join(str(count) for count in conditions.samples)} samples"
    return _HASH.sub(r"\1", conditions.parts[name])


def may_stand_together(one: Conditions, other: Conditions, allowed: frozenset[str]) -> bool:
    """Whether two runs agree in all but what is allowed to differ."""
    return allowed.issuperset(differing(one, other))


def offer(names: Iterable[str], effect: str) -> str:
    """`` (--allow ask,data EFFECT)`` for differences that may be allowed; nothing where one of ``names`` may not."""
    wanted = list(dict.fromkeys(names))
    return f" (--allow {','.join(wanted)} {effect})" if wanted and {*wanted} <= {*ALLOWABLE} else ""


def parse_allow(given: Iterable[str]) -> frozenset[str]:
    """The names in ``--allow``, which takes commas and repeats.

    Raises :class:`UserError` for one that is none, and for ``protocol``.
    """
    names = [name.strip() for text in given for name in text.split(",") if name.strip()]
    for name in names:
        if name == "protocol":
            raise UserError(
                "--allow protocol: strict and paper measure different things, and never share a column",
                fix="leave it out: each protocol has a table of its own",
            )
        if name not in ALLOWABLE:
            why = "; sample data never stand beside real data" if "sample" in name and name != "sampling" else ""
            raise UserError(
                f"--allow {name}: there is no such condition{did_you_mean(name, ALLOWABLE)}{why}",
                fix=f"choose from: {', '.join(ALLOWABLE)}",
            )
    return frozenset(names)


def _conditions(manifest: Manifest, content: Mapping[str, str]) -> Conditions:
    task, data = manifest.identity["task"], manifest.identity["data"]
    alone = f"hash {data['sha256']}"
    parts = {
        "version": task["version"],
        "data": f"{data['samples']} samples, {content.get('data', alone)}",
        "protocol": task["protocol"],
        "split": str(data.get("split")),
        "ask": str(data.get("ask") or "-"),
        "prompt": content.get("prompts", alone),
        "sampling": sampling_text(manifest.identity["sampling"]),
        "plugins": _plugins(manifest),
    }
    return Conditions(manifest.task, manifest.data, parts, (data["samples"],))


def sampling_text(sampling: Mapping[str, Any]) -> str:
    """The parameters that decide how answers are drawn, in words; a seed is not among them."""
    temperature, n = sampling.get("temperature", 0), sampling.get("n", 1)
    heat = f"temperature {temperature:g}, top-p {sampling.get('top_p', 1):g}" if temperature else "greedy"
    several = f", {n} completions per sample" if n > 1 else ""
    return f"{heat}, at most {sampling.get('max_tokens')} tokens{several}"


def _plugins(manifest: Manifest) -> str:
    included = manifest.identity.get("include") or []
    built_in = manifest.task in TASKS and TASKS.source(manifest.task) == "built in"
    if built_in or not included:
        return "-"
    return ", ".join(f"{item.get('name')} {item.get('sha256')}" for item in included if isinstance(item, dict))
