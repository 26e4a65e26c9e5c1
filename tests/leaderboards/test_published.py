from __future__ import annotations

from collections import Counter

from vrft_bench.leaderboards.layouts import paper_layouts
from vrft_bench.leaderboards.published import published_rows, rows_of


def test_all_396_published_figures_are_there_with_their_tables() -> None:
    counts: Counter[str] = Counter()
    for row in published_rows():
        counts[row.table] += len(row.values)
    assert counts == {"T2": 55, "T3": 126, "T4": 42, "T5": 30, "T6": 27, "T7": 18, "T8": 98}
    assert counts.total() == 396
    assert {row.source for row in published_rows()} == {"Visual-RFT, arXiv 2503.01785v1"}


def test_every_published_figure_has_a_column() -> None:
    for layout in paper_layouts():
        shown = {column.published for column in layout.columns}
        assert {key for row in rows_of(layout.table) for key in row.values} == shown, layout.table


def test_figures_stand_where_the_paper_prints_them() -> None:
    row = next(row for row in rows_of("T3") if (row.model, row.method, row.shots) == ("Qwen2-VL-7B", "rft", 4))
    assert row.values["coco_fewshot", "mAP", "mean"] == 54.3
    assert row.values["coco_fewshot", "mAP", "cat"] == 72.7
    grounding = next(row for row in rows_of("T6") if (row.model, row.method) == ("Qwen2-VL-2B", "rft"))
    assert grounding.shots == 239
    assert next(row for row in rows_of("T7") if row.method == "rft").shots is None


def test_the_papers_own_means_that_do_not_fit_their_cells_are_noted() -> None:
    """Every printed mean is that of its printed cells to a tenth, or has a note that says otherwise."""
    unlike = []
    for layout in paper_layouts():
        for row in rows_of(layout.table):
            means = [key for key in row.values if key[2] == "mean"]
            cells = [value for key, value in row.values.items() if key[2] not in ("mean", "base65", "novel15", "all80")]
            if means and abs(row.values[means[0]] - sum(cells) / len(cells)) > 0.1001:
                unlike.append((layout.table, row.model, row.method, means[0] in row.notes))
    assert unlike == [("T4", "Qwen2-VL-7B", "rft", True), ("T8", "Qwen2-VL-2B", "rft", True)]
