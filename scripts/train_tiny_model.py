"""Make the bundled tiny model: a real Qwen2-VL architecture of about 2 M parameters, trained on the sample data.

    OMP_NUM_THREADS=2 python scripts/train_tiny_model.py --output vrft_bench/assets/tiny_qwen2_vl

It is a weak but format-fluent base, meant to be improved by reinforcement: plain next-token cross-entropy on gold
completions of the sample data's train split, in which every stated confidence of 1 is replaced by a noisy one that is
lower for smaller objects (so that sampled confidences vary), and two of five detection questions are about a category
that is not in the image. Nothing of any released model is used, neither weights nor tokenizer.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
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
from vrft_bench.tasks.coordinates import Frame
from vrft_bench.tasks.detection import completion
from vrft_bench.tasks.profiles import QWEN2_VL

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
"""Ordinary tokens, so that decoding with ``skip_special_tokens`` keeps them."""

COORDINATES = ("333", "667", "1000")
"""Thousandths at which the sample data's 28-pixel cells begin and end (with 0): a token each."""

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif 'text' in part %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

PIECES = (
    r"</?(?:think|answer)>"  # the tags, whole
    rf"| ?(?<![0-9])(?:{'|'.join(COORDINATES)})(?![0-9])"  # grid coordinates, whole
    r"| ?[0-9]"  # other numbers digit by digit
    r"| ?[A-Za-z]+"  # words, with the space before them
    r"| ?[^\sA-Za-z0-9<>]+"  # runs of punctuation, such as [{'
    r"|[\s\S]"  # whatever is left, one character each: nothing is ever dropped
)

DETECTION, GROUNDING = "detection", "lisa_grounding"
CLASSIFICATION = ("classification", "flower102_fewshot", "pets37_fewshot", "fgvc_aircraft_fewshot", "cars196_fewshot")
MIXTURE = {"detection": 0.6, "grounding": 0.25, "classification": 0.15}
NEGATIVE_SHARE = 0.4


def build_tokenizer(texts: Sequence[str], most_words: int = 220) -> PreTrainedTokenizerFast:
    """A word-level tokenizer of ``texts`` that can encode any text and decodes it exactly.

    It is a BPE model without merges that takes a piece whole where the vocabulary has it (``ignore_merges``), letter by
    letter otherwise, and byte by byte where even the letter is unknown.
    """
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(piece for piece, _ in pieces.pre_tokenize_str(text))
    letters = [chr(code) for code in range(128)]
    numbers = [f"{space}{number}" for space in ("", " ") for number in (*COORDINATES, *"0123456789")]
    words = [piece for piece, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))][:most_words]
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    names = dict.fromkeys([*SPECIAL, *TAGS, *letters, *numbers, *words, *byte_tokens])
    tokenizer = Tokenizer(
        models.BPE(
            vocab={name: index for index, name in enumerate(names)},
            merges=[],
            ignore_merges=True,
            byte_fallback=True,
        )
    )
    tokenizer.pre_tokenizer = pieces
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL[1:]),
        clean_up_tokenization_spaces=False,
        model_max_length=4096,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


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
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10_000.0},
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


def gold_of(question: Question, rng: random.Random | None = None) -> str:
    """The gold completion; with ``rng``, boxes get a confidence that is lower for smaller objects, plus noise."""
    sample = question.sample
    frame = Frame(QWEN2_VL, sample.image.width, sample.image.height)
    if rng is None or not isinstance(sample.target, BoxTarget):
        return question.task.gold(sample, frame)
    confidences = []
    for x1, y1, x2, y2 in sample.target.boxes:
        share = (x2 - x1) * (y2 - y1) / (sample.image.width * sample.image.height)
        confidences.append(min(max(0.5 + 0.65 * math.sqrt(share) + rng.gauss(0.0, 0.08), 0.05), 0.99))
    return completion(sample.target.boxes, confidences, frame, sample.fields["category"])


