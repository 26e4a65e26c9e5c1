"""Make the bundled tiny model: a real Qwen2-VL architecture of about 2 M parameters, trained on the sample data.

    OMP_NUM_THREADS=2 python scripts/train_tiny_model.py --output vrft_bench/assets/tiny_qwen2_vl

It is a weak but format-fluent base, meant to be improved by reinforcement, trained in three stages on the sample data's
train split. First the vision encoder alone learns to say of each visual token which object it shows, in the words'
own embeddings, and where that object ends. Then the whole model learns gold completions by next-token cross-entropy.
Every stated confidence of 1 is replaced by a noisy one that is lower for smaller objects (so that sampled confidences
vary), and a third of the detection questions are about a category that is not in the image. Last, it goes on with
careless annotations: three in five right and lower edges are drawn too far, so that it is used to loose boxes and
still holds the right ones for possible. Nothing of any released model is used, neither weights nor tokenizer.

Reproducible: seeds, data and steps are written to ``training.json`` beside the weights. With the same versions, machine
and number of threads the loss curve repeats; another thread count sums floats in another order and gives a model that
is as good, but not bit-equal.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tiny_tokenizer import build_tokenizer
from torch.nn import functional
from transformers import (
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from vrft_bench.harness.images import load_image
from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, DataSpec, Sample, Task
from vrft_bench.tasks.coordinates import Box, Frame
from vrft_bench.tasks.data.sample_scenes import CELL, COLOURS, GRID, SHAPES
from vrft_bench.tasks.detection import completion
from vrft_bench.tasks.profiles import QWEN2_VL

DETECTION, GROUNDING = "detection", "lisa_grounding"
CLASSIFICATION = ("classification", "flower102_fewshot", "pets37_fewshot", "fgvc_aircraft_fewshot", "cars196_fewshot")
MIXTURE = {"detection": 0.6, "grounding": 0.25, "classification": 0.15}
NEGATIVE_SHARE = 0.35
CARELESS_SHARE = 0.6
"""In stage three, so often is a right or a lower edge one cell too far."""
CONFIDENCE_WEIGHT = 0.1
"""In the loss, a token of a stated confidence counts so much, since it is mostly noise; every other token counts 1."""


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2VLForConditionalGeneration:
    """A fresh Qwen2-VL of about 2 M parameters. The wide initialisation (0.08, not 0.02) is what lets it learn fast."""
    token = tokenizer.convert_tokens_to_ids
    config = Qwen2VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 3,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "max_position_embeddings": 4096,
            "initializer_range": 0.08,
            # Images have 3x3 visual tokens and texts some 50: with the usual base of 10,000 the lower frequencies,
            # which encode a visual token's row and column, would not turn enough to tell one from another.
            "rope_parameters": {"rope_type": "default", "mrope_section": [8, 4, 4], "rope_theta": 30.0},
            "bos_token_id": token("<|endoftext|>"),
            "eos_token_id": token("<|im_end|>"),
            "pad_token_id": token("<|endoftext|>"),
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 2,
            "embed_dim": 128,
            "hidden_size": 192,
            "num_heads": 4,
            "mlp_ratio": 4,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "temporal_patch_size": 2,
            "initializer_range": 0.08,
        },
        image_token_id=token("<|image_pad|>"),
        video_token_id=token("<|video_pad|>"),
        vision_start_token_id=token("<|vision_start|>"),
        vision_end_token_id=token("<|vision_end|>"),
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config)


@dataclass(frozen=True, slots=True)
class Question:
    """A sample with the task that asks it, and the row of its image in the table of pixels."""

    task: Task
    sample: Sample
    image: int


class Corpus:
    """All questions of the train split in three families, with every image preprocessed once."""

    def __init__(self, most_images: int | None = None) -> None:
        self.processor = Qwen2VLImageProcessorPil(min_pixels=QWEN2_VL.min_pixels, max_pixels=QWEN2_VL.max_pixels)
        self._rows: dict[Any, int] = {}
        pixels: list[torch.Tensor] = []

        def read(name: str) -> Iterator[Question]:
            task, before = get_task(name), len(pixels)
            for sample in task.load(DataSpec(split="train")).samples():
                if sample.image.path not in self._rows:
                    if most_images is not None and len(pixels) - before >= most_images:
                        return
                    self._rows[sample.image.path] = len(pixels)
                    image = load_image(sample.image).image
                    # 84x84 pixels: 6x6 patches, which the encoder merges into 9 visual tokens.
                    patches = self.processor(images=[image], return_tensors="pt")["pixel_values"]
                    pixels.append(patches.to(torch.float16))
                yield Question(task, sample, self._rows[sample.image.path])

        detection = list(read(DETECTION))
        self.present = [question for question in detection if _boxes(question)]
        self.absent = [question for question in detection if not _boxes(question)]
        self.grounding = list(read(GROUNDING))
        self.classification = [question for name in CLASSIFICATION for question in read(name)]
        self.pixels = torch.stack(pixels)

    def texts(self) -> list[str]:
        """Every distinct prompt and gold completion, for the vocabulary."""
        questions = [*self.present, *self.absent[: len(self.present)], *self.grounding, *self.classification]
        return sorted({text for item in questions for text in (prompt_of(item), gold_of(item))})

    def draw(self, rng: random.Random) -> Question:
        """One question: a family by :data:`MIXTURE`, in detection an absent category by :data:`NEGATIVE_SHARE`."""
        family = rng.choices(list(MIXTURE), weights=list(MIXTURE.values()))[0]
        if family == "detection":
            return rng.choice(self.absent if rng.random() < NEGATIVE_SHARE else self.present)
        return rng.choice(self.grounding if family == "grounding" else self.classification)


def _boxes(question: Question) -> tuple[Any, ...]:
    assert isinstance(question.sample.target, BoxTarget)
    return question.sample.target.boxes


def prompt_of(question: Question) -> str:
    return question.task.prompt(question.sample, QWEN2_VL)


def careless(box: Box, rng: random.Random, share: float) -> Box:
    """``box`` with its right edge, its lower one, both or none a cell too far, where the image has room for it."""
    x2, y2 = (edge + CELL if edge < CELL * GRID and rng.random() < share else edge for edge in box[2:])
    return box[0], box[1], x2, y2


def gold_of(question: Question, rng: random.Random | None = None, careless_share: float = 0.0) -> str:
    """The gold completion; with ``rng``, boxes get a confidence that is lower for smaller objects, plus noise."""
    sample = question.sample
    frame = Frame(QWEN2_VL, sample.image.width, sample.image.height)
    if rng is not None and isinstance(sample.target, BoxTarget) and careless_share:
        boxes = tuple(careless(box, rng, careless_share) for box in sample.target.boxes)
        sample = replace(sample, target=replace(sample.target, boxes=boxes))
    if rng is None or not isinstance(sample.target, BoxTarget):
        return question.task.gold(sample, frame)
    confidences = []
    for x1, y1, x2, y2 in sample.target.boxes:
        share = (x2 - x1) * (y2 - y1) / (sample.image.width * sample.image.height)
        confidences.append(min(max(0.5 + 0.65 * math.sqrt(share) + rng.gauss(0.0, 0.08), 0.05), 0.99))
    return completion(sample.target.boxes, confidences, frame, sample.fields["category"])


class Encoder:
    """Turns questions into training batches: prompts masked out of the loss, image tokens in place."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, careless_share: float = 0.0) -> None:
        self.tokenizer, self.corpus, self.careless_share = tokenizer, corpus, careless_share
        self.image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self._prompts: dict[tuple[str, str], list[int]] = {}

    def batch(self, questions: Sequence[Question], rng: random.Random) -> dict[str, torch.Tensor]:
        prompts = [self._prompt(question) for question in questions]
        golds = [gold_of(question, rng, self.careless_share) + "<|im_end|>" for question in questions]
        answers = [self.tokenizer(gold)["input_ids"] for gold in golds]
        longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
        ids = torch.full((len(questions), longest), self.tokenizer.pad_token_id)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        weights = torch.zeros(ids.shape)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : end] = torch.tensor(answer)
            mask[row, :end] = 1
            weights[row, len(prompt) : end] = torch.tensor(self._weights(answer))
        pixels = self.corpus.pixels[torch.tensor([question.image for question in questions])]
        return {
            "input_ids": ids,
            "labels": labels,
            "weights": weights,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == self.image_token).int(),
            "pixel_values": pixels.flatten(0, 1).float(),
            "image_grid_thw": torch.tensor([[1, 6, 6]] * len(questions)),
        }

    def _weights(self, answer: list[int]) -> list[float]:
        """What each token of an answer counts in the loss: :data:`CONFIDENCE_WEIGHT` inside a stated confidence."""
        weights, weight = [], 1.0
        for token in self.tokenizer.convert_ids_to_tokens(answer):
            if token == "Confidence":
                weight = CONFIDENCE_WEIGHT
            elif "}" in token:
                weight = 1.0
            weights.append(weight)
        return weights

    def _prompt(self, question: Question) -> list[int]:
        key = (question.task.name, prompt_of(question))
        if key not in self._prompts:
            chat = question.task.messages(question.sample, QWEN2_VL)
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            self._prompts[key] = self.tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * 9))["input_ids"]
        return self._prompts[key]


