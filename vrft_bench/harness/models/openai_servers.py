"""What a server says about the model that it serves, and in which fields it departs from the plain OpenAI API.

Only what a server says is used (``GET /models``), never what a name looks like. A server that lists nothing is asked in
the plain API.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vrft_bench.errors import BackendError, UserError
from vrft_bench.harness.models.checkpoint import Checkpoint, find_checkpoint


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server is asked.

    ``neutral`` are the fields that set aside what a checkpoint's ``generation_config.json`` or the server itself adds
    to sampling (penalties, top-k), since the run alone decides how text is drawn. ``keeps_special`` says that it is
    told not to drop special tokens from answers: a checkpoint may have made special tokens of its thinking tags.
    ``groups`` says that completion ``i`` of a request with ``n`` and ``seed`` is drawn with ``seed + i``, so that
    asking together draws what asking one by one would. ``structured`` makes the fields that hold an answer to a
    regular expression.
    """

    neutral: Mapping[str, Any] = field(default_factory=dict)
    keeps_special: bool = False
    groups: bool = False
    structured: Callable[[str], Mapping[str, Any]] | None = None


PLAIN = Dialect()

DIALECTS: Mapping[str, Dialect] = {
    "vllm": Dialect(
        {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
        keeps_special=True,
        groups=True,
        structured=lambda regex: {"structured_outputs": {"regex": regex}},
    ),
    "sglang": Dialect(
        {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0},
        keeps_special=True,
        structured=lambda regex: {"regex": regex},
    ),
    "lmdeploy": Dialect(
        {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0},
        structured=lambda regex: {"response_format": {"type": "regex_schema", "regex_schema": regex}},
    ),
    "llamacpp": Dialect({"top_k": 0, "min_p": 0.0, "repeat_penalty": 1.0}),
}
"""By ``owned_by`` of a model's card, which is where each of these servers names itself."""


_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")

_STORAGE = ("quantization", "ftype", "dtype", "n_params", "size")
"""Fields of a model's card, or of its ``meta`` (llama.cpp), that say how the weights are stored."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model as a server's list describes it.

    ``root`` is what the server loaded (a folder of its own machine, or a hub id), ``base`` the same of the model that
    an adapter was put on, ``owned_by`` the kind of server or the owner of the model, ``longest`` the most tokens that
    question and answer may have together, ``storage`` what it says of how the weights are stored. ``names`` are all
    names that the server lists.
    """

    owned_by: str | None = None
    root: str | None = None
    base: str | None = None
    longest: int | None = None
    storage: Mapping[str, str | int] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def dialect(self) -> Dialect:
        return DIALECTS.get(self.owned_by or "", PLAIN)

    def identity(self, base_url: str) -> dict[str, Any]:
        """What can be known of the weights: their content where the server reads a folder of this very machine.

        A hub id says what they are. Any other name (``default``, ``gpt-3.5-turbo`` of llama.cpp, ``/models/latest``)
        means something on one machine only: then the address is part of what the model is.
        """
        storage = {"storage": dict(self.storage)} if self.storage else {}
        if is_this_machine(base_url) and self.root is not None and (Path(self.root) / "config.json").is_file():
            found = find_checkpoint(self.root).fingerprint
            return {"files": found["files"], "owned_by": self.owned_by, **storage}
        found = {"root": self.root, "base": self.base, "owned_by": self.owned_by, "revision": "server", **storage}
        return found if _is_hub_id(self.root) else {**found, "address": base_url}

    def checkpoint(self, name: str, base_url: str) -> Checkpoint | None:
        """The checkpoint behind the model, where this machine can find it: a folder, or an id that the hub knows.

        A folder that another machine names is none of this one's, even if there is one of that name here.
        """
        here = is_this_machine(base_url)
        for source in (self.root, self.base, name):
            if source is None or "/" not in source or not (here or _is_hub_id(source)):
                continue
            try:
                found = find_checkpoint(source)
            except (UserError, ImportError):  # not here, or no huggingface_hub to look it up with
                continue
            if here or not found.is_folder:
                return found
        return None


def read_model_list(listed: Any, name: str) -> ServedModel:
    """What the answer to ``GET /models`` says about ``name``. Never raises: servers list many things in many ways."""
    entries = listed.get("data") if isinstance(listed, Mapping) else listed
    cards = [card for card in entries if isinstance(card, Mapping)] if isinstance(entries, Sequence) else []
    by_name = {card["id"]: card for card in cards if isinstance(card.get("id"), str)}
    card = by_name.get(name)
    if card is None:
        return ServedModel(names=tuple(by_name))
    longest = card.get("max_model_len")
    return ServedModel(
        owned_by=_text(card.get("owned_by")),
        root=_text(card.get("root")),
        base=_text(by_name.get(_text(card.get("parent")) or "", {}).get("root")),
        longest=longest if isinstance(longest, int) and longest > 0 else None,
        storage=_storage(card),
        names=tuple(by_name),
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _storage(card: Mapping[str, Any]) -> dict[str, str | int]:
    meta = card.get("meta")
    if not isinstance(meta, Mapping) or "status" in card:  # a router's card, which says more once the model is loaded
        meta = {}
    said = {name: card.get(name, meta.get(name)) for name in _STORAGE}
    return {name: value for name, value in said.items() if isinstance(value, str | int) and value != ""}


def _is_hub_id(name: str | None) -> bool:
    return name is not None and _HUB_ID.fullmatch(name) is not None


def refuse_long_answers(model: ServedModel, max_tokens: int) -> None:
    """Raise :class:`BackendError` where ``max_tokens`` leave no room for a question."""
    if model.longest is not None and max_tokens >= model.longest:
        raise BackendError(
            f"answers of --max-tokens {max_tokens} leave no room for a question: the server takes {model.longest} "
            "tokens in all (its max_model_len)",
            fix="give a smaller --max-tokens, or start the server with a larger --max-model-len",
        )


def is_this_machine(base_url: str) -> bool:
    """Whether ``base_url`` names the loopback interface."""
    host = urlsplit(base_url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