class Encoder:
    """Turns questions into training batches: prompts masked out of the loss, image tokens in place."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, corpus: Corpus) -> None:
        self.tokenizer, self.corpus = tokenizer, corpus
        self.image_token = tokenizer.convert_tokens_to_ids("<|image_pad|>")
        self._prompts: dict[tuple[str, str], list[int]] = {}

    def batch(self, questions: Sequence[Question], rng: random.Random) -> dict[str, torch.Tensor]:
        prompts = [self._prompt(question) for question in questions]
        answers = [self.tokenizer(gold_of(question, rng) + "<|im_end|>")["input_ids"] for question in questions]
        longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers, strict=True))
        ids = torch.full((len(questions), longest), self.tokenizer.pad_token_id)
        labels = torch.full_like(ids, -100)
        mask = torch.zeros_like(ids)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            end = len(prompt) + len(answer)
            ids[row, :end] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : end] = torch.tensor(answer)
            mask[row, :end] = 1
        pixels = self.corpus.pixels[torch.tensor([question.image for question in questions])]
        return {
            "input_ids": ids,
            "labels": labels,
            "attention_mask": mask,
            "mm_token_type_ids": (ids == self.image_token).int(),
            "pixel_values": pixels.flatten(0, 1).float(),
            "image_grid_thw": torch.tensor([[1, 6, 6]] * len(questions)),
        }

    def _prompt(self, question: Question) -> list[int]:
        key = (question.task.name, prompt_of(question))
        if key not in self._prompts:
            chat = question.task.messages(question.sample, QWEN2_VL)
            text = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
            self._prompts[key] = self.tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * 9))["input_ids"]
        return self._prompts[key]


def train(
    model: Qwen2VLForConditionalGeneration, encoder: Encoder, *, steps: int, batch_size: int, rate: float, seed: int
) -> float:
    """AdamW with warm-up and a cosine to zero. Returns the mean loss of the last 50 steps."""
    rng = random.Random(seed)
    warmup = max(1, steps // 20)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps))),
    )
    model.train()
    losses: list[float] = []
    started = time.perf_counter()
    for step in range(steps):
        questions = [encoder.corpus.draw(rng) for _ in range(batch_size)]
        loss = model(**encoder.batch(questions, rng), use_cache=False).loss
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
    """A checkpoint folder as ``save_pretrained`` writes it, in bfloat16, with every file that loading it needs."""
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
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--evaluate", type=int, default=400, help="val questions per family to report on afterwards")
    parser.add_argument("--most-images", type=int, help="read no more images than this per family (for a quick trial)")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    corpus = Corpus(options.most_images)
    tokenizer = build_tokenizer(corpus.texts())
    model = build_model(tokenizer)
    parameters = sum(weight.numel() for weight in model.parameters())
    print(f"{len(corpus.pixels)} images, {len(tokenizer)} tokens, {parameters / 1e6:.2f} M parameters", flush=True)
    loss = train(
        model,
        Encoder(tokenizer, corpus),
        steps=options.steps,
        batch_size=options.batch_size,
        rate=options.rate,
        seed=options.seed,
    )
    if options.output.exists():
        shutil.rmtree(options.output)
    save(model, tokenizer, corpus, options.output)
    record = {
        "script": "scripts/train_tiny_model.py",
        "data": "embedded sample data, train split: coco, reasonseg, classes (drawn from seeds of their own)",
        "images": len(corpus.pixels),
        "seed": options.seed,
        "data_seed": options.seed,
        "steps": options.steps,
        "batch_size": options.batch_size,
        "peak_learning_rate": options.rate,
        "mixture": MIXTURE,
        "negative_share": NEGATIVE_SHARE,
        "threads": torch.get_num_threads(),
        "parameters": parameters,
        "final_loss": round(loss, 4),
        "validation": evaluate(options.output, options.evaluate) if options.evaluate else {},
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "tokenizers": tokenizers.__version__,
        },
    }
    (options.output / "training.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(record["validation"], indent=2))


if __name__ == "__main__":
    main()