class Cells:
    """What each visual token of an image shows: colour and shape (-100: nothing) and the object's edges, in cells."""

    def __init__(self, corpus: Corpus) -> None:
        seen = sorted({question.image for question in (*corpus.present, *corpus.absent)})
        self.pixels = corpus.pixels[torch.tensor(seen)]
        self.colours, self.shapes = (torch.full((len(seen), GRID * GRID), -100) for _ in range(2))
        self.edges = torch.full((len(seen), GRID * GRID, 4), -100)
        row_of = {image: row for row, image in enumerate(seen)}
        for question in corpus.present:
            colour, shape = question.sample.fields["category"].split()
            row = row_of[question.image]
            for box in _boxes(question):
                x1, y1, x2, y2 = edges = [round(value / CELL) for value in box]
                cells = [y * GRID + x for y in range(y1, y2) for x in range(x1, x2)]
                self.colours[row, cells] = list(COLOURS).index(colour)
                self.shapes[row, cells] = SHAPES.index(shape)
                self.edges[row, cells] = torch.tensor(edges)


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


def save(
    model: Qwen2VLForConditionalGeneration, tokenizer: PreTrainedTokenizerFast, corpus: Corpus, folder: Path
) -> None:
    """A checkpoint folder as ``save_pretrained`` writes it, in bfloat16, with every file that loading it needs.

    What is in the folder is replaced.
    """
    if folder.exists():
        shutil.rmtree(folder)
    model = model.to(torch.bfloat16).eval()
    model.config.use_cache = True
    token = tokenizer.convert_tokens_to_ids
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[token("<|im_end|>"), token("<|endoftext|>")], pad_token_id=token("<|endoftext|>")
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    corpus.processor.save_pretrained(folder)
    for file in folder.iterdir():
        file.chmod(0o644)  # safetensors writes files that only their owner can read


