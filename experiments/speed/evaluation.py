"""The figures of docs/engine.md on evaluation: questions asked together, and one by one.

    python -m experiments.speed.evaluation [--model DIR] [--every 4] [--repeats 3]

Asks every Nth question of the pocket benchmark in two ways: `model.generate` and one forward pass
for each question alone, and `unsee.answers.ask` for all of them. Both are timed in turn, in this
process, on one thread; printed are the medians, the ratio, and how far the answers differ.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from unsee.benchmarks.pocket import Pocket
from unsee.evaluation.generation import answer_and_score
from unsee.losses import sequence_nll
from unsee.models.vlm import VLM
from unsee.records.provenance import describe_this_machine
from unsee.types import Sample

Answers = tuple[list[str], list[float]]


@torch.no_grad()
def one_by_one(vlm: VLM, samples: Sequence[Sample], longest: int = 24) -> Answers:
    """Each question through the processor and the whole model, to answer and to score."""
    texts, nlls = [], []
    tokens = vlm.processor.tokenizer
    for sample in samples:
        inputs = vlm.collate([sample], with_answer=False).inputs
        made = vlm.model.generate(
            **inputs, max_new_tokens=longest, do_sample=False, pad_token_id=tokens.pad_token_id
        )
        new = made[0, inputs["input_ids"].shape[1] :]
        texts.append(tokens.decode(new, skip_special_tokens=True).strip())
        batch = vlm.collate([sample])
        nlls.append(float(sequence_nll(vlm.logits(batch), batch.labels)))
    return texts, nlls


def timed(run: Callable[[], Answers]) -> tuple[Answers, float]:
    """What it gives, and the processor's seconds: others on the machine do not count."""
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
    pictures = {p.source for s in samples for p in s.pictures}
    ways: dict[str, Callable[[], Answers]] = {
        "one by one": lambda: one_by_one(vlm, samples),
        "together": lambda: answer_and_score(vlm, samples),
    }
    found, seconds = {}, {name: list[float]() for name in ways}
    for _ in range(options.repeats):
        for name, way in ways.items():
            found[name], spent = timed(way)
            seconds[name].append(spent)
    medians = {name: statistics.median(some) for name, some in seconds.items()}
    (texts, nlls), (others, values) = found.values()
    print(f"{describe_this_machine()}, 1 thread used, {len(samples)} questions about")
    print(f"{len(pictures)} pictures, each answered and its true answer scored; median of")
    print(f"{options.repeats}, processor seconds\n")
    print("| way | seconds | questions a second |\n| --- | ---: | ---: |")
    for name, spent in medians.items():
        print(f"| {name} | {spent:.1f} | {len(samples) / spent:.0f} |")
    print(f"\nratio {medians['one by one'] / medians['together']:.1f}")
    print(f"answers that differ: {sum(a != b for a, b in zip(texts, others, strict=True))}")
    worst = max(abs(a - b) for a, b in zip(nlls, values, strict=True))
    print(f"largest difference of a likelihood: {worst:.1e} nats a token")


if __name__ == "__main__":
    main()
