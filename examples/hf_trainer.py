"""transformers' own Trainer on real tokens only: one line more, and the loss of accumulated batches set right.

    python examples/hf_trainer.py                        padding-free
    python examples/hf_trainer.py --padded               as the Trainer comes, with dynamic padding

It trains the embedded model on generated reviews (--rows of them) and prints real tokens a second.

Accumulation. transformers 5.23 counts the items of all micro-batches of a step and passes the count to every model
whose forward takes **kwargs, expecting it to divide its summed loss by it; then it does not divide by the number of
micro-batches itself (Trainer.compute_loss and training_step). The classification heads of encoders take **kwargs,
ignore the count and return a mean. So with gradient_accumulation_steps=4 loss and gradients come out four times too
large, which clipping and Adam hide but never mend. A compute_loss_func that sums and divides once is right for any cut,
the smaller last micro-batch included.
"""

from __future__ import annotations

import argparse
import tempfile

import torch
import transformers
from torch.nn.functional import cross_entropy

import fasttune
from fasttune.data.starter.model import embedded_model_path
from fasttune.data.starter.reviews import LABELS, generate


def mean_over_step(outputs, labels, num_items_in_batch):
    """The mean over all examples of an optimizer step, whatever micro-batches it is cut into."""
    items = len(labels) if num_items_in_batch is None else num_items_in_batch
    return cross_entropy(outputs.logits.float(), labels, reduction="sum") / items


def make_trainer(arguments: argparse.Namespace, folder: str, **model_settings) -> transformers.Trainer:
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model_path(), model_max_length=512)
    transformers.set_seed(arguments.seed)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        embedded_model_path(), num_labels=len(LABELS), dtype=torch.float32, **model_settings
    )
    if not arguments.padded:
        model = fasttune.padding_free(model)  # the one line
    rows = generate()["train"][: arguments.rows]
    examples = [
        tokenizer(row["text"], truncation=True, max_length=512) | {"labels": LABELS.index(row["label"])} for row in rows
    ]
    return transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=arguments.batch_size // arguments.accumulation,
            gradient_accumulation_steps=arguments.accumulation,
            num_train_epochs=1,
            learning_rate=1e-4,
            bf16=arguments.bf16,
            optim="adamw_torch_fused",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=arguments.seed,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=examples,
        data_collator=transformers.DataCollatorWithPadding(tokenizer),
        compute_loss_func=mean_over_step,
    )


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--padded", action="store_true", help="the model as it comes")
    parser.add_argument("--bf16", action="store_true", help="autocast; the default is fp32, as the Trainer's")
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=16, help="examples an optimizer step")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches an optimizer step")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(words)


def main() -> None:
    arguments = parse()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(arguments, folder)
        seconds = trainer.train().metrics["train_runtime"]
    num_tokens = sum(len(example["input_ids"]) for example in trainer.train_dataset)
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss {losses[0]} -> {losses[-1]}, {num_tokens / seconds:,.0f} real tokens/s")


if __name__ == "__main__":
    main()