def evaluate(folder: Path, limit: int) -> dict[str, dict[str, float]]:
    """Greedy answers to the first ``limit`` questions of each family's val split: shares and mean rewards."""
    backend = HFBackend(str(folder), {})
    profile = backend.profile()
    assert profile is not None
    figures: dict[str, dict[str, float]] = {}
    for name in (DETECTION, GROUNDING, CLASSIFICATION[0]):
        task = get_task(name)
        samples = list(task.load(DataSpec(split="val")).samples())
        random.Random(0).shuffle(samples)
        chosen = {sample.id: sample for sample in samples[:limit]}
        requests = [
            Request(task, sample, 0, task.messages(sample, profile), profile, Sampling(max_tokens=192))
            for sample in chosen.values()
        ]
        sums: Counter[str] = Counter()
        counts: Counter[str] = Counter()
        for answer in backend.generate(requests):
            sample = chosen[answer.sample_id]
            frame = Frame(profile, sample.image.width, sample.image.height)
            prediction = task.parse(answer.text, frame)
            absent = isinstance(sample.target, BoxTarget) and not sample.target.boxes
            values = {"well_formed": float(prediction.well_formed)}
            for key, value in task.judge(prediction, sample.target).components.items():
                values[f"{key}_absent" if absent else key] = value
            sums.update(values)
            counts.update(values.keys())
        figures[name] = {key: round(sums[key] / counts[key], 4) for key in sorted(sums)}
    backend.close()
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="folder of the checkpoint; replaced if it exists")
    parser.add_argument("--vision-steps", type=int, default=300, help="steps of stage one")
    parser.add_argument("--steps", type=int, default=3000, help="steps of stage two")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--careless-steps", type=int, default=250, help="steps of stage three")
    parser.add_argument("--careless-rate", type=float, default=2e-4, help="its peak learning rate")
    parser.add_argument("--from-stage-two", type=Path, help="a checkpoint to begin stage three with, for a quick trial")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", type=int, default=400, help="val questions per family to report on afterwards")
    parser.add_argument("--most-images", type=int, help="read no more images than this per family (for a quick trial)")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    corpus = Corpus(options.most_images)
    print(f"{len(corpus.pixels)} images", flush=True)
    if options.from_stage_two is None:
        first_stages(corpus, options)
    # What has been saved is read back, so that stage three begins with the same weights however it is started.
    base = options.from_stage_two or options.output
    record = json.loads((base / "training.json").read_text(encoding="utf-8"))
    as_saved = {name: (base / name).read_bytes() for name in ("config.json", "tokenizer_config.json")}
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = Qwen2VLForConditionalGeneration.from_pretrained(base, dtype=torch.float32)
    loss = train(
        model,
        Encoder(tokenizer, corpus, CARELESS_SHARE),
        steps=options.careless_steps,
        batch_size=options.batch_size,
        rate=options.careless_rate,
        seed=options.seed + 1,
    )
    save(model, tokenizer, corpus, options.output)
    for name, content in as_saved.items():  # which the second saving fills up with how they were read
        (options.output / name).write_bytes(content)
    record |= {
        "careless_share": CARELESS_SHARE,
        "careless_steps": options.careless_steps,
        "careless_peak_learning_rate": options.careless_rate,
        "careless_threads": torch.get_num_threads(),
        "final_careless_loss": round(loss, 4),
        "validation": evaluate(options.output, options.evaluate) if options.evaluate else {},
    }
    write_record(options.output, record)
    print(json.dumps(record["validation"], indent=2))


