"""Tables as text: Markdown, CSV, LaTeX, HTML and JSON. Whatever comes from models, data and users is escaped here."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vrft_bench.errors import UserError
from vrft_bench.leaderboards.labels import UNKNOWN
from vrft_bench.leaderboards.tables import Cell, Row, Table, Tables, printed
from vrft_bench.leaderboards.text import csv_text, latex_text, markdown_text, visible

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

DAGGER = "†"
EXTRA = "pip install 'vrft-bench[report]'"
BOLD_RULE = "bold: the best of your own runs in a column, ties included"


@dataclass(frozen=True, slots=True)
class _Style:
    """How one format writes the parts of a table. ``text`` escapes, the others get what is escaped already."""

    text: Callable[[str], str]
    bold: Callable[[str], str]
    small: Callable[[str], str]
    raised: Callable[[str], str]


_MARKDOWN = _Style(markdown_text, "**{}**".format, "{}".format, "<sup>{}</sup>".format)
_LATEX = _Style(latex_text, r"\textbf{{{}}}".format, r"{{\scriptsize {}}}".format, r"\textsuperscript{{{}}}".format)


def to_markdown(tables: Tables, *, intervals: bool = False) -> str:
    """Tables as GitHub renders them."""
    blocks = []
    for table in tables.tables:
        view = View(table, intervals)
        lines = [f"### {markdown_text(table.title)}", "", *(markdown_text(line) + "  " for line in view.above), ""]
        lines.append("| " + " | ".join(map(markdown_text, view.headings)) + " |")
        lines.append(
            "|" + "|".join(":--" if place < view.names else "--:" for place in range(len(view.headings))) + "|"
        )
        lines += ["| " + " | ".join(view.line(row, _MARKDOWN)) + " |" for row in table.rows]
        lines += ["", *(f"- {_noted(mark, text, _MARKDOWN)}" for mark, text in view.below)]
        blocks.append("\n".join(lines).rstrip() + "\n")
    return "\n".join([*blocks, *_left_out_markdown(tables)])


def to_latex(tables: Tables, *, intervals: bool = False) -> str:
    """Tables for a paper; they need the package booktabs, and LuaLaTeX or XeLaTeX for names beyond Latin."""
    blocks = ["% \\usepackage{booktabs}"]
    labels: Counter[str] = Counter()
    for table in tables.tables:
        view = View(table, intervals)
        names = view.names
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(table.title)}}}"]
        labels[label := _slug(table.title)] += 1
        lines.append(rf"\label{{tab:{label}{f'-{labels[label]}' if labels[label] > 1 else ''}}}")
        lines.append(rf"\begin{{tabular}}{{{'l' * names}{'r' * (len(view.headings) - names)}}}")
        lines += [r"\toprule", " & ".join(map(latex_text, view.headings)) + r" \\"]
        before = None
        for row in table.rows:
            group = (row.label.method == "base", row.label.shots)
            if group != before:
                lines.append(r"\midrule")
            lines.append(" & ".join(view.line(row, _LATEX)) + r" \\")
            before = group
        lines += [r"\bottomrule", r"\end{tabular}"]
        said = [*(latex_text(line) for line in view.above), *(_noted(mark, text, _LATEX) for mark, text in view.below)]
        lines.append(r"\par\smallskip\footnotesize\raggedright")
        lines += [f"{line}." + r"\par" for line in said]
        lines.append(r"\end{table}")
        blocks.append("\n".join(lines) + "\n")
    return "\n".join(blocks)


def _slug(title: str) -> str:
    """A name to refer to: the letters and digits of ``title``, which LaTeX reads as they are."""
    return "-".join(re.findall(r"[a-z0-9]+", title.lower()))


def to_json(tables: Tables) -> str:
    """Everything, as ASCII, so that a terminal shows it and does nothing."""
    return json.dumps(tables.to_json(), indent=1, allow_nan=False) + "\n"


def to_frame(tables: Tables) -> pd.DataFrame:
    """A line per figure, in percent: to be filtered, joined or pivoted."""
    import pandas as pd

    lines = [
        {
            "table": table.layout.table,
            "title": table.title,
            "data": table.kind,
            "model": row.label.model,
            "method": row.label.method,
            "shots": row.label.shots,
            "origin": row.origin,
            "marks": "; ".join(row.marks),
            "column": column.heading,
            "task": column.task,
            "category": column.category,
            "value": cell.value,
            "low": cell.low,
            "high": cell.high,
            "gain": cell.gain,
            "best": cell.best,
            "run": str(cell.run) if cell.run else "",
            "note": cell.note,
        }
        for table in tables.tables
        for row in table.rows
        for column, cell in zip(table.columns, row.cells, strict=True)
        if cell.value is not None
    ]
    frame = pd.DataFrame(lines, columns=list(lines[0]) if lines else None)
    return frame.astype({"shots": "Int64"}) if lines else frame


def to_csv(tables: Tables) -> str:
    """:func:`to_frame` as CSV, in which no spreadsheet finds a formula."""
    frame = to_frame(tables)
    for name in frame.select_dtypes(exclude=["number", "bool"]).columns:
        frame[name] = ["" if value is None else csv_text(str(value)) for value in frame[name]]
    text: str = frame.round(6).to_csv(index=False, lineterminator="\n")
    return text


def to_html(tables: Tables, *, intervals: bool = False) -> str:
    """A page that stands alone, without a script."""
    template = environment().get_template("tables.html")
    return template.render(tables=[html_view(table, intervals) for table in tables.tables], left_out=left_out(tables))


def html_view(table: Table, intervals: bool) -> Mapping[str, Any]:
    """What the templates show of a table; nothing in it is escaped yet, and the templates escape all of it."""
    view = View(table, intervals)
    return {"table": table, "view": view, "headings": [visible(text) for text in view.headings]}


def environment() -> jinja2.Environment:
    """The templates, with everything escaped that they are given. Raises :class:`UserError` without jinja2."""
    try:
        import jinja2
    except ImportError:
        raise UserError("HTML needs jinja2, which is not installed", fix=EXTRA) from None
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("vrft_bench.leaderboards"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["visible"] = visible
    made.filters["printed"] = printed
    return made


def left_out(tables: Tables) -> list[str]:
    """The runs that stand in no table, each with its reason."""
    return [f"{item.folder}: {item.reason}" for item in tables.left_out]


class View:
    """A table as it is printed: its headings, what stands above and below it, and which notes its cells bear."""

    def __init__(self, table: Table, intervals: bool) -> None:
        self._intervals = intervals
        self.table = table
        self.with_method = any(row.label.method != UNKNOWN for row in table.rows)
        self.with_shots = any(row.label.shots for row in table.rows)
        names = ["model", *(["method"] if self.with_method else [])]
        shots = [table.layout.shots_heading] if self.with_shots else []
        self.names = len(names)
        self.headings = [*names, *shots, *(column.heading for column in table.columns)]
        self.letters = _letters(table)
        self.above = ["figures in percent", *table.conditions]
        self.below = self._below()

    def line(self, row: Row, style: _Style) -> list[str]:
        """A row's cells in one of the formats."""
        name = style.text(row.label.model)
        if row.origin == "published":
            name += style.raised(DAGGER)
        if row.marks:
            name += " " + style.text(f"({'; '.join(row.marks)})")
        method = [style.text(row.label.method)] if self.with_method else []
        shots = [str(row.label.shots or UNKNOWN)] if self.with_shots else []
        return [name, *method, *shots, *(self._cell(cell, style) for cell in row.cells)]

    def parts(self, cell: Cell) -> tuple[str, str]:
        """A figure, and what follows it in small print: its interval and its gain.

        An interval without width is left out: resampling had nothing to vary, which is no certainty.
        """
        if cell.value is None:
            return UNKNOWN, ""
        after = []
        if self._intervals and cell.low is not None and cell.high is not None and cell.low < cell.high:
            after.append(f"[{printed(cell.low)}, {printed(cell.high)}]")
        if cell.gain is not None:
            after.append(f"({cell.gain:+.1f})")
        return printed(cell.value), " ".join(after)

    def _cell(self, cell: Cell, style: _Style) -> str:
        figure, after = self.parts(cell)
        shown = style.bold(figure) if cell.best else figure
        if letter := self.letters.get(cell.note):
            shown += style.raised(letter)
        return f"{shown} {style.small(after)}" if after else shown

    def _below(self) -> list[tuple[str, str]]:
        rows = self.table.rows
        lines: list[tuple[str, str]] = []
        if any(cell.best for row in rows for cell in row.cells):
            lines.append(("", BOLD_RULE))
        if self._intervals:
            lines.append(("", "[low, high]: 95 % interval"))
        if self.table.baseline:
            lines.append(("", f"(+ and -): gain over {_baseline(self.table.baseline)}"))
        if any(row.origin == "published" for row in rows):
            number = f", table {self.table.layout.table[1:]}"
            lines.append(
                (DAGGER, f"published: {self.table.source}{number}; not measured here, and in no test and no ranking")
            )
        lines += [(letter, text) for text, letter in self.letters.items()]
        lines += [("", text) for text in self.table.notes]
        return lines


def _baseline(name: str) -> str:
    return "the base row of the same model" if name == "base" else name


def _letters(table: Table) -> dict[str, str]:
    """The notes of cells, with the letter by which they are found; one that all published cells have needs none."""
    cells = [cell for row in table.rows if row.origin == "published" for cell in row.cells if cell.value is not None]
    notes = dict.fromkeys(cell.note for cell in cells if cell.note)
    if len(notes) == 1 and all(cell.note for cell in cells):
        return dict.fromkeys(notes, "")
    return {note: chr(ord("a") + place) for place, note in enumerate(notes)}


def _noted(mark: str, text: str, style: _Style) -> str:
    return f"{style.raised(mark)} {style.text(text)}" if mark else style.text(text)


def _left_out_markdown(tables: Tables) -> Sequence[str]:
    lines = left_out(tables)
    return (
        ["\n".join(["### Not in a table", "", *(f"- {markdown_text(line)}" for line in lines)]) + "\n"] if lines else []
    )
