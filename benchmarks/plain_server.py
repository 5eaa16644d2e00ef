"""Servers as people write them by hand, to compare `fasttune serve` with.

    python benchmarks/plain_server.py RUN --style def|async --port 9000

`def`: the handler of FastAPI's documentation, a `def` function that calls a pipeline of transformers; FastAPI runs it
in its thread pool. `async`: the fastest serial server by hand, an `async` function that runs the model itself without
gradients, with all cores for torch, and so answers one request after the other. Both take what `fasttune serve` does,
with the model in fp32, as transformers loads it. transformers 5.23 has no pipeline for questions, so the `def` server
answers them by the same function as the `async` one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
import uvicorn
from fastapi import Body, FastAPI

Answer = Callable[[Any], Any]


def by_pipeline(run: Path, kind: str) -> Answer:
    if kind == "question":
        return by_hand(run, kind)
    task = "token-classification" if kind == "sentence" else "text-classification"
    pipeline = transformers.pipeline(task, model=str(run))  # type: ignore[call-overload]
    options: dict[str, Any] = {"aggregation_strategy": "simple"} if kind == "sentence" else {"top_k": None}
    if kind != "sentence":
        options |= {"truncation": True}

    def answer(item: Any) -> Any:
        found = pipeline(item, **options)
        return [{**one, "score": float(one["score"])} for one in found]

    return answer


def by_hand(run: Path, kind: str) -> Answer:
    tokenizer = transformers.AutoTokenizer.from_pretrained(run)
    kinds = {
        "question": transformers.AutoModelForQuestionAnswering,
        "sentence": transformers.AutoModelForTokenClassification,
    }
    model = kinds.get(kind, transformers.AutoModelForSequenceClassification).from_pretrained(run).eval()
    names = model.config.id2label

    def encoded(*texts: str) -> Any:
        return tokenizer(*texts, truncation=True, max_length=512, return_tensors="pt", return_offsets_mapping=True)

    @torch.inference_mode()
    def answer(item: Any) -> Any:
        texts = list(item.values()) if isinstance(item, dict) else [item]
        inputs = encoded(*texts)
        offsets = inputs.pop("offset_mapping")[0].tolist()
        output = model(**inputs)
        if kind == "question":
            is_context = torch.tensor([number == 1 for number in inputs.sequence_ids(0)])
            scores = output.start_logits[0][:, None] + output.end_logits[0][None, :]
            allowed = torch.triu(torch.ones_like(scores), 0).tril(29).bool() & is_context[:, None] & is_context[None, :]
            best = int(scores.masked_fill(~allowed, -torch.inf).argmax())
            begin, end = divmod(best, len(offsets))
            return {"answer": item["context"][offsets[begin][0] : offsets[end][1]]}
        probabilities = output.logits[0].softmax(-1)
        if kind == "sentence":
            best_of = probabilities.argmax(-1).tolist()
            return [
                {"label": names[label], "start": start, "end": end}
                for label, (start, end) in zip(best_of, offsets, strict=True)
                if end and names[label] != "O"
            ]
        return {names[number]: value for number, value in enumerate(probabilities.tolist())}

    return answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--kind", choices=("text", "pair", "question", "sentence"), default="text")
    parser.add_argument("--style", choices=("def", "async"), required=True)
    parser.add_argument("--port", type=int, required=True)
    arguments = parser.parse_args()
    app = FastAPI()
    made = by_pipeline if arguments.style == "def" else by_hand
    answer = made(arguments.run, arguments.kind)

    def predict(inputs: list[Any] = Body(embed=True)) -> Any:  # noqa: B008 - FastAPI's way
        return {"predictions": [answer(item) for item in inputs]}

    def ready() -> dict[str, str]:
        return {}

    async def predict_serially(inputs: list[Any] = Body(embed=True)) -> Any:  # noqa: B008
        return predict(inputs)

    app.post("/predict")(predict if arguments.style == "def" else predict_serially)
    app.get("/ready")(ready)
    uvicorn.run(app, port=arguments.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
