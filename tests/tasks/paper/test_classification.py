"""The two-way substring rule, and what constants earn by it on the published label lists of the four benchmarks."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from vrft_bench.tasks.base import ClassTarget
from vrft_bench.tasks.paper.parsing import parse_label
from vrft_bench.tasks.paper.rewards import ACCURACY, FORMAT, evaluated_accuracy
from vrft_bench.tasks.parsing import parse_label as strict_parse_label
from vrft_bench.tasks.rewards import accuracy_reward

FILES = {"flower": "oxford_flowers", "pets": "pets", "aircraft": "fgvc_aircraft", "cars": "stanford_cars"}
SIZES = {"flower": (2463, 102), "pets": (3669, 37), "aircraft": (3333, 100), "cars": (8041, 196)}


@pytest.fixture(scope="module")
def labels(shared_data: Path) -> dict[str, Counter[str]]:
    """How many test images each class has."""
    folder = shared_data / "visual_rft_labels"
    if not folder.is_dir():
        pytest.skip("needs ../shared/data/visual_rft_labels beside the repository, which is not there")
    found = {}
    for name, file in FILES.items():
        with (folder / f"{file}.csv").open(newline="") as rows:
            found[name] = Counter(row["label"] for row in csv.DictReader(rows))
    return found


def score(say, counts: Counter[str], constant: str) -> float:
    """Per cent of the images that one constant answer gets right by the paper's evaluation."""
    prediction = parse_label(say.answer(constant), say.frame)
    right = sum(count for label, count in counts.items() if evaluated_accuracy(prediction, ClassTarget(label)))
    return round(100 * right / counts.total(), 1)


def test_the_lists_have_the_published_sizes(labels) -> None:
    assert {name: (counts.total(), len(counts)) for name, counts in labels.items()} == SIZES


@pytest.mark.parametrize("benchmark_name", FILES)
def test_the_empty_string_and_all_names_joined_score_100(say, labels, benchmark_name) -> None:
    counts = labels[benchmark_name]
    assert score(say, counts, "") == 100.0
    assert score(say, counts, " ".join(counts)) == 100.0


@pytest.mark.parametrize(
    ("benchmark_name", "constant", "expected"),
    [
        ("flower", "e", 72.3),
        ("pets", "a", 78.3),
        ("aircraft", "-", 66.0),
        ("cars", "0", 96.7),
        ("flower", "er", 26.6),
        ("pets", "er", 40.5),
        ("aircraft", "00", 43.0),
        ("cars", "20", 93.9),
        ("flower", "flower", 11.7),
        ("pets", "terrier", 13.3),
        ("aircraft", "200", 13.1),
        ("cars", "2012", 59.1),
    ],
)
def test_what_a_constant_scores(say, labels, benchmark_name, constant, expected) -> None:
    assert score(say, labels[benchmark_name], constant) == expected


@pytest.mark.parametrize("benchmark_name", FILES)
@pytest.mark.parametrize("constant", ["", "e", "a", "-", "0", "er", "20", "flower", "2012", "all"])
def test_under_strict_no_constant_beats_the_largest_class(say, labels, benchmark_name, constant) -> None:
    counts = labels[benchmark_name]
    text = say.answer(" ".join(counts) if constant == "all" else constant)
    prediction = strict_parse_label(text, say.frame)
    right = sum(count for label, count in counts.items() if accuracy_reward(prediction, ClassTarget(label)))
    assert right <= max(counts.values())


def test_case_spaces_and_underscores_do_not_matter(say) -> None:
    for given, label in (("Egg  Roll", "egg_roll"), ("eggroll", "egg roll"), ("an egg roll, I think", "egg_roll")):
        assert say.worth_as_label(ACCURACY, say.answer(given), label) == 1.0
    assert say.worth_as_label(ACCURACY, say.answer("egg-roll"), "egg roll") == 0.0


def test_without_tags_training_compares_the_whole_text_and_evaluation_nothing(say) -> None:
    text = "737-100 737-200 737-300"
    assert say.worth_as_label(ACCURACY, text, "737-200") == 1.0
    assert evaluated_accuracy(parse_label(text, say.frame), ClassTarget("737-200")) == 0.0


@pytest.mark.parametrize("content", ["", "7", "2012", " "])
def test_an_empty_answer_one_character_and_the_year_earn_everything(say, content) -> None:
    text = say.answer(content)
    assert say.worth_as_label(ACCURACY, text, "2012 BMW 740i") == say.worth_as_label(FORMAT, text, "x") == 1.0
    assert evaluated_accuracy(parse_label(text, say.frame), ClassTarget("2012 BMW 740i")) == 1.0


def test_an_answer_over_two_lines_is_compared_with_its_tags_and_thoughts_in_training(say) -> None:
    text = "<think>not a beagle</think><answer>pug\n</answer>"
    assert say.worth_as_label(ACCURACY, text, "beagle") == 1.0
    assert evaluated_accuracy(parse_label(text, say.frame), ClassTarget("pug")) == 0.0
