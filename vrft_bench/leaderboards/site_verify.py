"""Whether a leaderboard site says what its stored completions are worth: each run is scored again, and compared.

Nothing in the site is written to: runs are scored in copies, by the same code as ``vrft-bench score``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isclose
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.harness.models.fingerprint import sha256_file
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.records import read_records
from vrft_bench.harness.rescore import rescore
from vrft_bench.harness.store import MANIFEST, METRICS, SAMPLES, write_json
from vrft_bench.leaderboards.site import RUN_FILES, RUNS, read_index
from vrft_bench.leaderboards.site_check import checked_site
from vrft_bench.tasks.base import MetricReport

_TOLERANCE = 1e-9
"""Figures are compared to so many parts of themselves: another processor may round the last digit otherwise."""
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found about one run, or about the site's own files (``run`` is empty). Without ``flaws``, all is well.

    ``unverifiable``: nothing was found wrong, because it could not be scored again.
    """

    run: str
    about: str
    flaws: tuple[str, ...] = ()
    unverifiable: bool = False

    def to_json(self) -> dict[str, Any]:
        state = "ok" if not self.flaws else "not verifiable" if self.unverifiable else "different"
        return {"run": self.run or None, "about": self.about, "state": state, "flaws": list(self.flaws)}


def verify_site(
    folder: Path, *, data: Path | None = None, included: Sequence[Path] = (), progress: Progress | None = None
) -> list[Verdict]:
    """A verdict on the site's files, then one on each run. ``data`` is a data root in place of the runs' own.

    A site may be anyone's: of the plugin files that its runs name, only those in ``included`` are run.

    Raises :class:`~vrft_bench.errors.DataError` where ``folder`` is no site.
    """
    index = read_index(folder)
    checked = checked_site(folder, index)
    return [
        Verdict("", "files of the site", checked.flaws),
        *(
            _verified(folder / RUNS / run, shown, data, included, progress or SilentProgress())
            for run, shown in checked.cells.items()
        ),
    ]


def _verified(
    run: Path, shown: Sequence[Mapping[str, Any]], data: Path | None, included: Sequence[Path], progress: Progress
) -> Verdict:
    about = run.name
    try:
        manifest = json.loads((run / MANIFEST).read_bytes())
        about = f"{manifest['task']}, {manifest['model']}"
        with tempfile.TemporaryDirectory(prefix="vrft-bench-verify-") as place:
            copy = Path(place) / run.name
            copy.mkdir()
            for name in RUN_FILES:
                shutil.copyfile(run / name, copy / name)
            here: dict[str, Any] = {"include": _own_copies(manifest, included)}
            if data is not None:
                here["data"] = str(data.absolute())
            write_json(copy / MANIFEST, {**manifest, "config": {**manifest["config"], **here}})
            report = rescore(copy, progress=progress).report
            flaws = [*_changed_records(run, copy), *_changed_figures(run, copy), *_changed_cells(shown, report)]
    except UserError as error:
        return Verdict(run.name, about, (f"not verifiable: {' '.join(error.message.split())}",), unverifiable=True)
    except (OSError, ValueError, LookupError, TypeError) as error:
        return Verdict(run.name, about, (f"its files cannot be read: {error}",))
    return Verdict(run.name, about, tuple(flaws))


def _own_copies(manifest: Mapping[str, Any], included: Sequence[Path]) -> list[str]:
    """For each plugin file of a run, the one of the same content that was included here."""
    files = manifest["identity"].get("include") or []
    known = {sha256_file(path): str(path.absolute()) for path in included}
    missing = [file["name"] for file in files if file["sha256"] not in known]
    if missing:
        raise UserError(
            f"it was run with the plugin {', '.join(missing)}; read your copy, and name it with --include",
            fix="a plugin is code, and only what you name is run",
        )
    return [known[file["sha256"]] for file in files]


def _changed_records(run: Path, copy: Path) -> Iterator[str]:
    """The samples whose stored prediction or score is not that of their stored text; the first few of them."""
    stored = {(record["id"], record["n"]): record for record in read_records(run / SAMPLES)}
    changed = (
        f"sample {record['id']}, n={record['n']}: its {part} is not that of its text"
        for record in read_records(copy / SAMPLES)
        for part in ("prediction", "score")
        if _differences(stored[record["id"], record["n"]].get(part), record.get(part))
    )
    with contextlib.closing(changed):
        yield from islice(changed, _SHOWN)


def _changed_figures(run: Path, copy: Path) -> list[str]:
    stored, anew = (json.loads((folder / METRICS).read_bytes()) for folder in (run, copy))
    lines = [
        line for part in ("report", "answers") for line in _differences(stored.get(part), anew.get(part), f"{part}.")
    ]
    return lines[:_SHOWN]


def _changed_cells(shown: Sequence[Mapping[str, Any]], report: MetricReport) -> Iterator[str]:
    figures = report.to_json()
    for cell in shown:
        row = figures["by_category"].get(cell["category"], {}) if cell["category"] else figures["figures"]
        found = row.get(cell["figure"] or report.headline)
        for end in ("value", "low", "high"):
            value = found[end] if isinstance(found, dict) and found["value"] is not None else None
            anew = None if value is None else 100 * value
            if _differences(cell[end], anew):
                name = cell["heading"] if end == "value" else f"{cell['heading']}, {end} end of its interval"
                yield f"{name}: {_shown(cell[end])} on the site, {_shown(anew)} scored again"


def _differences(there: Any, here: Any, name: str = "") -> list[str]:
    """Where two JSON values differ, but for rounding in the last digits."""
    if isinstance(there, dict) and isinstance(here, dict):
        keys = dict.fromkeys([*there, *here])
        return [line for key in keys for line in _differences(there.get(key), here.get(key), f"{name}{key}.")]
    if isinstance(there, list) and isinstance(here, list) and len(there) == len(here):
        pairs = enumerate(zip(there, here, strict=True))
        return [line for place, pair in pairs for line in _differences(*pair, f"{name}{place}.")]
    numbers = [value for value in (there, here) if isinstance(value, int | float) and not isinstance(value, bool)]
    same = isclose(*numbers, rel_tol=_TOLERANCE, abs_tol=_TOLERANCE) if len(numbers) == 2 else there == here
    return [] if same else [f"{name.rstrip('.')}: {_shown(there)} stored, {_shown(here)} scored again"]


def _shown(value: Any) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
