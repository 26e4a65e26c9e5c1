"""Search for texts that symbolic verification (protocol ``paper``) computes with for long in the scorer's own process.

    pip install -e '.[paper]'
    OMP_NUM_THREADS=1 python benchmarks/fuzz_symbolic.py [--seconds 120]

``may_take_long`` sends long texts, powers, factorials and much LaTeX to a process that is ended after eight seconds;
all others are verified without a limit, so their cost has to be small by itself. Texts are composed of a beginning, a
repeated unit and an end, of numbers, operators, units and LaTeX; those that took longest are changed further. Prints
the slowest, in CPU seconds, for texts just short enough with LaTeX and without.
"""

from __future__ import annotations

import argparse
import random
import time

from vrft_bench.tasks.paper import symbolic

SOLUTION = "<answer>[{'Position': [1, 364, 98, 649], 'Confidence': 1}]</answer>"
PIECES = (
    *("1", "9", "0.5", "10 ", "1,000", "1/2", "(1,2)", "{1,2}", "%", "½", "²", "π", "pi", "i", "x", "a", "sqrt"),
    *("+", "-", "*", "×", "/", "=", "<", "≤", "|", "!", "~", "_", "&", ",", ".", ":", "(", ")", "[", "]", "{", "}"),
    *("$", "$1$", "\\(", "\\)", "\\[", "\\]", "\\boxed{", "\\boxed{1}", "\\boxed", "\\", "'", '"', " ", "\n"),
    *("final answer is ", "answer: ", "'Position':", "and ", "or ", "dollars ", "cm ", "€"),
)
BEST = 12
"""How many of the slowest recipes are changed further."""

Recipe = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def compose(recipe: Recipe, size: int) -> str:
    begin, unit, end = map("".join, recipe)
    return (begin + unit * (size // len(unit)))[: size - len(end)] + end


def seconds(text: str) -> float:
    """CPU time of one verification; 0 for a text that would be verified apart."""
    if symbolic.may_take_long(text):
        return 0.0
    begin = time.process_time()
    symbolic.verified.__wrapped__(text, SOLUTION)
    return time.process_time() - begin


def changed(recipe: Recipe, rng: random.Random) -> Recipe:
    """``recipe`` with one piece more, or one less, in one of its parts."""
    parts = [list(part) for part in recipe]
    part = rng.choice((parts[0], parts[1], parts[1], parts[2]))
    if len(part) > 1 and rng.random() < 0.3:
        part.pop(rng.randrange(len(part)))
    else:
        part.insert(rng.randint(0, len(part)), rng.choice(PIECES))
    return tuple(parts[0]), tuple(parts[1]), tuple(parts[2])


def search(size: int, budget: float, rng: random.Random) -> list[tuple[float, Recipe]]:
    """The slowest recipes that were found, slowest first."""
    best: list[tuple[float, Recipe]] = []
    stop = time.monotonic() + budget
    while time.monotonic() < stop:
        if best and rng.random() < 0.6:
            recipe = changed(rng.choice(best)[1], rng)
        else:
            begin, unit, end = (tuple(rng.choices(PIECES, k=rng.randint(least, 3))) for least in (0, 1, 0))
            recipe = begin, unit, end
        best.append((seconds(compose(recipe, size)), recipe))
        best = sorted(best, reverse=True)[:BEST]
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=120, help="how long to look, for each of the two sizes")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    for size in (symbolic.LONGEST_LATEX, symbolic.LONGEST):
        print(f"{size:,} characters")
        for cost, (begin, unit, end) in search(size, options.seconds, rng)[:5]:
            print(f"{cost:8.2f} s  {''.join(begin)!r} + {''.join(unit)!r} repeated + {''.join(end)!r}")


if __name__ == "__main__":
    main()
