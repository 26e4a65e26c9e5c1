"""A completion as the paper's code sees it: what its evaluation reads, and the raw text that its rewards compare."""

from __future__ import annotations

from dataclasses import dataclass, field

from vrft_bench.tasks.base import Prediction
from vrft_bench.tasks.coordinates import Frame, ModelProfile
from vrft_bench.tasks.paper.box_list import BoxList

THOUSANDTHS = ModelProfile("thousandths", "norm_1000")
"""The only coordinates that the paper's code knows, whatever the model speaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperPrediction(Prediction):
    """A :class:`Prediction` by the evaluation's rules, with the completion's ``text`` and its ``frame``.

    ``detections`` are neither clipped nor reordered. Their confidences are as stated, in any range; what is ranked is
    finite: those beyond :data:`~vrft_bench.tasks.paper.parsing.LARGEST` are set to it, and NaN comes last.
    ``rewarded`` are the boxes of a detection answer as the rewards read it, ``None`` where they fail to.
    """

    text: str
    frame: Frame
    rewarded: BoxList | None = field(default=None, compare=False, repr=False)


def thousandths(frame: Frame) -> Frame:
    """``frame`` for a model that writes thousandths of the image, whatever its own profile says."""
    return Frame(THOUSANDTHS, frame.width, frame.height)
