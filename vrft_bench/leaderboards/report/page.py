"""The page: one HTML document that needs nothing but itself, and runs no script but its own.

Everything that a model, a file or a user may have written goes in as text: through jinja2's autoescape, or as JSON in a
data block in which no character can end the block. The Content-Security-Policy names the page's own script and style by
their hashes, lets images come from the page's folder or from ``data:`` URLs, and forbids everything else.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from vrft_bench import __version__
from vrft_bench.errors import UserError

GENERATOR = "vrft-bench report"
"""What the page says that it was made by; a file that does not say so is never overwritten."""
_SCRIPTS = ("dom.js", "charts.js", "plots.js", "drawing.js", "filters.js", "gallery.js", "detail.js", "main.js")
_STYLES = ("theme.css", "page.css", "charts.css", "gallery.css", "dialogs.css", "phone.css")
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def render_page(view: Mapping[str, Any], payload: Mapping[str, Any], *, inline: bool) -> str:
    """The document: ``view`` is for the template, ``payload`` for the script; ``inline``: its images are part of it."""
    environment = _environment()
    style = "\n".join(map(_asset, _STYLES))
    script = '"use strict";\n(() => {\n' + "\n".join(_asset(name) for name in _SCRIPTS) + "\n})();\n"
    policy = "; ".join(
        (
            "default-src 'none'",
            "img-src data:" if inline else "img-src 'self' data:",
            f"style-src '{_hash(style)}'",
            f"script-src '{_hash(script)}'",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )
    template = environment.get_template("report.html.jinja")
    page: str = template.render(
        **view,
        policy=policy,
        style=_trusted(style),
        script=_trusted(script),
        payload=_trusted(script_json(payload)),
        generator=f"{GENERATOR} {__version__}",
    )
    return page


def script_json(value: object) -> str:
    """``value`` as JSON that may stand in a ``<script>`` element: nothing in it ends the element or the line."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def require_libraries() -> None:
    """Raise :class:`UserError` where the library that pages are made with is not installed."""
    _environment()


def _environment() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError:
        raise UserError(
            "a report needs jinja2, which is not installed", fix="pip install 'vrft-bench[report]'"
        ) from None
    loader = jinja2.PackageLoader("vrft_bench.leaderboards.report")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)


def _trusted(text: str) -> Any:
    """``text``, which is our own or escaped already."""
    from markupsafe import Markup

    return Markup(text)


def _asset(name: str) -> str:
    return (files("vrft_bench.leaderboards.report") / "static" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
