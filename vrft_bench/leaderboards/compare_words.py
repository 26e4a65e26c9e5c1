"""A comparison in words: what must be known before reading it, what can be concluded, and what cannot.

A difference counts as shown where its p-value is below 5 % and its interval leaves out 0; figures other than the
headline by their p-value corrected over the table. Where the two disagree it is on the edge, and said to be.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vrft_bench.harness.cli.results import heading
from vrft_bench.leaderboards.compare import Comparison, Pair, Row
from vrft_bench.leaderboards.compare_answers import FAILED, TOTAL
from vrft_bench.tasks.base import UNPARSABLE
from vrft_bench.tasks.metrics.detection import FEW_IMAGES
from vrft_bench.tasks.metrics.paired import Difference
from vrft_bench.tasks.metrics.significance import POWER, clusters_needed, detectable_difference

_LISTED = 6
_UNREAD = frozenset({status.value for status in UNPARSABLE} | {FAILED})
_FEW_UNREAD = 0.01
"""A smaller change in the share of answers that cannot be read is not worth a sentence."""
_MANY = 1_000_000
"""More images than this are not given as a number."""


def warnings(comparison: Comparison) -> list[str]:
    """What stands above everything else: why a difference may have another cause than the model."""
    found = [f"the runs differ in {line}" for line in comparison.differing]
    if found:
        found.append("a difference below may come from these rather than from the models")
    for run in comparison.runs:
        found += [f"{run.letter}: {problem}" for problem in run.row.problems]
        made, now = run.row.manifest.identity["task"]["version"], run.plan.task.version
        if made != now:
            found.append(f"{run.letter} was made under version {made} of the task, and is judged here by version {now}")
    found += [f"not compared: {line}" for line in comparison.shared.left_out]
    found += [
        f"{pair.run.letter} was rewarded by other rules or weights than A: rewards are not compared"
        for pair in comparison.pairs
        if not pair.same_rewards
    ]
    return found


def conclusions(comparison: Comparison) -> list[str]:
    """What can be concluded and what cannot, run by run."""
    level = comparison.how.level
    lines = [line for pair in comparison.pairs for line in _about(pair, comparison.images, level)]
    lines += _limits(comparison)
    return lines


def name_of(row: Row) -> str:
    """What people call a figure."""
    key = row.key
    named = heading(f"{key.figure}_{key.size}" if key.size and key.figure == "ap" else key.figure)
    if key.size and key.figure != "ap":
        named += f", {key.size} objects"
    return f"{named} of {key.category}" if key.category else named


def is_shown(difference: Difference, p_value: float | None, level: float) -> bool:
    """Whether chance can be ruled out: by the test where there is one, and by the interval."""
    return difference.is_clear and (p_value is None or p_value < 1 - level)


def _about(pair: Pair, images: int, level: float) -> list[str]:
    letter, headline = pair.run.letter, pair.headline
    lines = [_headline(letter, headline, pair.headline_p, images, level)]
    others = [row for row in pair.tables["figures"] if row.key != headline.key]
    for direction, better in (("higher", True), ("lower", False)):
        shown = [row for row in others if is_shown(row.difference, row.p_holm, level) and (_change(row) > 0) is better]
        if shown:
            lines.append(f"{letter} is {direction} in {_named(shown)}")
    for table, word in (("by_category", "categories"), ("by_size", "sizes")):
        rows = pair.tables[table]
        shown = [row for row in rows if is_shown(row.difference, row.p_holm, level)]
        if shown:
            said = [f"{row.key.category or row.key.size} {_change(row):+.3f}" for row in shown[:_LISTED]]
            more = f" and {len(shown) - _LISTED} more" if len(shown) > _LISTED else ""
            lines.append(f"of {len(rows)} {word}, {letter} differs from A in {', '.join(said)}{more}")
        elif len(rows) > 1:
            lines.append(f"in none of the {len(rows)} {word} can a difference between A and {letter} be shown alone")
    lines += _unreadable(pair)
    lines += _reward(pair, level)
    lines += _pass_at_k(pair, level)
    return lines


def _headline(letter: str, row: Row, p_value: float | None, images: int, level: float) -> str:
    found, figure = row.difference, name_of(row)
    if math.isnan(found.value):
        missing = "A" if math.isnan(found.before) else letter
        return f"{figure} is not defined for {missing} on the shared samples: nothing follows from it"
    if math.isnan(found.low):
        return f"{images} image is too few for an interval of {figure}" if images < 2 else (
            f"{figure} has no interval here: its difference of {found.value:+.3f} may be chance"
        )  # fmt: skip
    said = f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]" + _p_text(p_value)
    if found.value == 0 and found.standard_error == 0:
        return f"{letter} and A have the same {figure} on every resample: they answer alike as far as {figure} can tell"
    if is_shown(found, p_value, level):
        return f"{letter} is {'better' if found.value > 0 else 'worse'} than A in {figure}: {said}"
    if found.is_clear or (p_value is not None and p_value < 1 - level):
        return f"whether {letter} differs from A in {figure} is on the edge of what {images} images can show: {said}"
    return f"no difference between {letter} and A in {figure} can be shown: {said}{_power(found, images, level)}"


def _power(found: Difference, images: int, level: float) -> str:
    """How large a difference could have been found, and how many images one of this size would need."""
    error = found.standard_error
    if not error > 0:
        return ""
    least = detectable_difference(error, level)
    said = (
        f". With these {images} images a true difference of {least:.3f} would be found in {POWER:.0%} of the cases, "
        "and smaller ones less often"
    )
    needed = clusters_needed(found.clusters, error, found.value, level)
    if needed is None or needed > _MANY:
        return f"{said}; one as small as the one seen would need more images than are to be had"
    return f"{said}; one of {abs(found.value):.3f}, as seen, would need about {_rounded(needed):,} images"


def _rounded(count: int) -> int:
    """Two digits are all that a standard error allows."""
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return math.ceil(count / unit) * unit


def _unreadable(pair: Pair) -> list[str]:
    """Whether a run lost or won samples by answers that cannot be read, which says nothing about what it sees."""
    answers = [sum(count.answers[run] for count in pair.statuses.values()) for run in (0, 1)]
    unread = [sum(count.answers[run] for status, count in pair.statuses.items() if status in _UNREAD) for run in (0, 1)]
    shares = [part / max(whole, 1) for part, whole in zip(unread, answers, strict=True)]
    if abs(shares[1] - shares[0]) < _FEW_UNREAD:
        return []
    worse = shares[1] > shares[0]
    moved = [
        move.right_before if worse else move.right_after
        for (before, after), move in pair.moves.items()
        if (before in _UNREAD) is not worse and (after in _UNREAD) is worse
    ]
    letter = pair.run.letter
    return [
        f"{shares[1]:.1%} of the answers of {letter} cannot be read, and {shares[0]:.1%} of those of A: "
        f"{sum(moved)} right answers {'were lost' if worse else 'came'} with that"
    ]


def _reward(pair: Pair, level: float) -> list[str]:
    total = next((row for row in pair.tables["rewards"] if row.key == TOTAL), None)
    headline, letter = pair.headline, pair.run.letter
    if total is None or math.isnan(headline.difference.value):
        return []
    reward, metric = total.difference, headline.difference
    figure = name_of(headline)
    both = f"mean reward {reward.value:+.3f}, {figure} {metric.value:+.3f}"
    sure = is_shown(reward, total.difference.p_value, level) and is_shown(metric, pair.headline_p, level)
    if reward.value > 0 > metric.value:
        if sure:
            return [
                f"the reward rose and {figure} fell from A to {letter} ({both}): the reward pays for something else"
            ]
        return [
            f"the reward rose and {figure} fell from A to {letter} ({both}), but not both beyond chance: watch this"
        ]
    if reward.value < 0 < metric.value:
        word = "beyond chance" if sure else "though not both beyond chance"
        return [f"the reward fell while {figure} rose from A to {letter} ({both}), {word}"]
    return []


def _pass_at_k(pair: Pair, level: float) -> list[str]:
    rows = [row for row in pair.tables["pass_at_k"] if not math.isnan(row.difference.value)]
    if len(rows) < 2:
        return []
    once, most = rows[0], rows[-1]
    shown_once = is_shown(once.difference, once.p_holm, level)
    shown_most = is_shown(most.difference, most.p_holm, level)
    letter, k = pair.run.letter, most.key.figure
    if shown_once and _change(once) > 0 and shown_most and _change(most) < 0:
        return [f"{letter} is right more often at the first try and solves fewer samples in all ({k}): it became surer"]
    if shown_once and _change(once) > 0 and not shown_most:
        return [
            f"{letter} is right more often at the first try, and no gain in {k} can be shown: this may be more "
            "certainty about what A could already answer"
        ]
    if shown_most and _change(most) > 0:
        return [f"{letter} solves samples that A does not in as many tries ({k} {_change(most):+.3f})"]
    return []


def _limits(comparison: Comparison) -> list[str]:
    lines = []
    if 1 < comparison.images < FEW_IMAGES:
        lines.append(f"{comparison.images} images are few: intervals and p-values are rough")
    if comparison.baseline.row.is_sample:
        lines.append("these are runs on the sample data, drawn shapes: they say nothing about photographs")
    if any(run.row.partial for run in comparison.runs):
        lines.append("only a part of the data was asked for (--limit or --sample-id): it may not be like the rest")
    if len({run.completions for run in comparison.runs}) > 1:
        lines.append(
            "the runs have other numbers of answers to a sample: on how many samples one is more often right would "
            "differ between equal models too"
        )
    if len(comparison.runs) > 2:
        lines.append(f"the {len(comparison.runs) - 1} runs are compared with A, not with each other")
    lines.append(
        "the intervals are about other images of this kind. Another seed of training or sampling is not covered: "
        "that takes runs of its own"
    )
    return lines


def _change(row: Row) -> float:
    return row.difference.value


def _named(rows: Sequence[Row]) -> str:
    names = [name_of(row) for row in rows]
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _p_text(p_value: float | None) -> str:
    return "" if p_value is None else f", p = {p_value:.3f}" if p_value >= 0.001 else ", p < 0.001"
