"""What explains the AP of a finished detection run: its kinds of mistake, its confidences, what cannot be read."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path

from vrft_bench.errors import UserError
from vrft_bench.harness.plan import RunPlan
from vrft_bench.harness.progress import Progress, SilentProgress
from vrft_bench.harness.records import Record
from vrft_bench.harness.scoring import frame_of
from vrft_bench.harness.store import RunStore, containing_run, read_manifest, utc_now, versions, write_json
from vrft_bench.harness.stored_answers import StoredAnswers, plan_of_run
from vrft_bench.tasks.base import UNASKED, MetricReport, Prediction, Sample
from vrft_bench.tasks.box_likelihood import box_likelihoods
from vrft_bench.tasks.paper.prediction import thousandths

DIAGNOSIS = "diagnosis.json"
"""The file of a run's folder that holds the figures."""


def diagnose_run(folder: str | Path, *, progress: Progress | None = None) -> MetricReport:
    """The figures of :class:`~vrft_bench.tasks.metrics.diagnosis.DiagnosisMetric` over the run in ``folder``.

    They are written to ``diagnosis.json`` in it. Raises :class:`UserError` for a run of another family, for changed
    data, and where a process works on the run.
    """
    from vrft_bench.tasks.metrics.diagnosis import DiagnosisMetric

    folder = containing_run(Path(folder))
    manifest = read_manifest(folder)
    plan = plan_of_run(folder, manifest)
    wanted = bool(manifest.identity["model"].get("logprobs"))
    if plan.task.family != "detection":
        raise UserError(
            f"{folder} is a run of {plan.task.name}, a {plan.task.family} task, and has no AP to explain",
            fix="give the folder of a detection run; for the masks of a grounding run add --segmenter box",
        )
    metric = DiagnosisMetric(plan.dataset)
    with RunStore(folder) as store, contextlib.closing(store.index()) as index:
        answers = StoredAnswers(plan, index, progress or SilentProgress(), "diagnosing")
        for sample, n, prediction, record in answers.with_records():
            metric.update(sample, prediction, n, _likelihoods(plan, sample, prediction, record, wanted=wanted))
        for sample in plan.unasked():
            for n in range(plan.config.samples):
                metric.update(sample, UNASKED, n)
        report = metric.compute()
        report = replace(report, notes=(*report.notes, *answers.note()))
        write_json(folder / DIAGNOSIS, {"report": report.to_json(), "at": utc_now(), "versions": versions()})
    return report


def _likelihoods(
    plan: RunPlan, sample: Sample, prediction: Prediction, record: Record | None, *, wanted: bool
) -> tuple[float | None, ...] | None:
    """How likely the model found each box, by the log-probabilities of its tokens; ``None`` where none are kept."""
    if record is None or "token_logprobs" not in record:
        return (None,) * len(prediction.detections) if wanted else None
    frame = frame_of(sample, record, plan.profile)
    read_in = thousandths(frame) if plan.task.protocol == "paper" else frame
    return box_likelihoods(record["text"], record["token_logprobs"], prediction.detections, read_in)
