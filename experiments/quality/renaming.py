"""Whether forgetting renames: pairs of pocket's people, unlearned without photographs of others.

    python -m experiments.quality.renaming [--pairs 6] [--people 2] [--populations forget;kept;...]

Pairs of the people to be forgotten, or with --people 1 each alone, are unlearned by VKD from
their pictures alone, once with each population, with the drawn faces that ship with the package as
stand-ins for people to keep. "other kind" makes these grey and inverted, as unlike pocket's
pictures as drawings are unlike photographs; "retain" gives the pictures of the other people.
Prints a table of what held-out pictures are answered with.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Sequence
from dataclasses import replace

from PIL import ImageOps

from experiments.pages import table
from unsee.benchmarks.pocket import Pocket
from unsee.data.selection import one_sample_per_picture
from unsee.evaluation.generation import answer_and_score
from unsee.metrics.letters import contains_words
from unsee.models.vlm import VLM
from unsee.recipes.unlearn import make_recipe
from unsee.training.trainer import Trainer
from unsee.types import Data, Picture, Sample

POPULATIONS = {
    "retain": "photographs of the other people given",
    "forget": "`forget`",
    "generated": "`generated` (the default)",
    "generated, other kind": "`generated`, stand-ins of other kind",
    "kept": "`kept`, the stand-ins",
    "kept, other kind": "`kept`, stand-ins of other kind",
}
HEADS = ("population", "pairs", "names the other", "own name", "kept people", "general")


def inverted(picture: Picture) -> Picture:
    """The picture in inverted grey."""
    with io.BytesIO() as file:
        ImageOps.invert(ImageOps.grayscale(picture.open())).save(file, "PNG")
        return Picture(f"inverted-{picture.source}", data=file.getvalue())


def data_without_others(pocket: Pocket, pair: Sequence[str], population: str) -> Data:
    """The pictures of a pair, without answers, and the stand-ins for people to keep."""
    data = pocket.data()

    def bare(samples: Sequence[Sample]) -> list[Sample]:
        shown = one_sample_per_picture([s for s in samples if s.picture is not None])
        return [replace(s, question="", answer="", choices=()) for s in shown]

    forget = bare([s for s in data.forget if s.concept in pair])
    if population == "retain":
        return Data(forget, bare(data.retain))
    pictures = [inverted(p) if "other kind" in population else p for p in data.strangers]
    stand_ins = [Sample(f"stranger/{i}", "", "", picture) for i, picture in enumerate(pictures)]
    return Data(forget, stand_ins, pictures)


def answers(vlm: VLM, samples: Sequence[Sample]) -> list[str]:
    """The greedy answers to questions."""
    return answer_and_score(vlm, samples, score_answers=False)[0]


def share_right(vlm: VLM, samples: Sequence[Sample]) -> float:
    """The share of the first forty questions without options that are answered exactly."""
    asked = [s for s in samples if not s.choices][:40]
    pairs = zip(answers(vlm, asked), asked, strict=True)
    return sum(text.strip(" .") == s.answer.strip(" .") for text, s in pairs) / len(asked)


def names_asked(pocket: Pocket, split: str) -> list[Sample]:
    """The questions for names of a split."""
    return [s for s in pocket.load(split) if s.id.split("/")[-2] == "name"]


def measure(
    pocket: Pocket, pair: Sequence[str], population: str
) -> tuple[int, int, int, float, float]:
    """Unlearns a pair.

    Returns:
        The number of questions for the pair's names, of answers with the other name and with the
        own, and the shares of names of kept people and of general questions that are right.
    """
    vlm, name = VLM.load(pocket.checkpoint("target")), population.split(",")[0]
    compared = "kept" if name == "retain" else name
    values = {"paper": True, "supervision": "features", "population": compared}
    data = data_without_others(pocket, pair, population)
    recipe = make_recipe({"method": "vkd", "set": values})
    recipe.method.unlearn(vlm, data, Trainer(recipe.training))
    asked = [
        s
        for s in names_asked(pocket, "forget_holdout")
        if s.concept in pair and s.task == "generation"
    ]
    own = other = 0
    for sample, text in zip(asked, answers(vlm, asked), strict=True):
        own += contains_words(text, sample.concept or "")
        other += any(contains_words(text, n) for n in pair if n != sample.concept)
    kept = share_right(vlm, names_asked(pocket, "retain_validation"))
    return len(asked), other, own, kept, share_right(vlm, pocket.load("general_validation"))


def main() -> None:
    """Measures the populations and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--people", type=int, default=2, help="unlearned together")
    parser.add_argument("--populations", default=";".join(POPULATIONS), help="separated by ;")
    given = parser.parse_args()
    pocket, rows = Pocket.open(), []
    for population in given.populations.split(";"):
        pairs = list(itertools.combinations(pocket.forgotten, given.people))[: given.pairs]
        measured = list(zip(*(measure(pocket, pair, population) for pair in pairs), strict=True))
        asked, other, own = (sum(counts) for counts in measured[:3])
        shares = [f"{sum(side) / len(side):.3f}" for side in measured[3:]]
        counts = [f"{other} of {asked}", f"{own} of {asked}"]
        rows.append([POPULATIONS[population], str(len(pairs)), *counts, *shares])
    print(table(HEADS, rows))


if __name__ == "__main__":
    main()
