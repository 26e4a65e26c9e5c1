"""A run's identity: the content that a score depends on, as parts that can be compared and as one fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from vrft_bench.tasks.data.survey import canonical


def fingerprint(identity: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON of the parts."""
    return hashlib.sha256(canonical(identity).encode()).hexdigest()


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Which parts differ, as lines like ``sampling.temperature: 0.0 there, 1.0 here``."""
    lines: list[str] = []
    for key in [*there, *(key for key in here if key not in there)]:
        old, new = there.get(key), here.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            lines += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            lines.append(f"{prefix}{key}: {_short(old)} there, {_short(new)} here")
    return lines


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
