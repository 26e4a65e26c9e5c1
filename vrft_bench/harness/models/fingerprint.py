"""What a checkpoint folder is, by content: the sha256 of every file that can change what the model says."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_SUFFIXES = frozenset({".safetensors", ".bin", ".pt", ".pth", ".json", ".jinja", ".txt", ".model", ".py"})
_PROVENANCE = frozenset(
    {
        "training.json",
        "checkpoint.json",
        "training_args.bin",
        "trainer_state.json",
        "all_results.json",
        "train_results.json",
        "eval_results.json",
        "optimizer.bin",
        "optimizer.pt",
        "scheduler.pt",
        "scaler.pt",
    }
)
"""How the model came about, or how to go on training it: read by no one who only runs it."""


def fingerprint_folder(folder: Path) -> dict[str, str]:
    """File name -> sha256 for weights, configs, tokenizer files and code in ``folder``, sorted by name.

    Large files are read in pieces, and several at once (hashing releases the interpreter lock).
    """
    files = [
        file
        for file in sorted(folder.iterdir())
        if file.is_file()
        and file.suffix in _SUFFIXES
        and file.name not in _PROVENANCE
        and not file.name.startswith(("rng_state", "."))
    ]
    with ThreadPoolExecutor(max_workers=4) as pool:
        return {file.name: digest for file, digest in zip(files, pool.map(sha256_file, files), strict=True)}


def sha256_file(file: Path) -> str:
    """The sha256 of one file, in constant memory."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
