"""What the embedded sample images show: coloured shapes on a 3x3 grid, decided before any pixel is drawn.

A scene is decided by its kind, split and index alone (``random.Random`` seeded with them), so it is the same on every
machine. Every object covers whole 28-pixel cells, the unit that a Qwen2-VL encoder merges into one visual token; that
is what lets a tiny model learn from these images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random

GRID = 3
CELL = 28
SIDE = GRID * CELL

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "red": (215, 40, 40),
    "green": (40, 170, 60),
    "blue": (45, 85, 225),
    "yellow": (240, 215, 45),
    "purple": (150, 45, 185),
}
SHAPES = ("circle", "square", "triangle", "cross")
CATEGORIES = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)

LVIS_FREQUENT_3 = ("red_square", "blue_circle", "yellow_triangle")
LVIS_COMMON_4 = ("green_circle", "green_cross", "purple_square", "purple_triangle")
LVIS_RARE_13 = tuple(
    name
    for name in (category.replace(" ", "_") for category in CATEGORIES)
    if name not in LVIS_FREQUENT_3 + LVIS_COMMON_4
)
CLASSES_8 = tuple(f"{colour} {shape}" for colour in ("red", "blue") for shape in SHAPES)

COUNTS = {
    "coco": {"train": 4000, "val": 300},
    "lvis": {"train": 1000, "val": 200},
    "reasonseg": {"train": 1000, "val": 200, "test": 200},
    "classes": {"train": 1000, "val": 240},
}
"""Images per kind and split."""

_SMALL = ((1, 1), (2, 1), (1, 2), (2, 2))
_LARGE = ((2, 2), (3, 2), (2, 3), (3, 3))
_TINT = 14
"""How far a channel of an object's colour strays from its category's; the five colours lie at least 100 apart."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One object: its category, its own tint of the colour, and the cells that it covers (from the top left, 0-2)."""

    category: str
    tint: Colour
    column: int
    row: int
    columns: int
    rows: int

    @property
    def colour(self) -> str:
        return self.category.split()[0]

    @property
    def shape(self) -> str:
        return self.category.split()[1]

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(x1, y1, x2, y2) in pixels; exact, since every shape touches all four sides of its cells."""
        return (
            self.column * CELL,
            self.row * CELL,
            (self.column + self.columns) * CELL,
            (self.row + self.rows) * CELL,
        )

    def covers(self, column: int, row: int) -> bool:
        return self.column <= column < self.column + self.columns and self.row <= row < self.row + self.rows


@dataclass(frozen=True, slots=True)
class Scene:
    """The things of an image, and a background that runs from one muted colour to another along ``direction``."""

    things: tuple[Thing, ...]
    background: tuple[Colour, Colour]
    direction: tuple[int, int]


def coco_scene(split: str, index: int) -> Scene:
    """One to four objects of any category."""
    rng = Random(f"coco/{split}/{index}")
    return _compose(rng, _any_categories(rng), _SMALL)


def lvis_scene(split: str, index: int) -> Scene:
    """One to four objects; in ``train`` the categories follow LVIS's long tail, elsewhere they are evenly spread."""
    rng = Random(f"lvis/{split}/{index}")
    if split != "train":
        return _compose(rng, _any_categories(rng), _SMALL)
    names = list(_lvis_train_plan()[index])
    fill = max(1, rng.randint(1, 4) - len(names)) if len(names) < 4 else 0
    names += [rng.choice(LVIS_FREQUENT_3).replace("_", " ") for _ in range(fill)]
    return _compose(rng, names, _SMALL)


def reasonseg_scene(split: str, index: int, attempt: int = 0) -> Scene:
    """Mostly two to four objects. ``attempt`` gives further scenes, where nothing can be asked of the first."""
    rng = Random(f"reasonseg/{split}/{index}/{attempt}")
    return _compose(rng, _any_categories(rng, fewest=2), _SMALL)


def class_scene(split: str, index: int) -> Scene:
    """One large object; the classes take turns, so each has the same number of images."""
    rng = Random(f"classes/{split}/{index}")
    return _compose(rng, [CLASSES_8[index % len(CLASSES_8)]], _LARGE)


def _any_categories(rng: Random, fewest: int = 1) -> list[str]:
    """Names drawn evenly; one image in five repeats a name."""
    names = [rng.choice(CATEGORIES) for _ in range(rng.randint(fewest, 4))]
    if len(names) > 1 and rng.random() < 0.2:
        names[1] = names[0]
    return names


@lru_cache(maxsize=1)
def _lvis_train_plan() -> tuple[tuple[str, ...], ...]:
    """The rare and common categories of each training image.

    LVIS calls a category rare when 1-10 training images show it, common when 11-100 do. A plan for the whole split is
    the only way to keep those counts exactly.
    """
    rng = Random("lvis/train")
    plan: list[list[str]] = [[] for _ in range(COUNTS["lvis"]["train"])]
    wanted = [(name, rng.randint(5, 10)) for name in LVIS_RARE_13] + [
        (name, rng.randint(40, 100)) for name in LVIS_COMMON_4
    ]
    for name, images in wanted:
        open_images = [index for index, names in enumerate(plan) if len(names) < 3]
        rng.shuffle(open_images)
        for index in open_images[:images]:
            plan[index].append(name.replace("_", " "))
    return tuple(tuple(names) for names in plan)


def _compose(rng: Random, categories: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Scene:
    """Place one object per name, none overlapping; at most four small objects never fill the grid.

    Two objects of one category never share an edge, since nobody could see where one ends and the other begins; the
    second is left out where there is no such place.
    """
    free = {(column, row) for column in range(GRID) for row in range(GRID)}
    things: list[Thing] = []
    for category in categories:
        alike = [thing for thing in things if thing.category == category]
        columns, rows = rng.choice(sizes)
        spots = _spots(free, columns, rows, alike)
        if not spots:
            columns = rows = 1
            spots = _spots(free, 1, 1, alike)
        if not spots:
            continue
        column, row = rng.choice(spots)
        free -= {(column + x, row + y) for x in range(columns) for y in range(rows)}
        red, green, blue = COLOURS[category.split()[0]]
        tint = (_stray(rng, red), _stray(rng, green), _stray(rng, blue))
        things.append(Thing(category, tint, column, row, columns, rows))
    background = (_muted(rng), _muted(rng))
    return Scene(tuple(things), background, (rng.randint(-8, 8), rng.randint(1, 8)))


def _spots(free: set[tuple[int, int]], columns: int, rows: int, apart_from: Sequence[Thing]) -> list[tuple[int, int]]:
    """Top left cells where an object of this size fits and shares no edge with any of ``apart_from``."""
    spots = []
    for row in range(GRID - rows + 1):
        for column in range(GRID - columns + 1):
            cells = [(column + x, row + y) for x in range(columns) for y in range(rows)]
            beside = [(x + dx, y + dy) for x, y in cells for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1))]
            if free.issuperset(cells) and not any(thing.covers(*cell) for thing in apart_from for cell in beside):
                spots.append((column, row))
    return spots


def _stray(rng: Random, channel: int) -> int:
    return min(max(channel + rng.randint(-_TINT, _TINT), 0), 255)


def _muted(rng: Random) -> Colour:
    """A greyish colour: far from every object colour in saturation, 10 million of them in all."""
    grey = rng.randint(60, 200)
    return (grey + rng.randint(-20, 20), grey + rng.randint(-20, 20), grey + rng.randint(-20, 20))
