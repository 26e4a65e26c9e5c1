"""The doctor through a server that really looks at the images it is sent."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vrft_bench.harness.config import make_config
from vrft_bench.harness.doctor.examination import examine
from vrft_bench.tasks.data.sample_scenes import COLOURS


def looks(unit: Callable[[int, int], tuple[float, float]]) -> Callable[[Any], str]:
    """Answers with the box of the asked colour; ``unit`` says what the image's (width, height) are in its numbers."""

    def script(asked: Any) -> str:
        with Image.open(io.BytesIO(asked.image)) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        colour = COLOURS[next(word for word in re.findall("[a-z]+", asked.text) if word in COLOURS)]
        rows, columns = np.nonzero(np.abs(pixels - colour).max(axis=2) <= 30)
        high, wide = pixels.shape[:2]
        edges = columns.min() / wide, rows.min() / high, (columns.max() + 1) / wide, (rows.max() + 1) / high
        a, b, c, d = (round(edge * side) for edge, side in zip(edges, unit(wide, high) * 2, strict=True))
        if "Confidence" in asked.text:
            return f"<answer>[{{'Position': [{a}, {b}, {c}, {d}], 'Confidence': 0.9}}]</answer>"
        return f"<answer>({a},{b}),({c},{d})</answer>"

    return script


@pytest.mark.parametrize(
    ("unit", "profile", "finding", "speaks"),
    [
        (lambda wide, high: (wide, high), "qwen2.5-vl", "agrees", "abs_resized"),
        (lambda wide, high: (1000, 1000), "qwen2.5-vl", "contradicts", "norm_1000"),
        (lambda wide, high: (wide, high), "qwen2-vl", "contradicts", "abs_resized"),
    ],
)
def test_a_server_is_taken_at_the_word_of_its_boxes(
    unit: Any, profile: str, finding: str, speaks: str, serve: Callable[..., Any]
) -> None:
    """Pixels are those of the image that was sent, which the client shrinks as the profile says."""
    server = serve(looks(unit))
    fields = {"model": "openai/served", "base_url": server.url, "profile": profile}
    seen = examine(make_config(fields), per_size=4)
    assert seen.verdict is not None
    assert (seen.verdict.finding, seen.verdict.speaks) == (finding, (speaks,))
    found = seen.asked[0].found
    assert found.mean(0 if finding == "agrees" else [way.name for way in found.ways].index(speaks)) > 0.95
    assert found.seen((2016, 2016)) == (448, 448)
