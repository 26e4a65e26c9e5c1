"""The report's charts as figures for papers, drawn by matplotlib: a PNG or PDF file each.

Sizes are those of a column (3.4 inches), text is 8 points, and fonts are embedded as text (PDF type 42). Where several
runs are given, A is the baseline of the gains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vrft_bench.errors import UserError
from vrft_bench.harness.cli.results import heading
from vrft_bench.leaderboards.report.build import FigureFormat, Judged, judge
from vrft_bench.leaderboards.report.charts import IOU_BINS, Bar
from vrft_bench.leaderboards.report.summary import letter, model_name
from vrft_bench.leaderboards.report.thumbnails import unwritable
from vrft_bench.leaderboards.runs import RunRow
from vrft_bench.tasks.metrics.average_precision import RECALL_LEVELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = ("#2b66d9", "#d9660a", "#7b4bd1", "#0b8a7a", "#b83280", "#6b7280")
COLUMN = 3.4
"""Inches: the width of a column of a two-column paper."""
_RC: dict[Any, Any] = {
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "grid.color": "#e3e4e8",
    "grid.linewidth": 0.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "text.parse_math": False,  # a category may hold a dollar sign
    "savefig.dpi": 200,
}
_MOST_CATEGORIES = 40


def draw_figures(
    runs: Sequence[RunRow], output: Path, file_format: FigureFormat, *, training: Sequence[Path] = ()
) -> list[Path]:
    """Draw every chart that ``runs`` have into the folder ``output``; the files, in order.

    Raises :class:`UserError` as :func:`~vrft_bench.leaderboards.report.build.judge` does, and without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise UserError(
            "figures need matplotlib, which is not installed", fix="pip install 'vrft-bench[report]'"
        ) from None
    judged = judge(runs, training)
    paths = []
    with matplotlib.rc_context(_RC):
        for name, size, draw in _drawings(judged):
            figure = Figure(figsize=size, layout="constrained")
            draw(figure)
            path = output / f"{name}.{file_format}"
            try:
                output.mkdir(parents=True, exist_ok=True)
                figure.savefig(path, metadata=_metadata(file_format))
            except OSError as error:
                raise unwritable(path, error) from error
            paths.append(path)
    return paths


Drawing = tuple[str, tuple[float, float], Callable[["Figure"], None]]


def _drawings(judged: Judged) -> Iterator[Drawing]:
    """(file name, inches, function that draws) of every chart that has something to show."""
    charts = judged.charts
    bars = charts[0].categories
    if 1 < len(bars) <= _MOST_CATEGORIES:
        tall = 0.5 + len(bars) * (0.12 + 0.12 * len(charts))
        yield "categories", (COLUMN, tall), lambda figure: _categories(figure, judged)
        if len(charts) > 1:
            yield "gains", (COLUMN, 0.5 + 0.24 * len(bars)), lambda figure: _gains(figure, judged)
        if len(bars) > 2:
            yield "radar", (COLUMN, COLUMN), lambda figure: _radar(figure, judged)
    if any(one.mean_precision for one in charts):
        yield "precision_recall", (COLUMN, 2.6), lambda figure: _precision_recall(figure, judged)
    if any(one.calibration for one in charts):
        yield "calibration", (COLUMN, 2.8), lambda figure: _calibration(figure, judged)
    if any(one.ious for one in charts):
        yield "iou", (COLUMN, 2.2), lambda figure: _ious(figure, judged)
    if any(one.errors for one in charts):
        yield "mistakes", (COLUMN, 2.2), lambda figure: _mistakes(figure, judged)
    for number, training in enumerate(judged.trainings):
        if training.series or training.evaluated:
            yield f"training_{number + 1}", (COLUMN, 2.4), _training(judged, number)


def _names(judged: Judged) -> list[str]:
    """The runs as legends call them: by model, and by letter too where models are alike."""
    models = [_short(model_name(run.row.manifest.model)) for run in judged.runs]
    if len(set(models)) == len(models):
        return models
    return [f"{letter(number)}: {model}" for number, model in enumerate(models)]


