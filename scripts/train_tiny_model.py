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

What the model is made of, what it learns from and how each stage teaches it lie in ``tiny_model/``, a file each.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tiny_model.architecture import build_model
from tiny_model.batches import Cells, Encoder
from tiny_model.corpus import CLASSIFICATION, DETECTION, GROUNDING, MIXTURE, NEGATIVE_SHARE, Corpus
from tiny_model.stages import align_vision, train
from tiny_model.tokenizer import build_tokenizer
from transformers import AutoTokenizer, GenerationConfig, PreTrainedTokenizerFast, Qwen2VLForConditionalGeneration

from vrft_bench.harness.models.base import Request, Sampling
from vrft_bench.harness.models.hf import HFBackend
from vrft_bench.tasks import get_task
from vrft_bench.tasks.base import BoxTarget, DataSpec
from vrft_bench.tasks.coordinates import Frame

CARELESS_SHARE = 0.6
"""In stage three, so often is a right or a lower edge one cell too far."""


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
