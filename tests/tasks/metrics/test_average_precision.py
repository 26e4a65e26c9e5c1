"""AP agrees with pycocotools and lvis-api, figure for figure, on random worlds full of ties and odd cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vrft_bench.tasks.metrics import average_precision
from vrft_bench.tasks.metrics.average_precision import RECALL_LEVELS, _levels_reached

WORLDS = {
    "ties": {},
    "no confidences": {"confidences": 0},
    "real coordinates": {"grid": None, "confidences": 1000},
    "crowds": {"crowds": True},
    "crowds and ties": {"crowds": True, "confidences": 2, "grid": 16.0},
    "more boxes than are kept": {"many": 130, "crowds": True, "images": 6},
    "one image": {"images": 1},
}
CLOSE = 1e-9


def _mean(values):
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else None


def _equal(figure, expected):
    if expected is None:
        assert figure is None
    else:
        assert figure == pytest.approx(expected, abs=CLOSE)


@pytest.mark.parametrize("options", WORLDS.values(), ids=WORLDS.keys())
@pytest.mark.parametrize("seed", range(4))
def test_every_coco_figure_equals_pycocotools(options, seed, random_world, coco_eval, monkeypatch):
    world = random_world(seed, **options)
    if seed % 2:
        monkeypatch.setattr(average_precision, "_SMALL", -1)
    report = world.metric().compute()
    evaluation = coco_eval(world)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    figures = {name: figure.value for name, figure in report.figures.items()}

    _equal(figures["ap"], _mean(precision[:, :, :, 0, -1]))
    _equal(figures["ap50"], _mean(precision[0, :, :, 0, -1]))
    _equal(figures["ap75"], _mean(precision[5, :, :, 0, -1]))
    for number, name in enumerate(("small", "medium", "large"), 1):
        _equal(figures[f"ap_{name}"], _mean(precision[:, :, :, number, -1]))
    _equal(figures["ar"], _mean(recall[:, :, 0, -1]))
    for number, name in enumerate(world.categories):
        _equal(report.by_category[name]["ap"].value, _mean(precision[:, :, number, 0, -1]))
        _equal(report.by_category[name]["ap50"].value, _mean(precision[0, :, number, 0, -1]))


@pytest.mark.parametrize("options", [{}, {"confidences": 0}, {"many": 320, "images": 5}, {"grid": None}], ids=str)
@pytest.mark.parametrize("seed", range(4))
def test_every_lvis_figure_equals_lvis_api(options, seed, random_world, lvis_eval):
    world = random_world(seed, lvis=True, **options)
    report = world.metric().compute()
    results = lvis_eval(world).results
    names = {"ap": "AP", "ap50": "AP50", "ap75": "AP75", "ap_small": "APs", "ap_medium": "APm", "ap_large": "APl"}
    names |= {"ap_r": "APr", "ap_c": "APc", "ap_f": "APf", "ar": "AR@300"}
    for ours, theirs in names.items():
        _equal(report.figures[ours].value, results[theirs] if results[theirs] > -1 else None)


def test_unverified_pairs_would_matter_if_they_counted(random_world):
    """Otherwise the comparison with lvis-api could not tell whether they are left out."""
    from dataclasses import replace

    world = random_world(0, lvis=True)
    ap = world.metric().compute().figures["ap"].value
    world.targets = {key: replace(target, verified=True, exhaustive=True) for key, target in world.targets.items()}
    assert world.metric().compute().figures["ap"].value < ap - 0.001


@pytest.mark.parametrize("confidences", [0, 2])
def test_tie_interval_holds_pycocotools_over_permuted_image_ids(confidences, random_world, coco_eval):
    world = random_world(3, confidences=confidences)
    figures = world.metric().compute().figures
    rng = np.random.default_rng(0)
    values = []
    for _ in range(40):
        number = dict(zip(world.images, rng.permutation(len(world.images)).tolist(), strict=True))
        values.append(_mean(coco_eval(world, number.get).eval["precision"][:, :, :, 0, -1]))
    assert figures["ap_tie_min"].value < figures["ap"].value < figures["ap_tie_max"].value
    spread = figures["ap_tie_max"].value - figures["ap_tie_min"].value
    assert figures["ap_tie_mean"].value == pytest.approx(np.mean(values), abs=spread / 4)
    assert figures["ap_tie_min"].value == pytest.approx(min(values), abs=spread / 2)
    assert figures["ap_tie_max"].value == pytest.approx(max(values), abs=spread / 2)


def test_levels_reached_is_searchsorted_on_every_fraction():
    fractions = np.array([k / n for n in range(1, 230) for k in range(n + 1)])
    expected = np.searchsorted(RECALL_LEVELS, fractions, side="right")
    assert (_levels_reached(fractions) == expected).all()


def _real_world(root, random_world):
    """The validation images of tinycoco with jittered, missed and invented boxes."""
    import json

    from vrft_bench.tasks.base import BoxTarget, Detection

    world = random_world(0)
    data = json.loads((root / "annotations" / "instances_train2017.json").read_text())
    names = {item["id"]: item["name"] for item in data["categories"]}
    rng = np.random.default_rng(0)
    objects = {}
    for item in data["annotations"]:
        x, y, w, h = item["bbox"]
        row = ((x, y, x + w, y + h), item["area"], item["iscrowd"])
        objects.setdefault((item["image_id"], names[item["category_id"]]), []).append(row)
    world.categories = tuple(sorted({name for _, name in objects}))
    world.targets, world.answers = {}, {}
    for key, rows in objects.items():
        plain, crowd = [row for row in rows if not row[2]], [row for row in rows if row[2]]
        world.targets[key] = BoxTarget(
            tuple(row[0] for row in plain),
            tuple(row[1] for row in plain),
            tuple(row[0] for row in crowd),
            tuple(row[1] for row in crowd),
        )
        world.answers[key] = tuple(
            Detection(tuple((np.array(row[0]) + rng.normal(0, 6, 4)).tolist()), round(rng.uniform(), 1))
            for row in rows
            if rng.random() < 0.9
        )
    return world


def test_real_annotations_with_jittered_boxes_score_as_pycocotools_says(random_world, coco_eval):
    root = Path(__file__).parents[3] / ".." / "shared" / "data" / "tinycoco"
    if not root.is_dir():
        pytest.skip("../shared/data/tinycoco is not there")
    world = _real_world(root, random_world)
    world.answers = {
        key: tuple(item for item in found if item.box[0] < item.box[2] and item.box[1] < item.box[3])
        for key, found in world.answers.items()
    }
    figures = world.metric().compute().figures
    precision = coco_eval(world).eval["precision"]
    assert 0.2 < figures["ap"].value < 0.9
    _equal(figures["ap"].value, _mean(precision[:, :, :, 0, -1]))
    for number, name in enumerate(("small", "medium", "large"), 1):
        _equal(figures[f"ap_{name}"].value, _mean(precision[:, :, :, number, -1]))
