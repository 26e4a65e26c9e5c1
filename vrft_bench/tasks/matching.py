"""Which predicted box stands for which true one: an exact one-to-one assignment.

Among pairs with IoU at or above a threshold, the assignment that maximises the sum of IoU is found exactly (Hungarian
method, Kuhn 1955, in the shortest-augmenting-path form). Above .5 conflicts are rare, so the common case is a lookup.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from typing import NamedTuple

from vrft_bench.tasks.boxes import iou
from vrft_bench.tasks.coordinates import Box


class Match(NamedTuple):
    """Prediction and truth that belong together, by index, and their IoU."""

    prediction: int
    truth: int
    iou: float


def match_boxes(predictions: Sequence[Box], truths: Sequence[Box], threshold: float = 0.5) -> list[Match]:
    """The one-to-one assignment of greatest total IoU among pairs with IoU >= ``threshold``.

    Returned in the order of the truths. Where equal boxes compete, the earlier prediction wins.
    """
    numbered = list(enumerate(predictions))
    pairs: list[Match] = []
    for j, truth in enumerate(truths):
        left, top, right, bottom = truth
        first = len(pairs)
        for i, box in numbered:
            # most pairs lie apart, and comparing in place costs less than calling iou
            if box[0] < right and box[2] > left and box[1] < bottom and box[3] > top:
                overlap = iou(box, truth)
                if overlap >= threshold and overlap > 0.0:
                    pairs.append(Match(i, j, overlap))
        # an optimal assignment of n truths exists among each one's n best predictions
        if len(pairs) - first > len(truths):
            pairs[first:] = nsmallest(len(truths), pairs[first:], key=lambda pair: (-pair.iou, pair.prediction))
    if len({i for i, _, _ in pairs}) == len(pairs) == len({j for _, j, _ in pairs}):
        return pairs
    return sorted(
        (match for component in _components(pairs) for match in _assign(component)), key=lambda match: match.truth
    )


def _components(pairs: list[Match]) -> list[list[Match]]:
    """Split pairs into groups that share no prediction and no truth."""
    root: dict[tuple[str, int], tuple[str, int]] = {}

    def find(node: tuple[str, int]) -> tuple[str, int]:
        while (parent := root.setdefault(node, node)) != node:
            root[node] = root.setdefault(parent, parent)
            node = parent
        return node

    for pair in pairs:
        root[find(("p", pair.prediction))] = find(("t", pair.truth))
    groups: dict[tuple[str, int], list[Match]] = {}
    for pair in pairs:
        groups.setdefault(find(("t", pair.truth)), []).append(pair)
    return list(groups.values())


def _assign(pairs: list[Match]) -> list[Match]:
    """Maximum-weight one-to-one assignment of one component; leaving a truth unassigned has weight 0."""
    if len(pairs) == 1:
        return pairs
    rows = sorted({pair.truth for pair in pairs})
    columns = sorted({pair.prediction for pair in pairs})
    weight = {(pair.truth, pair.prediction): pair.iou for pair in pairs}
    # one spare column per truth stands for "unassigned"
    cost = [[-weight.get((row, column), 0.0) for column in columns] + [0.0] * len(rows) for row in rows]
    chosen = _hungarian(cost)
    return [
        Match(columns[column], row, weight[row, columns[column]])
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
