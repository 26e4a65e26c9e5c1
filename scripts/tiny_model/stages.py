"""How the tiny model learns: first its eyes alone, then all of it."""

from __future__ import annotations

import math
import random
import time

import torch
from torch.nn import functional
from transformers import PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

from tiny_model.batches import Cells, Encoder
from vrft_bench.tasks.data.sample_scenes import COLOURS, GRID, SHAPES


def align_vision(
    model: Qwen2VLForConditionalGeneration,
    tokenizer: PreTrainedTokenizerFast,
    cells: Cells,
    *,
    steps: int,
    batch_size: int,
    rate: float,
    seed: int,
) -> float:
    """Stage one: visual tokens learn to lie near the embeddings of the words that name what they show.

    The three heads (object or background, edges, and the scale of a visual token) are thrown away afterwards. Returns
    the mean loss of the last 50 steps.
    """
    vision, words = model.model.visual, model.get_input_embeddings().weight
    size = words.shape[1]
    colours = [[tokenizer.convert_tokens_to_ids(space + name) for name in COLOURS] for space in ("", " ")]
    shapes = [tokenizer.convert_tokens_to_ids(f" {name}") for name in SHAPES]
    is_object, edges, scale = torch.nn.Linear(size, 2), torch.nn.Linear(size, 4 * (GRID + 1)), torch.nn.RMSNorm(size)
    heads = [weight for head in (is_object, edges, scale) for weight in head.parameters()]
    optimizer = torch.optim.AdamW([*vision.parameters(), words, *heads], lr=rate, weight_decay=0.01)
    generator = torch.Generator().manual_seed(seed)
    losses: list[float] = []
    for step in range(steps):
        rows = torch.randint(0, len(cells.pixels), (batch_size,), generator=generator)
        shown = vision(cells.pixels[rows].flatten(0, 1).float(), torch.tensor([[1, 6, 6]] * batch_size)).pooler_output
        named = scale(shown)
        colour, shape = cells.colours[rows].flatten(), cells.shapes[rows].flatten()
        loss = (
            functional.cross_entropy(is_object(shown), (colour >= 0).long())
            + sum(functional.cross_entropy(named @ words[spelling].T, colour) for spelling in colours)
            + functional.cross_entropy(named @ words[shapes].T, shape)
            + functional.cross_entropy(edges(shown).view(-1, GRID + 1), cells.edges[rows].flatten())
        )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vision.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
        if step % 50 == 49:
            print(f"vision {step + 1}/{steps}  loss {sum(losses[-50:]) / 50:.4f}", flush=True)
    return sum(losses[-50:]) / max(1, len(losses[-50:]))


def train(
    model: Qwen2VLForConditionalGeneration, encoder: Encoder, *, steps: int, batch_size: int, rate: float, seed: int
) -> float:
    """Stages two and three: AdamW with warm-up and a cosine to zero. Returns the mean loss of the last 50 steps."""
    rng = random.Random(seed)
    warmup = 50
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    losses: list[float] = []
    started = time.perf_counter()
    for step in range(steps):
        batch = encoder.batch([encoder.corpus.draw(rng) for _ in range(batch_size)], rng)
        labels, weights = batch.pop("labels")[:, 1:], batch.pop("weights")[:, 1:]
        logits = model(**batch, use_cache=False).logits[:, :-1]
        each = functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none")
        loss = (each * weights).sum() / weights.sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 49:
            mean = sum(losses[-50:]) / 50
            print(f"step {step + 1}/{steps}  loss {mean:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
    return sum(losses[-50:]) / len(losses[-50:])
