"""Which predicted box stands for which true one: an exact one-to-one assignment.

Among pairs with IoU at or above a threshold, the assignment that maximises the sum of IoU is found exactly (Hungarian
method, Kuhn 1955, in the shortest-augmenting-path form). Above .5 conflicts are rare, so the common case is a lookup.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from operator import itemgetter

from vrft_bench.tasks.coordinates import Box

Match = tuple[int, int, float]
"""(prediction, truth, IoU): the indices of two boxes that belong together. A plain tuple, as a hot loop makes them."""


def match_boxes(predictions: Sequence[Box], truths: Sequence[Box], threshold: float = 0.5) -> list[Match]:
    """The one-to-one assignment of greatest total IoU among pairs with IoU >= ``threshold``.

    Returned in the order of the truths. Where equal boxes compete, the earlier prediction wins.
    """
    pairs = overlapping_pairs(predictions, truths, threshold)
    return pairs if are_one_to_one(pairs) else assign_pairs(pairs)


def overlapping_pairs(predictions: Sequence[Box], truths: Sequence[Box], threshold: float = 0.5) -> list[Match]:
    """Pairs with IoU >= ``threshold`` (and above 0), in the order of the truths: all that an assignment may need.

    An optimal assignment of n truths exists among each one's n best predictions, so where more lie on one, it keeps its
    n + 1 best (one too many, to show that they compete).
    """
    pairs: list[Match] = []
    for j, (left, top, right, bottom) in enumerate(truths):
        first, size = len(pairs), (right - left) * (bottom - top)
        for i, (x1, y1, x2, y2) in enumerate(predictions):
            # iou() written out: most pairs lie apart, and a call for each would double the cost of a reward
            if x1 < right and x2 > left and y1 < bottom and y2 > top:
                width = (x2 if x2 < right else right) - (x1 if x1 > left else left)
                height = (y2 if y2 < bottom else bottom) - (y1 if y1 > top else top)
                if width > 0.0 and height > 0.0:
                    shared = width * height
                    union = (x2 - x1) * (y2 - y1) + size - shared
                    overlap = shared / union if union > 0.0 else 0.0
                    if overlap >= threshold and overlap > 0.0:
                        pairs.append((i, j, overlap))
        if len(pairs) - first > len(truths) + 1:
            pairs[first:] = nsmallest(len(truths) + 1, pairs[first:], key=_best_first)
    return pairs


def are_one_to_one(pairs: list[Match]) -> bool:
    """Whether no prediction and no truth stands in two of ``pairs``, so that these are their own best assignment."""
    return len({i for i, _, _ in pairs}) == len(pairs) == len({j for _, j, _ in pairs})


def assign_pairs(pairs: list[Match]) -> list[Match]:
    """Those of ``pairs`` that make the one-to-one assignment of greatest total IoU, in the order of the truths."""
    return sorted((match for component in _components(pairs) for match in _assign(component)), key=itemgetter(1))


def _best_first(pair: Match) -> tuple[float, int]:
    prediction, _, overlap = pair
    return -overlap, prediction


def _components(pairs: list[Match]) -> list[list[Match]]:
    """Split pairs into groups that share no prediction and no truth."""
    root: dict[tuple[str, int], tuple[str, int]] = {}

    def find(node: tuple[str, int]) -> tuple[str, int]:
        while (parent := root.setdefault(node, node)) != node:
            root[node] = root.setdefault(parent, parent)
            node = parent
        return node

    for prediction, truth, _ in pairs:
        root[find(("p", prediction))] = find(("t", truth))
    groups: dict[tuple[str, int], list[Match]] = {}
    for pair in pairs:
        groups.setdefault(find(("t", pair[1])), []).append(pair)
    return list(groups.values())


def _assign(pairs: list[Match]) -> list[Match]:
    """Maximum-weight one-to-one assignment of one component; leaving a truth unassigned has weight 0."""
    if len(pairs) == 1:
        return pairs
    weight = {(truth, prediction): overlap for prediction, truth, overlap in pairs}
    rows = sorted({truth for truth, _ in weight})
    columns = sorted({prediction for _, prediction in weight})
    # one spare column per truth stands for "unassigned"
    cost = [[-weight.get((row, column), 0.0) for column in columns] + [0.0] * len(rows) for row in rows]
    chosen = _hungarian(cost)
    return [
        (columns[column], row, weight[row, columns[column]])
        for row, column in zip(rows, chosen, strict=True)
        if column < len(columns) and (row, columns[column]) in weight
    ]


def _hungarian(cost: list[list[float]]) -> list[int]:
    """The column of each row in a minimum-cost assignment of all rows, of which there are no more than columns."""
    n, m = len(cost), len(cost[0])
    infinity = float("inf")
    row_potential, column_potential = [0.0] * (n + 1), [0.0] * (m + 1)
    owner = [0] * (m + 1)  # owner[j]: the row assigned to column j, both 1-based; 0 is none
    for row in range(1, n + 1):
        owner[0] = row
        least, previous, used = [infinity] * (m + 1), [0] * (m + 1), [False] * (m + 1)
        column = 0
        while True:
            used[column] = True
            current, delta, following = owner[column], infinity, 0
            for j in range(1, m + 1):
                if used[j]:
                    continue
                reduced = cost[current - 1][j - 1] - row_potential[current] - column_potential[j]
                if reduced < least[j]:
                    least[j], previous[j] = reduced, column
                if least[j] < delta:
                    delta, following = least[j], j
            for j in range(m + 1):
                if used[j]:
                    row_potential[owner[j]] += delta
                    column_potential[j] -= delta
                else:
                    least[j] -= delta
            column = following
            if owner[column] == 0:
                break
        while column:
            owner[column] = owner[previous[column]]
            column = previous[column]
    assigned = [0] * n
    for j in range(1, m + 1):
        if owner[j]:
            assigned[owner[j] - 1] = j - 1
    return assigned