def _short(model: str) -> str:
    """The end of a long name, which is what tells checkpoints apart."""
    return model if len(model) <= 45 else f"...{model[-42:]}"


def _label(category: str) -> str:
    """A category as it fits beside an axis; line breaks and control characters have no place there."""
    printed = "".join(sign if sign.isprintable() else " " for sign in category)
    return printed if len(printed) <= 24 else f"{printed[:23]}…"


def _finish(axes: Any, x: str, y: str, *, legend: bool) -> None:
    """Labels and a grid; a legend goes above the axes, where it hides nothing."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True)
    axes.set_axisbelow(True)
    if legend:
        axes.figure.legend(loc="outside upper left", fontsize=7)


def _values(bars: Sequence[Bar], names: Sequence[str]) -> tuple[Any, Any]:
    """The bars' values by ``names``, and how far their intervals reach below and above."""
    by_name = {bar.name: bar for bar in bars}
    found = [by_name.get(name, Bar(name, None, None, None, None)) for name in names]
    values = np.array([np.nan if bar.value is None else bar.value for bar in found])
    reach = [
        (0.0, 0.0)
        if bar.value is None or bar.low is None or bar.high is None
        else (bar.value - bar.low, bar.high - bar.value)
        for bar in found
    ]
    return values, np.clip(np.array(reach).T, 0.0, None)


def _categories(figure: Figure, judged: Judged) -> None:
    axes = figure.add_subplot()
    names = [bar.name for bar in judged.charts[0].categories]
    height = 0.8 / len(judged.charts)
    for number, (one, run) in enumerate(zip(judged.charts, _names(judged), strict=True)):
        values, reach = _values(one.categories, names)
        places = np.arange(len(names)) + (number - (len(judged.charts) - 1) / 2) * height
        axes.barh(places, np.nan_to_num(values), height, color=COLOURS[number % 6], label=run)
        axes.errorbar(values, places, xerr=reach, fmt="none", ecolor="#30343a", elinewidth=0.7, capsize=1.5)
    axes.set_yticks(range(len(names)), list(map(_label, names)))
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    _finish(axes, heading(judged.charts[0].headline), "", legend=len(judged.charts) > 1)


def _gains(figure: Figure, judged: Judged) -> None:
    axes = figure.add_subplot()
    names = [bar.name for bar in judged.charts[0].categories]
    base, _ = _values(judged.charts[0].categories, names)
    height = 0.8 / (len(judged.charts) - 1)
    for number, run in enumerate(_names(judged)[1:], start=1):
        gain = np.nan_to_num(_values(judged.charts[number].categories, names)[0] - base)
        places = np.arange(len(names)) + (number - len(judged.charts) / 2) * height
        axes.barh(places, gain, height, color=COLOURS[number % 6], label=run)
    axes.axvline(0, color="#30343a", linewidth=0.8)
    axes.set_yticks(range(len(names)), list(map(_label, names)))
    axes.invert_yaxis()
    figure_name = heading(judged.charts[0].headline)
    _finish(axes, f"gain in {figure_name} over {_names(judged)[0]}", "", legend=len(judged.charts) > 2)


