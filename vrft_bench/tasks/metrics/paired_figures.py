"""What two runs are compared by: means of any values, accuracy, and AP with all that comes with it.

Each is a :class:`~vrft_bench.tasks.metrics.paired.PairedFigures`. At weights of 1 the figures are those of the metrics'
own reports.

Detections of equal score are ranked by image, then by their order in the answer, as everywhere
(:mod:`~vrft_bench.tasks.metrics.outcome_table`). In a weighting, the copies of a detection follow each other, so that
an image that counts k times gives each of its detections k times in a row. Of two answers about one image that both
count, the first run's is the earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vrft_bench.tasks.metrics.average_precision import Floats, PrecisionRecall, mean_defined
from vrft_bench.tasks.metrics.category_figures import mean_over_runs, values_of
from vrft_bench.tasks.metrics.detection import CountedDetections
from vrft_bench.tasks.metrics.outcome_table import RankedOutcomes, image_order
from vrft_bench.tasks.metrics.outcomes import AREA_RANGES
from vrft_bench.tasks.metrics.paired import FigureKey
from vrft_bench.tasks.metrics.significance import mcnemar


class PairedMeans:
    """Means of values that are added one at a time, by run (0 or 1) and cluster.

    Not ``exchangeable`` are values that vary more in one run than in the other even where both are equally good, as
    estimates from fewer answers do; values of which one run has more are not in any case.
    """

    def __init__(self, *, exchangeable: bool = True) -> None:
        self._may_exchange = exchangeable
        self._clusters: dict[str, int] = {}
        self._keys: dict[FigureKey, int] = {}
        self._sums: tuple[dict[tuple[int, int], list[float]], ...] = ({}, {})
        self._columns: _Columns | None = None

    def add(self, run: int, cluster: str, key: FigureKey, value: float) -> None:
        """Count one value of one figure."""
        place = (
            self._keys.setdefault(key, len(self._keys)),
            self._clusters.setdefault(cluster, len(self._clusters)),
        )
        found = self._sums[run].setdefault(place, [0.0, 0.0])
        found[0] += value
        found[1] += 1.0

    @property
    def keys(self) -> Sequence[FigureKey]:
        return list(self._keys)

    @property
    def clusters(self) -> int:
        return len(self._clusters)

    @property
    def exchangeable(self) -> bool:
        before, after = self._sums
        if not self._may_exchange:
            return False
        return before.keys() == after.keys() and all(own[1] == after[place][1] for place, own in before.items())

    @property
    def exact(self) -> Mapping[FigureKey, float]:
        """McNemar's test, where every cluster is one answer that is right (1) or wrong (0)."""
        found: dict[FigureKey, float] = {}
        if not self.exchangeable:
            return found
        pairs: dict[int, list[tuple[list[float], list[float]]]] = {}
        for place, own in self._sums[0].items():
            pairs.setdefault(place[0], []).append((own, self._sums[1][place]))
        for key, number in self._keys.items():
            mine = pairs[number]
            if all(total in (0.0, 1.0) and count == 1.0 for pair in mine for total, count in pair):
                gained = sum(before[0] < after[0] for before, after in mine)
                found[key] = mcnemar(gained, sum(before[0] > after[0] for before, after in mine))
        return found

    def at(self, before: Floats, after: Floats) -> Floats:
        if self._columns is None:
            self._columns = _columns(self._sums)
        columns = self._columns
        own = np.concatenate([before[columns.cluster[0]], after[columns.cluster[1]]])
        count = np.bincount(columns.key, own * columns.count, len(self._keys))
        total = np.bincount(columns.key, own * columns.sum, len(self._keys))
        means: Floats = np.where(count > 0, total / np.where(count > 0, count, 1.0), np.nan)
        return means


@dataclass(frozen=True, slots=True)
class _Columns:
    """An item per run, figure and cluster: those of the first run come first. ``cluster`` is apart for each run."""

    key: np.ndarray[tuple[int], np.dtype[np.int64]]
    cluster: tuple[np.ndarray[tuple[int], np.dtype[np.int64]], ...]
    sum: Floats
    count: Floats


def _columns(sums: Iterable[Mapping[tuple[int, int], list[float]]]) -> _Columns:
    places = [np.array(list(run), dtype=np.int64).reshape(-1, 2) for run in sums]
    values = np.concatenate([np.array(list(run.values()), dtype=np.float64).reshape(-1, 2) for run in sums])
    key = np.concatenate([item[:, 0] for item in places])
    return _Columns(key, tuple(item[:, 1] for item in places), values[:, 0], values[:, 1])


class PairedAccuracy(PairedMeans):
    """Accuracy, overall and by true class, with the mean over the classes and the figure centred on chance.

    ``choices`` is how many classes could be answered.
    """

    ACCURACY = FigureKey("accuracy")

    def __init__(self, choices: int) -> None:
        super().__init__()
        self._choices = choices
        self._keys[self.ACCURACY] = 0

    def add_answer(self, run: int, cluster: str, label: str, value: float) -> None:
        """Count one answer; ``label`` is the true class."""
        self.add(run, cluster, self.ACCURACY, value)
        self.add(run, cluster, FigureKey("accuracy", label), value)

    @property
    def keys(self) -> Sequence[FigureKey]:
        own = [FigureKey("balanced_accuracy")]
        if self._choices > 1:
            own.append(FigureKey("chance_centred_accuracy"))
        return [*super().keys, *own]

    @property
    def exact(self) -> Mapping[FigureKey, float]:
        found = dict(super().exact)
        if self.ACCURACY in found and self._choices > 1:
            found[FigureKey("chance_centred_accuracy")] = found[self.ACCURACY]  # a linear map of it
        return found

    def at(self, before: Floats, after: Floats) -> Floats:
        means = super().at(before, after)
        balanced = mean_defined(means[1:])
        own = [np.nan if balanced is None else balanced]
        if self._choices > 1:
            chance = 1 / self._choices
            own.append((means[0] - chance) / (1 - chance))
        return np.concatenate([means, own])


