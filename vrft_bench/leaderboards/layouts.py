"""Which columns a table has: those of the paper's tables 2-8; for any other task its headline and its categories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vrft_bench.leaderboards.comparability import Conditions
from vrft_bench.registry import TASK_GROUPS
from vrft_bench.tasks.base import MetricReport
from vrft_bench.tasks.catalog.coco_fewshot import CATEGORIES as COCO_8
from vrft_bench.tasks.catalog.lvis_fewshot import CATEGORIES as LVIS_6
from vrft_bench.tasks.catalog.lvis_ovd import CATEGORIES as LVIS_13

MOST_CATEGORIES = 20
"""A task with more categories than this gets no column for each."""
MEAN = "mean of columns"
MASKS = "masks"
"""Figures that are no task's own: a mean over columns, and the gIoU that a segmenter's masks give (see `diagnose`)."""
_HEADINGS = {"ap": "AP", "ap_areas": "AP over areas", "miou": "mIoU", "giou": "gIoU"}


@dataclass(frozen=True, slots=True)
class TableColumn:
    """One column. ``figure`` is a name in a report's figures, empty for the headline; ``category`` a row of it.

    ``split`` limits the column to runs of that split. ``published`` is the key of the paper's value, as
    ``(task, metric, category)``.
    """

    heading: str
    task: str
    figure: str = ""
    category: str = ""
    split: str | None = None
    published: tuple[str, str, str] | None = None

    @property
    def slot(self) -> tuple[str, str | None]:
        """Columns of one slot are filled by the same runs."""
        return self.task, self.split


@dataclass(frozen=True, slots=True)
class Layout:
    """The columns of one table. ``table`` is its number in the paper, empty for one that the paper does not have."""

    name: str
    title: str
    columns: tuple[TableColumn, ...]
    table: str = ""
    shots_heading: str = "shots"

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks whose runs can stand here."""
        return tuple(dict.fromkeys(column.task for column in self.columns if column.task))


def paper_layouts() -> tuple[Layout, ...]:
    """Tables 2-8 as the paper lays them out. No task of ours has the data of table 5, which were not released."""
    names = {"flower102": "Flower102", "pets37": "Pets37", "fgvc_aircraft": "FGVC-Aircraft", "cars196": "Cars196"}
    classification = [
        TableColumn(heading, f"{name}_fewshot", published=(f"{name}_fewshot", "accuracy", "all"))
        for name, heading in names.items()
    ]
    average = TableColumn("average", "", MEAN, published=("fewshot_classification", "accuracy", "mean"))
    monsters = ("bird", "feline-or-canid", "serpent", "slime", "wyvern")
    grounding = [
        TableColumn(
            f"{figure} {split}", "lisa_grounding", own, "", split, ("lisa_grounding", f"{figure}_{split}", "all")
        )
        for figure, own, split in (("mIoU", "", "test"), ("mIoU", "", "val"), ("gIoU", MASKS, "test"))
    ]
    ovd = [
        TableColumn(heading, "coco_ovd", figure, published=("coco_ovd", "mAP", category))
        for heading, figure, category in (
            ("mAP novel", "ap_novel", "novel15"),
            ("mAP base", "ap_base", "base65"),
            ("mAP all", "", "all80"),
        )
    ]
    return (
        Layout("fewshot_classification", "few-shot classification, accuracy", (average, *classification), "T2"),
        Layout("coco_fewshot", "few-shot detection, 8 COCO categories, AP", _detection("coco_fewshot", COCO_8), "T3"),
        Layout(
            "lvis_fewshot", "few-shot detection, 6 rare LVIS categories, AP", _detection("lvis_fewshot", LVIS_6), "T4"
        ),
        Layout(
            "monster_girls",
            "few-shot detection, Monster Girls, AP",
            _detection("monster_girls_fewshot", monsters),
            "T5",
        ),
        Layout("lisa_grounding", "reasoning grounding, ReasonSeg", tuple(grounding), "T6", "training images"),
        Layout("coco_ovd", "open-vocabulary detection, COCO", tuple(ovd), "T7"),
        Layout(
            "lvis_ovd", "open-vocabulary detection, 13 rare LVIS categories, AP", _detection("lvis_ovd", LVIS_13), "T8"
        ),
    )


def own_layout(task: str, reports: Iterable[MetricReport]) -> Layout:
    """A table for any task, from what its runs report: the headline, and a column per category where they are few."""
    headings: dict[str, None] = {}
    categories: dict[str, None] = {}
    for report in reports:
        headings[heading_of(report.headline)] = None
        categories.update(dict.fromkeys(name for name, row in report.by_category.items() if report.headline in row))
    first = TableColumn(" / ".join(headings) or "figure", task)
    shown = categories if len(categories) <= MOST_CATEGORIES else {}
    return Layout(task, task, (first, *(TableColumn(name, task, category=name) for name in shown)))


def fitted(layout: Layout, kind: str, reports: Iterable[MetricReport]) -> Layout:
    """``layout`` for runs on data of ``kind``: the sample data have other categories than the benchmark."""
    if kind == "sample" and any(column.category for column in layout.columns):
        family = layout.title.split(",")[0]
        named = family if family == layout.name else f"{family}, {layout.name}"
        return replace(own_layout(layout.name, reports), title=named)
    return layout


def published_conditions(column: TableColumn) -> Conditions:
    """What is known of how the paper's value in ``column`` was measured."""
    tokens = 128 if column.task == "lisa_grounding" else 1024
    parts = {"protocol": "paper", "sampling": f"greedy, at most {tokens} tokens"}
    if column.task in _MAPS:
        parts["ask"] = "file:"
    if column.task in _SPLITS:
        parts["split"] = column.split or "val"
    return Conditions(column.task, "real", parts, _SAMPLES.get((column.task, column.split), ()))


def heading_of(figure: str) -> str:
    """A figure's name for people."""
    return _HEADINGS.get(figure, figure.replace("_", " "))


def _detection(task: str, categories: tuple[str, ...]) -> tuple[TableColumn, ...]:
    each = (TableColumn(name, task, category=name, published=(task, "mAP", name)) for name in categories)
    return (TableColumn("mAP", task, published=(task, "mAP", "mean")), *each)


_MAPS = frozenset((*TASK_GROUPS["fewshot_detection"], *TASK_GROUPS["ovd"]))
"""Tasks of which the paper asked what a map of its own said."""
_SPLITS = frozenset(TASK_GROUPS["visual_rft"])
_SAMPLES: dict[tuple[str, str | None], tuple[int, ...]] = {
    ("flower102_fewshot", None): (2463,),
    ("pets37_fewshot", None): (3669,),
    ("fgvc_aircraft_fewshot", None): (3333,),
    ("cars196_fewshot", None): (8041,),
    ("lisa_grounding", "val"): (200,),
    ("lisa_grounding", "test"): (779,),
    ("coco_fewshot", None): (1_608, 1_299),
    ("lvis_fewshot", None): (6_926, 2_611),
    ("coco_ovd", None): (25_067, 17_002),
    ("lvis_ovd", None): (14_506, 5_381),
}
"""Questions behind a published value: the lists that the paper's code reads, and what its maps ask of a 2B and a 7B."""
