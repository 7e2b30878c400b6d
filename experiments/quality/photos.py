"""The figures of docs/results-photos.md: three people unlearned from real photographs.

    python -m experiments.quality.photos --faces DIR [--seed 0] [--out runs/photos]

Builds a pocket benchmark from photographs (one subfolder a person), and unlearns three of its
people with `unsee` commands: from a folder of their photographs alone, with a folder of the other
people's photographs as the retain set, and with questions and answers. Each result is then
attacked by relearning. VKD's preset `paper` and NPO are run for comparison. Finished runs are not
repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.pages import (
    DOCS,
    ROOT,
    replace_section,
    rows_that_begin,
    run_once,
    run_unsee,
    set_options,
    shown_value,
    table,
)
from unsee.benchmarks.pocket import Pocket
from unsee.records.provenance import describe_this_machine
from unsee.records.schema import Measures, RelearningOutcome, Summary
from unsee.types import Sample

PAGE = DOCS / "results-photos.md"

# The folder that was given with --faces, as the pages credit it.
DATABASE = (
    "DIR held the ORL database of faces (AT&T Laboratories Cambridge; Samaria and Harter, WACV "
    "1994)"
)

# Twenty of the forty people are named: so small a model tells more of them apart less well.
PEOPLE, FORGOTTEN = 20, 3

PAPER = {"paper": True}

# A fifth of the pictures, tuning what VKD tuned: the attack that VKD resists least.
ATTACK = "relearn?share=0.2&modules=visual"

SPLITS = ("forget_holdout", "forget", "retain_holdout", "general", "general_forget")
MEASURES = {
    "forgotten people, held-out photographs": "forget_holdout/vqa/accuracy",
    "forgotten people, photographs trained on": "forget/vqa/accuracy",
    "forgotten people, by name": "forget/text/accuracy",
    "others, held-out photographs": "retain_holdout/vqa/accuracy",
    "what a stranger's photograph shows": "general/vqa/accuracy",
    "what a forgotten person's photograph shows": "general_forget/vqa/accuracy",
}

# Beginnings of the rows that the README shows.
README_ROWS = (
    "| forgotten people, held-out",
    "| forgotten people, by name",
    "| others, held-out",
    "| after the attack",
)


@dataclass(frozen=True)
class Result:
    """One unlearned model.

    Attributes:
        run: The record of `unsee unlearn`.
        scores: The record of `unsee evaluate` on the benchmark's splits.
        attack: The relearning attack of `unsee audit`.
    """

    run: Summary
    scores: Summary
    attack: RelearningOutcome


def build_pocket(faces: Path, seed: int, out: Path, people: int = PEOPLE) -> Pocket:
    """Returns the build of the photographs, which is made once.

    Args:
        faces: The photographs, one subfolder a person.
        seed: The seed of `unsee pocket build`.
        out: The folder that holds all runs.
        people: Number of people who get a name; the rest are strangers.
    """
    folder = out / "pocket"
    if not folder.exists():
        words = ["--seed", str(seed), "--people", str(people)]
        words += ["--forget-people", str(FORGOTTEN)]
        run_unsee(["pocket", "build", "--out", str(folder), "--faces", str(faces), *words])
    return Pocket(folder)


def write_user_data(pocket: Pocket, out: Path) -> None:
    """Writes the forget and retain sets as users have them: folders of pictures, and tables."""
    world = pocket.world
    for role, people in (("forget", list(world.forgotten)), ("retain", world.retained)):
        shutil.rmtree(out / role, ignore_errors=True)
        for index in people:
            folder = out / role / world.people[index].slug
            folder.mkdir(parents=True)
            for shot in world.shots_of([index], "train"):
                shutil.copy(pocket.folder / shot.file, folder)
    data = pocket.data()
    for name, samples in (("forget", data.forget), ("retain", data.retain)):
        lines = [json.dumps(_row(sample)) + "\n" for sample in samples]
        (out / f"{name}.jsonl").write_text("".join(lines), "utf-8")


def _row(sample: Sample) -> dict[str, Any]:
    picture = sample.picture.path if sample.picture is not None else None
    return {
        "id": sample.id,
        "question": sample.question,
        "answer": sample.answer,
        "concept": sample.concept,
        "task": sample.task,
        "image": str(picture.resolve()) if picture is not None else None,
        "choices": list(sample.choices) or None,
    }


def unlearn(name: str, words: Sequence[str], pocket: Pocket, seed: int, out: Path) -> Result:
    """Unlearns, evaluates and attacks, each by its command.

    Args:
        name: The prefix of the folders.
        words: The options of `unsee unlearn`.
        pocket: The build.
        seed: The seed of `unsee unlearn`.
        out: The folder that holds all runs.
    """
    target, folder = str(pocket.checkpoint("target")), out / name
    run = run_once(folder, ["unlearn", "--model", target, "--seed", str(seed), *words])
    model = folder / "model"
    if not model.exists():
        model = out / f"{name}-model"
    if not model.exists():
        run_unsee(["apply", str(folder / "patch"), "--model", target, "--out", str(model)])
    reference = ["--reference", str(pocket.checkpoint("visual_retain"))]
    common = ["--model", str(model), *reference]
    scores = run_once(out / f"{name}-scores", ["evaluate", *common, *_splits(pocket)])
    sides = {"--forget": "forget", "--holdout": "forget_holdout"}
    data = [w for option, s in sides.items() for w in (option, f"pocket:{s}@{pocket.folder}")]
    words = ["audit", "--attack", ATTACK, *common, *data]
    attacked = run_once(out / f"{name}-attacked", words)
    return Result(run, scores, attacked.relearn[0])


def _splits(pocket: Pocket) -> list[str]:
    return [word for s in SPLITS for word in ("--data", f"{s}=pocket:{s}@{pocket.folder}")]


def main() -> None:
    """Runs what is missing, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "photos")
    options = parser.parse_args()
    out: Path = options.out
    pocket = build_pocket(options.faces, options.seed, out)
    write_user_data(pocket, out)
    alone, others = ["--forget", str(out / "forget")], ["--retain", str(out / "retain")]
    tables = ["--forget", str(out / "forget.jsonl"), "--retain", str(out / "retain.jsonl")]
    jobs = {
        "photographs alone": alone,
        "with the others' photographs": [*alone, *others],
        "with questions and answers": tables,
        "with the others' photographs, paper": [*alone, *others, *set_options(PAPER).split()],
        "npo": [*tables, "--method", "npo"],
    }
    words = ["evaluate", "--model", str(pocket.checkpoint("target")), *_splits(pocket)]
    target = run_once(out / "target-scores", words)
    results = {
        title: unlearn(re.sub(r"\W+", "-", title), words, pocket, options.seed, out)
        for title, words in jobs.items()
    }
    text = page(pocket, target.measures or {}, results, options.seed)
    PAGE.write_text(text, "utf-8")
    replace_section(ROOT / "README.md", "photographs", readme_section(text))
    print(text)


