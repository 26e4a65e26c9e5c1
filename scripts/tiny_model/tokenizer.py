"""The bundled tiny model's tokenizer: a few hundred words of the sample data's questions and answers, and bytes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from vrft_bench.tasks import prompts
from vrft_bench.tasks.coordinates import Frame
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


def _phrases() -> list[str]:
    """What the prompts always say, between the parts that differ from sample to sample: a token each.

    A question is then some ten tokens long, not a hundred, which makes training and answering several times faster.
    """
    blank, frame = "\0", Frame(QWEN2_VL, 84, 84)
    templates = (
        prompts.detection_prompt(blank, frame),
        prompts.region_prompt(blank, frame),
        prompts.classification_prompt(blank, blank, QWEN2_VL),
    )
    parts = {part for template in templates for part in template.split(blank) if len(part) > 8}
    return sorted(parts, key=lambda part: (-len(part), part))


PIECES = "|".join(
    (
        *(re.escape(phrase) for phrase in _phrases()),
        r"</?(?:think|answer)>",  # the tags, whole
        rf" ?(?<![0-9])(?:{'|'.join(COORDINATES)})(?![0-9])",  # grid coordinates, whole
        r" ?[0-9]",  # other numbers digit by digit
        r" ?[A-Za-z]+",  # words, with the space before them
        r" ?[^\sA-Za-z0-9<>]+",  # runs of punctuation, such as [{'
        r"[\s\S]",  # whatever is left, one character each: nothing is ever dropped
    )
)


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
