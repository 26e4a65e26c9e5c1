"""The compact columns: what they keep, how they widen, and that working in batches changes no figure."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from vrft_bench.tasks.metrics import outcome_table
from vrft_bench.tasks.metrics.outcome_table import ImageIds, OutcomeTable, category_batches, image_order
from vrft_bench.tasks.metrics.outcomes import Outcome

RIGHT = Outcome([1.0], [1], [1], (1, 0, 0, 1), 1, 0, 0)


def _close(figure, expected):
    for ours, theirs in zip(figure.to_json().values(), expected.to_json().values(), strict=True):
        assert ours == (theirs if theirs is None else pytest.approx(theirs, abs=1e-12))


@pytest.mark.parametrize("options", [{"confidences": 2}, {"lvis": True}, {"lvis": True, "many": 320}], ids=str)
def test_a_category_at_a_time_gives_the_same_report(options, random_world, monkeypatch):
    world = random_world(1, images=8, **options)
    expected = world.metric().compute()
    monkeypatch.setattr(outcome_table, "_BATCH", 1)
    report = world.metric().compute()
    assert report.notes == expected.notes
    assert report.figures.keys() == expected.figures.keys()
    for name, figure in report.figures.items():
        _close(figure, expected.figures[name])
    for name, row in report.by_category.items():
        _close(row["ap"], expected.by_category[name]["ap"])


def test_batches_are_neighbours_and_hold_every_category_once(monkeypatch):
    table = OutcomeTable(ImageIds())
    for category, count in enumerate((2, 1, 0, 5, 1)):
        for image in range(count):
            table.add(str(image), category, RIGHT)
    monkeypatch.setattr(outcome_table, "_BATCH", 6)
    assert category_batches([table], 6) == [range(3), range(3, 4), range(4, 6)]
    assert category_batches([], 2) == [range(2)]


def test_what_was_added_comes_back_with_large_image_ids_and_more_codes_than_16_bits():
    table = OutcomeTable(images := ImageIds())
    ids = ["1", "9" * 18, *map(str, range(2, 70_000))]
    for number, image_id in enumerate(ids):
        table.add(image_id, 0, _numbered(number))
    order = image_order(images, [table])
    assert order[-1] == int("9" * 18)
    ranked = table.ranked(order)
    expected = np.array(sorted(range(len(ids)), key=lambda number: int(ids[number])))
    assert (ranked.true[ranked.mask] == expected).all()
    assert (ranked.counted[ranked.mask] == expected + 1).all()
    assert (np.sort(ranked.extras) == np.arange(len(ids))).all()
    assert (ranked.score == 0.5).all()


def _numbered(number: int) -> Outcome:
    return RIGHT._replace(scores=[0.5], true=[number], counted=[number + 1], extras=number)


def test_detections_beyond_the_limit_of_an_image_are_found_over_all_categories():
    table = OutcomeTable(images := ImageIds())
    for category, scores in enumerate(([0.9, 0.5], [0.5, 0.5], [0.7])):
        ones = [1] * len(scores)
        table.add("7", category, Outcome(scores, ones, ones, (1, 0, 0, 1), 1, 0, 0))
    table.add("8", 1, RIGHT)
    order, batches = image_order(images, [table]), [range(1), range(1, 2), range(2, 3)]
    places = table.beyond_limit(order, batches, 3)
    # Category 1 is ranked as image 8 (score 1), then the two boxes of image 7, neither of which is left.
    assert [item.tolist() for item in places] == [[], [1, 2], []]
    assert table.ranked(order, batches[1], places[1]).image.tolist() == [1]
    assert table.beyond_limit(order, batches, 5) == [None] * 3


def test_a_question_with_a_box_is_kept_in_less_than_20_bytes():
    table = OutcomeTable(ImageIds())
    table.add("0", 0, RIGHT)
    tracemalloc.start()
    for image in range(20_000):
        table.add(str(image), 0, RIGHT)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept / 20_000 < 20
