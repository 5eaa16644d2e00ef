"""Measure the memory of an evaluation against the number of rows.

    python benchmarks/memory.py [--texts 1000 10000 50000] [--questions 500 1500 5000] [--rounds 3]

Generated sentences with a class each, and generated questions about generated contexts, with models trained for a few
steps. Each size runs in a separate process, over several rounds. Reported: the peak of resident memory while the split
is scored, including rows and tokens, and how much of it was used before. Nothing else may run at the same time.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from sides import ROOT, heading, machine

STEPS = 5


def write_rows(path: Path, kind: str, number: int) -> None:
    """Write rows of the starter data, numbered so that all differ."""
    from fasttune.data.starter import questions, reviews

    made = itertools.cycle((questions if kind == "questions" else reviews).generate()["train"])
    with path.open("w", encoding="utf-8") as file:
        for index, row in enumerate(itertools.islice(made, number)):
            if kind == "questions":
                row = {**row, "id": str(index), "context": f"{row['context']} This was note {index}."}
            else:  # one to three sentences, to score many rows in little time
                sentences = row["text"].split(". ")[: 1 + index % 3]
                row = {"text": f"{'. '.join(sentences)}, in room {index}.", "label": row["label"]}
            file.write(json.dumps(row) + "\n")


def status(name: str) -> int:
    """Bytes of this process as the kernel reports them."""
    text = Path("/proc/self/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) * 1024


def evaluate(run: str, rows: str) -> dict[str, int]:
    import fasttune
    from fasttune.data.pipeline import encode, read_labelled
    from fasttune.tasks import TASKS
    from fasttune.training.scoring import score_split

    predictor = fasttune.load(run)
    split = read_labelled(predictor.recipe, TASKS, rows, "test")
    store = encode(split, predictor.task, predictor.setup.tokenizer, predictor.setup.max_length)
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # reset the peak (proc(5))
    score_split(predictor.setup, predictor.task, split, store)
    return {"before": before, "peak": status("VmHWM"), "rows": len(split.rows), "tokens": store.num_tokens}


def measured(kind: str, numbers: list[int], rounds: int, folder: Path) -> dict[str, list[dict[str, int]]]:
    recipe = "squad-starter" if kind == "questions" else "quickstart"
    run = folder / kind
    settings = [f"training.max_steps={STEPS}", "evaluation.eval_strategy=no", "output.save_strategy=no"]
    command = [sys.executable, "-m", "fasttune", "train", recipe, "--output", str(run), "--quiet", *settings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    found: dict[str, list[dict[str, int]]] = {}
    for number in numbers:
        rows = folder / f"{kind}-{number}.jsonl"
        write_rows(rows, kind, number)
        command = [sys.executable, __file__, "--evaluate", str(run), str(rows)]
        evaluate_once = [json.loads(subprocess.check_output(command, text=True)) for _ in range(rounds)]
        found[str(number)] = evaluate_once
    return found


def page(results: dict[str, dict[str, list[dict[str, int]]]]) -> str:
    lines = [
        "# Memory of an evaluation",
        "",
        "| rows | tokens | before | peak, median | all |",
        "|---|---|---|---|---|",
    ]
    for kind, sizes in results.items():
        for number, rounds in sizes.items():
            peaks = [one["peak"] / 1e6 for one in rounds]
            before = statistics.median(one["before"] / 1e6 for one in rounds)
            each = ", ".join(f"{peak:,.0f}" for peak in peaks)
            lines.append(
                f"| {int(number):,} {kind} | {rounds[0]['tokens']:,} | {before:,.0f} MB "
                f"| {statistics.median(peaks):,.0f} MB | {each} |"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", nargs="*", type=int, default=[1000, 10_000, 50_000])
    parser.add_argument("--questions", nargs="*", type=int, default=[500, 1500, 5000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--evaluate", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.evaluate:
        print(json.dumps(evaluate(*arguments.evaluate)))
        return
    facts = machine()
    with tempfile.TemporaryDirectory() as name:
        results = {
            kind: measured(kind, getattr(arguments, kind), arguments.rounds, Path(name))
            for kind in ("texts", "questions")
        }
    target = ROOT / "benchmarks" / "results" / f"{facts['date']}-memory"
    target.with_suffix(".json").write_text(json.dumps({"facts": facts, "results": results}, indent=1) + "\n")
    title, rest = page(results).split("\n", 1)
    target.with_suffix(".md").write_text(f"{title}\n\n{heading(facts)}\n{rest}\n")
    print(page(results))


if __name__ == "__main__":
    main()
