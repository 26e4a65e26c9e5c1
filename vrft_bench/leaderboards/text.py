"""Text from models, data and file names made fit to be shown. It is never trusted: it may be written to deceive.

Control characters could move a terminal's cursor or hide text, and so could the characters that switch the direction of
writing; both are taken out. Text that is written from right to left is kept, between marks that leave its neighbours in
their places.
"""

from __future__ import annotations

import re
import unicodedata

_ISOLATE, _END = "\u2068", "\u2069"
_DIRECTIONS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_BREAKS = frozenset("\n\r\t\v\f\x1c\x1d\x1e\x85\u2028\u2029")
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
}
_MARKDOWN = re.compile(r"[\\`*\[\]#+|~$]|(?<!\w)_|_(?!\w)")
_LINKED = {"://": ":\u200b//", "www.": "www\u200b.", "@": "@\u200b"}
"""What GitHub makes a link or a mention of, and how it does not."""
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_FORMULA = ("=", "+", "-", "@")


def visible(text: str) -> str:
    """One line of ``text`` without characters that act instead of being seen."""
    spaced = "".join(" " if character in _BREAKS else character for character in text)
    kept = (
        character
        for character in spaced
        if character not in _DIRECTIONS and unicodedata.category(character) not in ("Cc", "Cs")
    )
    return " ".join("".join(kept).split())


def isolated(text: str) -> str:
    """:func:`visible`, and what is written from right to left cannot reorder what stands around it."""
    shown = visible(text)
    return f"{_ISOLATE}{shown}{_END}" if _is_right_to_left(shown) else shown


def markdown_text(text: str) -> str:
    """``text`` for a cell of a Markdown table as GitHub renders it: no markup, no HTML, no link, no mention."""
    shown = isolated(text)
    for linked, broken in _LINKED.items():
        shown = shown.replace(linked, broken)
    escaped = _MARKDOWN.sub(lambda found: f"\\{found.group()}", shown)
    return "".join(_ENTITIES.get(character, character) for character in escaped)


def latex_text(text: str) -> str:
    """``text`` with every character that LaTeX reads as a command escaped, at the beginning of a row too."""
    return "".join(_LATEX.get(character, character) for character in visible(text))


def csv_text(text: str) -> str:
    """``text`` as no spreadsheet takes it for a formula."""
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown


def _is_right_to_left(text: str) -> bool:
    return any(unicodedata.bidirectional(character) in ("R", "AL", "AN") for character in text)
