"""The figures of docs/engine.md on evaluation: questions asked in batches, and one by one.

    python -m experiments.speed.evaluation [--model DIR] [--every 4] [--repeats 3]

Asks every Nth question of the pocket benchmark in two ways: `model.generate` and one forward pass
for each question, and `unsee.evaluation.generation.answer_and_score` for all of them. Both are
timed in turn, in this process, on one thread. Prints the medians, the ratio, and how far the
answers differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from experiments.pages import table
from unsee.benchmarks.pocket import Pocket
from unsee.evaluation.generation import answer_and_score
from unsee.losses import sequence_nll
from unsee.models.vlm import VLM
from unsee.records.provenance import describe_this_machine
from unsee.types import Sample

# Generated texts, and the negative log-likelihoods of the true answers (nats a token).
Answers = tuple[list[str], list[float]]


@torch.no_grad()
def ask_one_by_one(vlm: VLM, samples: Sequence[Sample], max_new_tokens: int = 24) -> Answers:
    """Answers and scores each question alone, by the processor and the whole model."""
    texts, nlls = [], []
    tokenizer = vlm.processor.tokenizer
    for sample in samples:
        inputs = vlm.collate([sample], with_answer=False).inputs
        generated = vlm.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
        )
        answer = generated[0, inputs["input_ids"].shape[1] :]
        texts.append(tokenizer.decode(answer, skip_special_tokens=True).strip())
        batch = vlm.collate([sample])
        nlls.append(float(sequence_nll(vlm.logits(batch), batch.labels)))
    return texts, nlls


def timed(run: Callable[[], Answers]) -> tuple[Answers, float]:
    """Returns the answers and processor seconds, which other work on the machine leaves alone."""
    start = time.process_time()
    return run(), time.process_time() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--model", default="", help="checkpoint folder; pocket's target if empty")
    parser.add_argument("--every", type=int, default=4, help="ask every Nth question")
    parser.add_argument("--repeats", type=int, default=3, help="times that each way is timed")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pocket = Pocket.open(None)
    vlm = VLM.load(options.model or pocket.checkpoint("target"))
    samples = [s for split in pocket.splits for s in pocket.load(split)][:: options.every]
    pictures = {picture.source for sample in samples for picture in sample.pictures}
    ways: dict[str, Callable[[], Answers]] = {
        "one by one": lambda: ask_one_by_one(vlm, samples),
        "together": lambda: answer_and_score(vlm, samples),
    }
    answers, seconds = {}, {name: list[float]() for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            answers[name], spent = timed(way)
            seconds[name].append(spent)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    (texts, nlls), (other_texts, other_nlls) = answers.values()
    print(
        f"{describe_this_machine()}, 1 thread used: {len(samples)} questions about "
        f"{len(pictures)} pictures, each answered and its true answer scored; "
        f"median of {options.repeats}, processor seconds\n"
    )
    rows = [
        [name, f"{spent:.1f}", f"{len(samples) / spent:.0f}"] for name, spent in medians.items()
    ]
    print(table(["way", "seconds", "questions per second"], rows))
    print(f"\nratio {medians['one by one'] / medians['together']:.1f}")
    print(f"answers that differ: {sum(a != b for a, b in zip(texts, other_texts, strict=True))}")
    worst = max(abs(a - b) for a, b in zip(nlls, other_nlls, strict=True))
    print(f"largest difference of a likelihood: {worst:.1e} nats a token")


if __name__ == "__main__":
    main()
