"""docs/protocols.md: every quirk has an example, and every example says what happens."""

from __future__ import annotations

import doctest
import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "protocols.md"
TEXT = PAGE.read_text()
TITLE = re.compile(r"^#### (\d+)\. (.+)$", re.MULTILINE)


def blocks(text: str) -> str:
    return "\n".join(re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL))


@pytest.mark.usefixtures("sample_cache")
def test_every_example_gives_what_the_page_says() -> None:
    test = doctest.DocTestParser().get_doctest(blocks(TEXT), {}, PAGE.name, str(PAGE), 0)
    runner = doctest.DocTestRunner()
    said: list[str] = []
    runner.run(test, out=said.append)
    assert runner.summarize(verbose=False).failed == 0, "".join(said)
    assert len(test.examples) > 60


def test_every_row_of_the_tables_leads_to_an_example_of_its_own() -> None:
    rows = re.findall(r"^\| \[(\d+)\]\(#([^)]+)\) \|", TEXT, re.MULTILINE)
    parts = TITLE.split(TEXT)[1:]
    examples = {number: (title, body) for number, title, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)}
    assert [number for number, _ in rows] == [str(index + 1) for index in range(len(rows))] == list(examples)
    for number, anchor in rows:
        title, body = examples[number]
        assert anchor == f"{number}-{title.lower().replace(' ', '-')}"
        assert ">>>" in blocks(body), title