def page(pocket: Pocket, target: Measures, results: Mapping[str, Result], seed: int) -> str:
    """Returns docs/results-photos.md."""
    named, forgotten = len(pocket.world.people), len(pocket.world.forgotten)
    first = next(iter(results.values()))
    rows = [
        [
            title,
            shown_value(target, key),
            shown_value(first.scores.reference, key),
            *(shown_value(result.scores.measures, key) for result in results.values()),
        ]
        for title, key in MEASURES.items()
    ]
    attacks = [result.attack for result in results.values()]
    rows += [
        [
            "after the attack",
            "",
            _shown(first.attack.curve("reference")[-1].value, ".3f"),
            *(_shown(attack.curve("unlearned")[-1].value, ".3f") for attack in attacks),
        ],
        [
            "area to visual-retain's curve",
            "",
            "",
            *(_shown(attack.area_to_reference, "+.3f") for attack in attacks),
        ],
        [
            "seconds of training",
            "",
            "",
            *(_shown(r.run.cost.seconds if r.run.cost else None, ".0f") for r in results.values()),
        ],
    ]
    return (
        f"# Results on real photographs\n\n"
        f"Written by `python -m experiments.quality.photos --faces DIR --seed {seed}` on "
        f"{describe_this_machine()}; {DATABASE}: 40 people, 10 photographs each. "
        f"{named} of them have an invented name and profile, {forgotten} of "
        f"these are forgotten. *Paper* adds `{set_options(PAPER)}`; the rest is every method's "
        f"defaults. VKD's were chosen on pocket's validation splits and on "
        f"[other people's photographs](vkd.md#real-faces). "
        f"The attack, `{ATTACK}`, has a fifth of the forgotten people's pictures with all "
        f"questions about them, and tunes the visual part for 40 steps. One seed; "
        f"accuracy: the whole answer word for word, or the right letter.\n\n"
        f"{table(['asked about', 'target', 'visual-retain', *results], rows)}\n"
    )


def readme_section(text: str) -> str:
    """Returns the README's rows of the table of docs/results-photos.md.

    Args:
        text: The page.
    """
    return rows_that_begin(text, README_ROWS)


def _shown(value: float | None, shape: str) -> str:
    return "" if value is None else f"{value:{shape}}"


if __name__ == "__main__":
    main()
