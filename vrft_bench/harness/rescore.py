"""Judge a run's stored completions again, without a model.

Every stored text is parsed and scored by the task as it is now; predictions, scores and ``metrics.json`` are rewritten,
the raw text never.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from vrft_bench.errors import UserError
from vrft_bench.harness.identity import differences
from vrft_bench.harness.plan import RunPlan, choose_task, make_plan
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.records import Key, RecordIndex, RecordWriter, disk_error
from vrft_bench.harness.results import RunResult
from vrft_bench.harness.scoring import Scorer
from vrft_bench.harness.store import SAMPLES, Manifest, RunStore, containing_run, read_manifest, utc_now, versions
from vrft_bench.registry import include
from vrft_bench.tasks.coordinates import ModelProfile


def rescore(folder: str | Path, *, allow_changed: bool = False, progress: Progress | None = None) -> RunResult:
    """Score the run in ``folder`` (which may be named by a file in it) again; its data must be there.

    Raises :class:`UserError` when the task's version or the data is not the run's, unless ``allow_changed``. A run
    that did not end is scored over what it has, and a note says so.
    """
    progress = progress or SilentProgress()
    folder = containing_run(Path(folder))
    manifest = read_manifest(folder)
    config = manifest.config
    for file in config.include:
        include(file)
    profile = ModelProfile.from_json(manifest.identity["profile"])
    plan = make_plan(choose_task(manifest.task, config), profile, config)
    changes = _changes(manifest, plan)
    if changes and not allow_changed:
        raise UserError(
            f"{folder} was not made from what is here now: {'; '.join(changes)}",
            fix="run again, or score what is there with --allow-changed (its figures then belong to no fingerprint)",
        )
    with RunStore(folder) as store:
        return _rescore(store, plan, changes, progress)


def _rescore(store: RunStore, plan: RunPlan, changes: list[str], progress: Progress) -> RunResult:
    scorer = Scorer(plan)
    path = store.folder / SAMPLES
    partial = path.with_name(f".{SAMPLES}.partial")
    partial.unlink(missing_ok=True)
    notes = [f"scored after a change: {change}" for change in changes]
    with contextlib.closing(store.index()) as index:
        progress.begin(f"scoring {plan.task.name}", len(index.answered) + len(index.failed))
        try:
            with contextlib.closing(RecordWriter(partial)) as writer:
                missing, left = _rewrite(plan, index, scorer, writer, progress)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        finally:
            progress.end()
    if left:
        notes.append(f"{left} stored completions belong to no sample of this data: kept, not scored")
    if missing:
        notes.append(f"partial: {missing} of {plan.completions} completions are not there, and count for nothing")
    report, answers = scorer.finish(plan.unasked(), *notes)
    try:
        partial.replace(path)
    except OSError as error:
        raise disk_error(path, error) from error
    said = {"at": utc_now(), "versions": versions(), "task_version": plan.task.version, "changes": changes}
    result = RunResult(store.folder, store.manifest, report, answers)
    store.write_metrics(result.to_json())
    store.update(rescored=[*store.manifest.rescored, said])
    return RunResult(store.folder, store.manifest, report, answers)


def _rewrite(
    plan: RunPlan, index: RecordIndex, scorer: Scorer, writer: RecordWriter, progress: Progress
) -> tuple[int, int]:
    """Write every record anew. Returns how many completions of the plan have none, and how many records no sample."""
    missing = 0
    used: set[Key] = set()
    for sample in plan.walk():
        for n in range(plan.config.samples):
            key = (sample.id, n)
            if (offset := index.answered.get(key)) is not None:
                record = index.read(offset)
                progress.advance(scorer.replay(sample, record).total)
            elif (offset := index.failed.get(key)) is not None:
                record = index.read(offset)
                scorer.fail(sample, n)
                progress.advance(None)
            else:
                missing += 1
                continue
            used.add(key)
            writer.append(record)
    left = [offset for found in (index.answered, index.failed) for key, offset in found.items() if key not in used]
    for offset in left:
        writer.append(index.read(offset))
    return missing, len(left)


def _changes(manifest: Manifest, plan: RunPlan) -> list[str]:
    """How the task, the data and the plugins differ from those that the run was made with."""
    there, here = manifest.identity, plan.identity({})
    task, data = there["task"], there["data"]
    changes = []
    if task["version"] != plan.task.version:
        changes.append(f"task version {task['version']} there, {plan.task.version} here")
    if data["sha256"] != plan.survey.sha256:
        changes.append(
            f"data hash {data['sha256'][:12]} ({data['samples']} samples) there, "
            f"{plan.survey.sha256[:12]} ({plan.survey.samples} samples) here"
        )
    said = {"version", "sha256", "samples"}
    for part in ("task", "data"):
        old, new = ({key: item for key, item in parts[part].items() if key not in said} for parts in (there, here))
        changes += differences(old, new, f"{part}.")
    if there["include"] != here["include"]:
        changes.append("the files that --include names have changed")
    return changes