def first_stages(corpus: Corpus, options: argparse.Namespace) -> None:
    """Stages one and two, and the checkpoint and record that they leave in the output folder."""
    tokenizer = build_tokenizer(corpus.texts())
    model = build_model(tokenizer)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{len(tokenizer)} tokens, {parameters / 1e6:.2f} M parameters", flush=True)
    vision_loss = align_vision(
        model,
        tokenizer,
        Cells(corpus),
        steps=options.vision_steps,
        batch_size=options.batch_size,
        rate=options.rate,
        seed=options.seed,
    )
    loss = train(
        model,
        Encoder(tokenizer, corpus),
        steps=options.steps,
        batch_size=options.batch_size,
        rate=options.rate,
        seed=options.seed,
    )
    save(model, tokenizer, corpus, options.output)
    record = {
        "script": "scripts/train_tiny_model.py",
        "data": "embedded sample data, train split: coco, reasonseg, classes (drawn from seeds of their own)",
        "images": len(corpus.pixels),
        "seed": options.seed,
        "data_seed": options.seed,
        "vision_steps": options.vision_steps,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "peak_learning_rate": options.rate,
        "mixture": MIXTURE,
        "negative_share": NEGATIVE_SHARE,
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "final_vision_loss": round(vision_loss, 4),
        "final_loss": round(loss, 4),
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    write_record(options.output, record)


def write_record(folder: Path, record: dict[str, Any]) -> None:
    (folder / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
