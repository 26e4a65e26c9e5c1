"""my_model: a model backend for vrft-bench, in one file.

    vrft-bench run --include my_model.py --model my_model/NAME --task lvis_fewshot --limit 20
    vrft-bench doctor --include my_model.py --model my_model/NAME

What follows ``my_model/`` is the name that ``MyModelBackend`` is made with. Put your model where ``answer`` is; all
else works as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vrft_bench.errors import UserError
from vrft_bench.harness.images import ImageCache, ImageError
from vrft_bench.harness.models.base import Completion, Request, Sampling
from vrft_bench.registry import MODELS, PROFILES
from vrft_bench.tasks.base import Message
from vrft_bench.tasks.coordinates import ModelProfile

if TYPE_CHECKING:
    from PIL.Image import Image

PROFILE = ModelProfile("my_model", convention="norm_1000")
"""What the numbers of a box mean when this model writes them: here thousandths of the image, as whole numbers.

`vrft-bench doctor` measures whether that is so. The other conventions are norm_1 (fractions), abs_original (pixels) and
abs_resized (pixels after smart-resize, whose ``factor``, ``min_pixels`` and ``max_pixels`` the profile then states).
"""


class MyModelBackend:
    """``my_model/NAME``. Made once per command; what is slow to load is best loaded by the first question."""

    def __init__(self, name: str, args: Mapping[str, Any]) -> None:
        """``args`` are the ``--model-args``."""
        if args:
            raise UserError(f"my_model takes no --model-args, and was given {', '.join(args)}", fix="leave them out")
        self._name = name
        self._images = ImageCache()

    def identity(self) -> Mapping[str, Any]:
        """Everything that can change an answer, for the run's fingerprint: weights, version, precision, arguments."""
        return {"backend": "my_model", "name": self._name, "version": "1"}

    def profile(self) -> ModelProfile | None:
        return PROFILE

    def generate(self, requests: Iterable[Request]) -> Iterator[Completion]:
        """Answer every request once, in any order. Read a bounded number of them ahead: a run may have millions."""
        for request in requests:
            sample = request.sample
            try:
                loaded = self._images.load(sample.image)
            except ImageError as error:  # this question fails, and the run goes on
                yield Completion(sample.id, request.n, "", "error", error=str(error))
                continue
            text = self.answer(request.messages, loaded.image, request.sampling)
            yield Completion(sample.id, request.n, text, image_sha256=loaded.sha256)

    def answer(self, messages: list[Message], image: Image, sampling: Sampling) -> str:  # noqa: ARG002
        """What the model says. To be replaced: this one sees nothing.

        ``messages`` are a chat as transformers' ``apply_chat_template`` takes it, with a part ``{"type": "image"}``
        where ``image`` goes. ``sampling.temperature`` 0 is greedy; ``sampling.max_tokens`` is the longest answer.
        """
        return "<think>I see nothing.</think>\n<answer>No Objects</answer>"

    def close(self) -> None:
        """Free what the model holds."""


MODELS.register("my_model", MyModelBackend, summary="my_model/NAME: what it is, in a line for `vrft-bench ls models`")
PROFILES.register("my_model", PROFILE, summary="0-1000 integers")
