"""What a watch keeps, in a folder beside the checkpoints that it looks at.

* ``curve.jsonl``: a line per evaluated checkpoint (see :mod:`vrft_bench.trainers.watch_curve`);
* ``runs/``: their runs, as ``vrft-bench run`` keeps them;
* ``best``: a link to the checkpoint with the highest metric, which is a whole model and nobody else's to delete;
* ``watch.json``: what is evaluated, and how;
* ``staged/``: copies of checkpoints that wait for their evaluation.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vrft_bench.errors import UserError
from vrft_bench.harness.identity import differences
from vrft_bench.harness.records import disk_error
from vrft_bench.harness.store import lock_folder, write_json
from vrft_bench.tasks.data.annotations import read_json
from vrft_bench.trainers.folder import WHOLE, step_of
from vrft_bench.trainers.watch_checkpoints import FoundCheckpoint, link_files, unlink_files
from vrft_bench.trainers.watch_curve import Evaluation, append_evaluation, best_of, read_curve

BASE = "base"
"""What stands for the files of the model that the training began from, which is step 0."""
CURVE, BEST, ABOUT, RUNS = "curve.jsonl", "best", "watch.json", "runs"
_STAGED = "staged"


class WatchFolder:
    """``path`` and the curve in it. Nothing is made before :meth:`hold`: engines want to begin in an empty folder."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.curve = read_curve(path / CURVE)
        self._lock: int | None = None

    def hold(self) -> None:
        """Make the folder, and keep others from writing into it until :meth:`close`. May be called again."""
        if self._lock is None:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f"cannot create {self.path}: {error.strerror}", fix="choose another place with --output-dir"
                ) from error
            self._lock = lock_folder(self.path)

    def close(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def refuse_other(self, choices: Mapping[str, Any], evaluation: Mapping[str, Any] | None = None) -> None:
        """Raise :class:`UserError` where the curve that is there was made by other choices, or on other data."""
        file = self.path / ABOUT
        if not file.is_file():
            return
        there = read_json(file)
        changed = differences(there["choices"], choices)
        if evaluation is not None:
            changed += differences(there["evaluation"], evaluation)
        if changed:
            raise UserError(
                f"{self.path} holds the curve of another watch ({'; '.join(changed[:3])})",
                fix="give another --output-dir, or the same choices to go on with this one",
            )

    def claim(self, choices: Mapping[str, Any], evaluation: Mapping[str, Any]) -> None:
        """Write down what is evaluated and how, or refuse as :meth:`refuse_other` does."""
        self.refuse_other(choices, evaluation)
        write_json(self.path / ABOUT, {"choices": dict(choices), "evaluation": dict(evaluation)})

    @property
    def best(self) -> Evaluation | None:
        """The checkpoint with the highest metric."""
        return best_of(row for row in self.curve if row.signature != BASE)

    def has(self, step: int, signature: str) -> bool:
        """Whether the files of ``signature`` have been evaluated as ``step``."""
        return any(row.step == step and row.signature == signature for row in self.curve)

    def add(self, row: Evaluation) -> None:
        """Put an evaluation on the curve."""
        append_evaluation(self.path / CURVE, row)
        self.curve = read_curve(self.path / CURVE)

    def stage(self, found: FoundCheckpoint, signature: str) -> None:
        """Take a copy of a checkpoint. Raises :class:`FileNotFoundError` where it is deleted meanwhile."""
        self.hold()
        target = self.path / _STAGED / signature / f"checkpoint-{found.step}"
        if not target.is_dir():
            try:
                link_files(found, target)
            except FileNotFoundError:
                raise
            except OSError as error:
                raise disk_error(target, error) from error

    def copies(self) -> list[tuple[int, str, Path]]:
        """The copies that were taken, also by an earlier watch: (step, signature, folder), by step."""
        folders = (self.path / _STAGED).glob("*/checkpoint-*")
        return sorted((step_of(folder), folder.parent.name, folder) for folder in folders)

    def discard(self, copy: Path) -> None:
        """Remove a copy, of which the evaluation is done; the best one stays, as ``best``."""
        best = self.best
        if best is not None and self.has(step_of(copy), copy.parent.name) and best.signature == copy.parent.name:
            try:
                self._keep(copy, best)
            except OSError as error:
                raise disk_error(self.path / BEST, error) from error
        shutil.rmtree(copy.parent, ignore_errors=True)

    def _keep(self, copy: Path, row: Evaluation) -> None:
        best, kept = self.path / BEST, self.path / copy.name
        old = best.resolve() if best.is_symlink() else None
        unlink_files(copy)
        write_json(copy / WHOLE, {"step": row.step, row.metric: row.value})
        shutil.rmtree(kept, ignore_errors=True)
        copy.replace(kept)
        link = self.path / f".{BEST}.partial"
        link.unlink(missing_ok=True)
        link.symlink_to(kept.name)
        link.replace(best)
        if old is not None and old != kept:
            shutil.rmtree(old, ignore_errors=True)
