"""Questions as tensors: batches of whole conversations, and what each visual token of an image shows."""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerFast

from tiny_model.corpus import Corpus, Question, boxes_of, gold_of, prompt_of
from vrft_bench.tasks.data.sample_scenes import CELL, COLOURS, GRID, SHAPES
from vrft_bench.tasks.profiles import QWEN2_VL

CONFIDENCE_WEIGHT = 0.1
"""In the loss, a token of a stated confidence counts so much, since it is mostly noise; every other token counts 1."""


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
            for box in boxes_of(question):
                x1, y1, x2, y2 = edges = [round(value / CELL) for value in box]
                cells = [y * GRID + x for y in range(y1, y2) for x in range(x1, x2)]
                self.colours[row, cells] = list(COLOURS).index(colour)
                self.shapes[row, cells] = SHAPES.index(shape)
                self.edges[row, cells] = torch.tensor(edges)
