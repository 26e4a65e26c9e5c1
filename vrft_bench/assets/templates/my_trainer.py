"""my_trainer: a trainer for vrft-bench, in one file.

    vrft-bench train --include my_trainer.py --trainer my_trainer --task coco_fewshot --limit 40 --steps 5 -o out
    vrft-bench run --task coco_fewshot --model out/final

All that a trainer owes is a folder that ``vrft-bench run`` evaluates. This one learns the task's gold completions, in
plain PyTorch; put your engine where ``improve`` is, and all else works as it stands.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from vrft_bench.harness.plan import make_plan
from vrft_bench.registry import TRAINERS
from vrft_bench.tasks.base import Task
from vrft_bench.trainers.base import TrainConfig
from vrft_bench.trainers.base_model import find_base
from vrft_bench.trainers.data import check_grids, training_dataset, training_rows
from vrft_bench.trainers.final_model import save_final
from vrft_bench.trainers.folder import TrainingFolder
from vrft_bench.trainers.identity import training_record
from vrft_bench.trainers.progress import say


class MyTrainer:
    """``options`` are the hyperparameters that it has; any other that is given is refused."""

    name: ClassVar[str] = "my_trainer"
    options: ClassVar[frozenset[str]] = frozenset({"learning_rate", "steps", "batch_size", "max_pixels", "min_pixels"})

    def train(self, task: Task, model: str, config: TrainConfig) -> Path:
        """Train ``model`` (a checkpoint folder or hub id) on ``task``; the folder of the final checkpoint."""
        base = find_base(model, config)
        plan = make_plan(task, base.profile, config.run_config())
        rows = training_rows(plan, config.manifest, gold=True)
        with TrainingFolder(config.output_dir.absolute(), training_record(plan, base, config)) as folder:
            if folder.final.is_dir():
                return folder.final
            folder.begin_session()
            processor = base.processor()
            check_grids(rows, base.profile, processor)
            network = base.load(processor.tokenizer, adapters=False)
            self.improve(network, processor, training_dataset(rows, base.profile), config)
            save_final(network, folder.final, base)
            folder.update(status="complete", step=config.steps or 1)
        return folder.final

    def improve(self, network: Any, processor: Any, dataset: Any, config: TrainConfig) -> None:
        """Where the learning is. To be replaced: this takes ``config.steps`` steps on the rows, in their order.

        A row has ``prompt`` (messages), ``image`` (resized as the model sees it), ``completion``, ``sample_id`` and
        ``ground_truth``: what ``task.score(completion, ground_truth)`` takes, for a trainer that learns from reward.
        """
        import torch

        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate or 1e-5)
        network.train()
        batch = config.batch_size or 4
        for step in range(config.steps or 1):
            rows = [dataset[index % len(dataset)] for index in range(step * batch, (step + 1) * batch)]
            losses = [network(**_encoded(processor, row)).loss for row in rows]
            loss: Any = torch.stack(losses).mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            say(f"step {step + 1}/{config.steps or 1}  loss {loss.item():.4f}")


def _encoded(processor: Any, row: dict[str, Any]) -> dict[str, Any]:
    """The model's inputs for one row; only the completion is learned, to its end token."""
    question = [{"type": "image"}, {"type": "text", "text": row["prompt"][0]["content"]}]
    chat = [{"role": "user", "content": question}]
    prompt = processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    whole = prompt + row["completion"][0]["content"] + processor.tokenizer.eos_token
    images = [[row["image"]]]
    length = processor(text=[prompt], images=images, return_tensors="pt")["input_ids"].shape[1]
    inputs = processor(text=[whole], images=images, return_tensors="pt")
    labels = inputs["input_ids"].clone()
    labels[:, :length] = -100  # what the loss leaves out
    return {**inputs, "labels": labels}


TRAINERS.register("my_trainer", MyTrainer, summary="what it does, in a line for `vrft-bench ls trainers`")
