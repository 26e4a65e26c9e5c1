"""Tricks on classification: constants that match many class names, lists of all names, look-alikes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from vrft_bench.tasks.audit.tricks import Trick, answer, common_tricks, constant
from vrft_bench.tasks.base import ClassTarget, Sample
from vrft_bench.tasks.classification import ClassificationTask
from vrft_bench.tasks.coordinates import Frame

LONGEST_CONSTANT = 4
_LOOK_ALIKES = str.maketrans("aceopxyiAEOPC", "асеорхуіАЕОРС")  # Cyrillic


def classification_tricks(task: ClassificationTask, samples: Sequence[Sample]) -> list[Trick]:
    """Every trick on ``task``, the constants searched over the labels of ``samples``."""
    truths = Counter(_label(sample) for sample in samples)
    names = sorted(truths)
    options = samples[0].fields.get("options", ", ".join(names))
    tricks = common_tricks(task)
    tricks.append(constant("every class listed", "lists", answer(options)))
    tricks.append(constant("every class joined", "lists", answer("".join(names))))
    tricks.append(constant("every class, no tags", "lists", " ".join(names)))
    tricks.append(constant("the question's subject", "constants", answer(task.subject)))
    tricks += [
        constant(f"the class {label!r}", "the most common class", answer(label)) for label, _ in truths.most_common(1)
    ]
    for length in range(1, LONGEST_CONSTANT + 1):
        tricks += [
            constant(f"the constant {text!r}", f"constants of {length}", answer(text))
            for text in most_profitable(truths, length)
        ]
    tricks += [
        constant(f"the word {word!r}", "words of class names", answer(word)) for word in most_profitable_words(truths)
    ]
    tricks += [
        _spoilt("unicode look-alikes", lambda label: label.translate(_LOOK_ALIKES)),
        _spoilt("a class with its first letter gone", lambda label: label[1:]),
        _spoilt("a class with more after it", lambda label: f"{label} or something else"),
    ]
    return tricks


def most_profitable(truths: Counter[str], length: int, keep: int = 3) -> list[str]:
    """The ``keep`` strings of ``length`` characters that occur in the names of the most samples.

    Names are taken as the paper's rule compares them: lower case, without spaces and underscores.
    """
    found: Counter[str] = Counter()
    for label, count in truths.items():
        bare = label.replace(" ", "").replace("_", "").lower()
        for text in {bare[start : start + length] for start in range(len(bare) - length + 1)}:
            found[text] += count
    return _top(found, keep)


def most_profitable_words(truths: Counter[str], keep: int = 3) -> list[str]:
    """The ``keep`` whole words that occur in the names of the most samples."""
    found: Counter[str] = Counter()
    for label, count in truths.items():
        for word in set(label.replace("_", " ").lower().split()):
            found[word] += count
    return _top(found, keep)


def _top(found: Counter[str], keep: int) -> list[str]:
    return [text for text, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:keep]]


def _spoilt(name: str, change: Callable[[str], str]) -> Trick:
    """The right name, changed so that it is not the name any more (or a lie where nothing would change)."""

    def write(sample: Sample, frame: Frame) -> str:  # noqa: ARG001 - writers share one signature
        label = _label(sample)
        changed = change(label)
        return answer(changed if changed != label else f"not {label}")

    return Trick(name, "spoilt truth", write, blind=False)


def largest_share(samples: Iterable[Sample]) -> float:
    """The share of the most common class: what the best honest constant earns."""
    truths = Counter(_label(sample) for sample in samples)
    return max(truths.values()) / truths.total()


def _label(sample: Sample) -> str:
    return cast(ClassTarget, sample.target).label