@dataclass(frozen=True, slots=True)
class _Ranked:
    """One completion index of one run, or of both together, with the curves of every area range."""

    outcomes: RankedOutcomes
    curves: list[PrecisionRecall]


class PairedDetection:
    """Every figure of :class:`~vrft_bench.tasks.metrics.detection.DetectionMetric`, and the headline by category.

    ``counted`` holds the completions of both runs; those with an index below ``first`` are the first run's. The tie
    figures are left out: they say what other orders would have given, which no test is about.
    """

    def __init__(self, counted: CountedDetections, first: int) -> None:
        self._counted = counted
        numbers = sorted(counted.tables)
        tables = [counted.tables[n] for n in numbers]
        order = image_order(counted.images, tables)
        batch = range(len(counted.categories))
        limit = counted.rules.limit_per_image
        ranked = [table.ranked(order, batch, table.beyond_limit(order, [batch], limit)[0]) for table in tables]
        self._images = len(order)
        own = [[item for n, item in zip(numbers, ranked, strict=True) if (n < first) is mine] for mine in (True, False)]
        self._runs = [[self._with_curves(item, self._images) for item in run] for run in own]
        self._both: list[_Ranked] = []
        if self.exchangeable:
            pairs = zip(*own, strict=True)
            self._both = [self._with_curves(interleaved(*pair), 2 * self._images) for pair in pairs]
        self.keys = self._names()

    def _with_curves(self, outcomes: RankedOutcomes, images: int) -> _Ranked:
        categories = len(self._counted.categories)
        areas = range(len(AREA_RANGES))
        return _Ranked(outcomes, [PrecisionRecall(outcomes, categories, images, area) for area in areas])

    @property
    def clusters(self) -> int:
        return self._images

    @property
    def exchangeable(self) -> bool:
        return len(self._runs[0]) == len(self._runs[1])

    @property
    def exact(self) -> Mapping[FigureKey, float]:
        return {}

    @property
    def work(self) -> int:
        """How many detections and curve points both runs have: what an evaluation costs."""
        return self._images + sum(table.work() for table in self._counted.tables.values())

    def at(self, before: Floats, after: Floats) -> Floats:
        if not after.any():
            values = self._values(self._runs[0], before)
        elif not before.any():
            values = self._values(self._runs[1], after)
        else:
            values = self._values(self._both, np.column_stack([before, after]).ravel())
        parts = [values[name] for name in self._figures()]
        parts += [values["ap"][chosen] for chosen in self._counted.groups.values()]
        means = [mean_defined(part) for part in parts]
        return np.concatenate([[np.nan if mean is None else mean for mean in means], values[self.headline]])

    @property
    def headline(self) -> str:
        """The figure that is also given by category."""
        return "ap_areas" if self._counted.over_areas else "ap"

    def _figures(self) -> list[str]:
        sizes = [f"ap_{area}" for area in AREA_RANGES if area != "all"]
        over_areas = ["ap_areas"] if self._counted.over_areas else []
        return ["ap", *over_areas, "ap50", "ap75", *sizes, "ar", "precision", "recall", "f1"]

    def _names(self) -> Sequence[FigureKey]:
        sizes = {f"ap_{area}": FigureKey("ap", size=area) for area in AREA_RANGES if area != "all"}
        overall = [sizes.get(name, FigureKey(name)) for name in self._figures()]
        groups = [FigureKey(f"ap_{name}") for name in self._counted.groups]
        return [*overall, *groups, *(FigureKey(self.headline, name) for name in self._counted.categories)]

    def _values(self, runs: Sequence[_Ranked], weights: Floats) -> dict[str, Floats]:
        categories = len(self._counted.categories)
        found = [values_of(run.outcomes, run.curves, categories, len(weights), weights) for run in runs]
        return {name: mean_over_runs([values[name] for values in found]) for name in found[0]}


def interleaved(first: RankedOutcomes, second: RankedOutcomes) -> RankedOutcomes:
    """Both runs' outcomes as one, with image i of the first as 2i and of the second as 2i + 1."""
    image = np.concatenate([2 * first.image, 2 * second.image + 1])
    category = np.concatenate([first.category, second.category])
    score = np.concatenate([first.score, second.score])
    rows = np.lexsort((image, -score, category))
    mask = np.concatenate([first.mask, second.mask + np.uint32(len(first.true))])
    return RankedOutcomes(
        question_image=np.concatenate([2 * first.question_image, 2 * second.question_image + 1]),
        question_category=np.concatenate([first.question_category, second.question_category]),
        truths=np.concatenate([first.truths, second.truths], axis=1),
        hits=np.concatenate([first.hits, second.hits]),
        extras=np.concatenate([first.extras, second.extras]),
        image=image[rows],
        category=category[rows],
        score=score[rows],
        mask=mask[rows],
        true=np.concatenate([first.true, second.true]),
        counted=np.concatenate([first.counted, second.counted]),
    )