def _radar(figure: Figure, judged: Judged) -> None:
    axes: Any = figure.add_subplot(projection="polar")
    names = [bar.name for bar in judged.charts[0].categories]
    angles = np.linspace(0, 2 * np.pi, len(names), endpoint=False)
    for number, (one, run) in enumerate(zip(judged.charts, _names(judged), strict=True)):
        values = np.nan_to_num(_values(one.categories, names)[0])
        closed = np.append(angles, angles[0]), np.append(values, values[0])
        axes.plot(*closed, color=COLOURS[number % 6], linewidth=1.2, label=run)
        axes.fill(*closed, color=COLOURS[number % 6], alpha=0.12)
    axes.set_theta_offset(np.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_xticks(angles, list(map(_label, names)))
    axes.tick_params(axis="x", pad=6)
    axes.set_ylim(0, None)
    axes.spines["polar"].set_visible(False)
    figure.legend(loc="outside lower center", fontsize=7)


def _precision_recall(figure: Figure, judged: Judged) -> None:
    axes = figure.add_subplot()
    for number, (one, run) in enumerate(zip(judged.charts, _names(judged), strict=True)):
        if one.mean_precision:
            axes.plot(RECALL_LEVELS, one.mean_precision, color=COLOURS[number % 6], linewidth=1.4, label=run)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _finish(axes, "recall", "precision at IoU .5", legend=True)


def _calibration(figure: Figure, judged: Judged) -> None:
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="#868e96", linewidth=0.8, linestyle="--")
    for number, (one, run) in enumerate(zip(judged.charts, _names(judged), strict=True)):
        if not one.calibration:
            continue
        right = np.array([item.right for item in one.calibration])
        reach = [right - [item.low for item in one.calibration], [item.high for item in one.calibration] - right]
        stated = [item.confidence for item in one.calibration]
        label = f"{run} (mean distance {one.ece:.3f})"
        style: dict[str, Any] = {"fmt": "o-", "markersize": 3, "linewidth": 1.2, "elinewidth": 0.7, "capsize": 1.5}
        axes.errorbar(stated, right, yerr=np.clip(reach, 0, None), color=COLOURS[number % 6], label=label, **style)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1.02)
    _finish(axes, "stated confidence", "share right at IoU .5", legend=True)


def _ious(figure: Figure, judged: Judged) -> None:
    axes = figure.add_subplot()
    edges = np.linspace(0, 1, IOU_BINS + 1)
    for number, (one, run) in enumerate(zip(judged.charts, _names(judged), strict=True)):
        if one.ious:
            axes.stairs(one.ious, edges, color=COLOURS[number % 6], fill=True, alpha=0.18)
            axes.stairs(one.ious, edges, color=COLOURS[number % 6], linewidth=1.2, label=run)
    axes.set_xlim(0, 1)
    _finish(axes, "best IoU with the truth", "boxes", legend=True)


def _mistakes(figure: Figure, judged: Judged) -> None:
    axes = figure.add_subplot()
    kinds = list(dict.fromkeys(kind for one in judged.charts for kind in one.errors))
    width = 0.8 / len(judged.charts)
    for number, (one, run) in enumerate(zip(judged.charts, _names(judged), strict=True)):
        places = np.arange(len(kinds)) + (number - (len(judged.charts) - 1) / 2) * width
        axes.bar(places, [one.errors.get(kind, 0) for kind in kinds], width, color=COLOURS[number % 6], label=run)
    axes.set_xticks(range(len(kinds)), kinds, rotation=20, ha="right")
    _finish(axes, "", "count", legend=len(judged.charts) > 1)


def _training(judged: Judged, number: int) -> Callable[[Figure], None]:
    training = judged.trainings[number]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if training.evaluated:
            rows = [row for row in training.evaluated if row.value is not None]
            steps, values = [row.step for row in rows], np.array([row.value for row in rows], dtype=np.float64)
            axes.plot(steps, values, "o-", color=COLOURS[0], markersize=3, linewidth=1.3, label=training.metric)
            low = [row.value if row.low is None else row.low for row in rows]
            high = [row.value if row.high is None else row.high for row in rows]
            axes.fill_between(steps, low, high, color=COLOURS[0], alpha=0.15)  # type: ignore[arg-type]
            _finish(axes, "step", heading(training.metric), legend=False)
            return
        name = next(iter(training.series))
        axes.plot(*zip(*training.series[name], strict=True), color=COLOURS[0], linewidth=1.2)
        _finish(axes, "step", name, legend=False)

    return draw


def _metadata(file_format: FigureFormat) -> dict[str, Any]:
    """Nothing that changes from one drawing to the next."""
    return {"Software": None} if file_format == "png" else {"CreationDate": None, "Creator": None, "Producer": None}
