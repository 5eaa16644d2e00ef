"""Your own PyTorch loop on real tokens only, and the same loop on any number of devices with Accelerate.

    python examples/custom_loop.py                                  plain PyTorch, one device
    accelerate launch examples/custom_loop.py --accelerate    every device in the configuration of `accelerate config`
    torchrun --nproc-per-node 2 examples/custom_loop.py --accelerate      two processes, also on a CPU

It trains the embedded model on generated pairs of sentences (--rows of them) and prints loss, accuracy and F1.

What to look at: `fasttune.padding_free(model)` is the one line that takes the padding out, before Accelerate wraps
the model. `split_batches` makes --batch-size the size of a step over all processes, so that one process and two train
on the same rows in each step. `drop_last` keeps the shares of the processes equal: the mean over a rank's rows,
averaged over ranks, is the mean over the step only where all have equally many. (`fasttune.fit` needs neither: it adds
sums and divides once.) `gather_for_metrics` drops the rows that were repeated to fill the last batch of an evaluation.
"""

from __future__ import annotations

import argparse

import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration
from sklearn.metrics import accuracy_score, f1_score
from torch.utils.data import DataLoader

import fasttune
from fasttune.data.starter.model import embedded_model_path
from fasttune.data.starter.pairs import LABELS, generate


def make_model(arguments: argparse.Namespace, **settings) -> transformers.PreTrainedModel:
    transformers.set_seed(arguments.seed)  # draws the weights of the new head
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        embedded_model_path(), num_labels=len(LABELS), dtype=torch.float32, **settings
    )
    return fasttune.padding_free(model)


def make_examples(num_rows: int) -> tuple[list[dict], list[dict], transformers.DataCollatorWithPadding]:
    """Training and validation examples, and what makes batches of them."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model_path(), model_max_length=512)

    def encoded(rows: list[dict[str, str]]) -> list[dict]:
        return [
            tokenizer(row["sentence1"], row["sentence2"], truncation=True) | {"labels": LABELS.index(row["label"])}
            for row in rows
        ]

    splits = generate()
    train, validation = encoded(splits["train"][:num_rows]), encoded(splits["validation"][: num_rows // 4])
    return train, validation, transformers.DataCollatorWithPadding(tokenizer)


def make_loaders(arguments: argparse.Namespace) -> tuple[DataLoader, DataLoader]:
    train, validation, collate = make_examples(arguments.rows)
    generator = torch.Generator().manual_seed(arguments.seed)
    size = arguments.batch_size
    return (
        DataLoader(train, size, shuffle=True, drop_last=True, collate_fn=collate, generator=generator),
        DataLoader(validation, size, collate_fn=collate),
    )


def make_schedule(optimizer: torch.optim.Optimizer, num_steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    return transformers.get_scheduler("linear", optimizer, num_warmup_steps=0, num_training_steps=num_steps)


def scores(predictions: list[int], labels: list[int]) -> dict[str, float]:
    return {"accuracy": accuracy_score(labels, predictions), "f1": f1_score(labels, predictions)}


def train_with_torch(arguments: argparse.Namespace, **settings) -> tuple[list[float], dict[str, float]]:
    """The loss of each step, and the scores at the end."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = make_model(arguments, **settings).to(device)
    train, validation = make_loaders(arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
    schedule = make_schedule(optimizer, arguments.epochs * len(train))
    losses = []
    for _ in range(arguments.epochs):
        model.train()
        for batch in train:
            loss = model(**batch.to(device)).loss
            loss.backward()
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    model.eval()
    predictions, labels = [], []
    with torch.no_grad():
        for batch in validation:
            predictions += model(**batch.to(device)).logits.argmax(-1).tolist()
            labels += batch["labels"].tolist()
    return losses, scores(predictions, labels)


def train_with_accelerate(arguments: argparse.Namespace, **settings) -> tuple[list[float], dict[str, float]]:
    """The same on any number of processes: `accelerator` places, wraps, shares out and gathers."""
    accelerator = Accelerator(
        # Without this, Accelerate 1.15 silently lets every process train alone on a CPU.
        cpu=not torch.cuda.is_available(),
        dataloader_config=DataLoaderConfiguration(split_batches=True),
    )
    model = make_model(arguments, **settings)
    train, validation = make_loaders(arguments)
    optimizer = torch.optim.AdamW(model.parameters(), lr=arguments.learning_rate)
    model, optimizer, train, validation = accelerator.prepare(model, optimizer, train, validation)
    # Not prepared: Accelerate would take num_processes steps of it at once.
    schedule = make_schedule(optimizer, arguments.epochs * len(train))
    losses = []
    for _ in range(arguments.epochs):
        model.train()
        for batch in train:
            loss = model(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            losses.append(accelerator.reduce(loss.detach(), reduction="mean").item())
    model.eval()
    predictions, labels = [], []
    with torch.no_grad():
        for batch in validation:
            logits = model(**batch).logits
            predicted, expected = accelerator.gather_for_metrics((logits.argmax(-1), batch["labels"]))
            predictions += predicted.tolist()
            labels += expected.tolist()
    return losses, scores(predictions, labels)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accelerate", action="store_true")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=16, help="examples a step, over all processes")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(words)


def main() -> None:
    arguments = parse()
    losses, found = (train_with_accelerate if arguments.accelerate else train_with_torch)(arguments)
    if not arguments.accelerate or Accelerator().is_main_process:
        print(
            f"loss {losses[0]:.4f} -> {losses[-1]:.4f}, " + ", ".join(f"{key} {one:.3f}" for key, one in found.items())
        )


if __name__ == "__main__":
    main()
