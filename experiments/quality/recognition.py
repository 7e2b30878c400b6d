"""What a run from photographs alone measures: asked openly, and compared by features.

    python -m experiments.quality.recognition [--steps 2,200] [--out FOLDER]

Copies the pictures of pocket's people into folders, one subfolder a person, and unlearns the four
people to be forgotten with seed 0 and these numbers of steps, with and without the pictures of the
others as `--retain`, and with the visual-retain reference at 2 steps. Prints a table; 0 steps is
the model before.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import unsee
from experiments.pages import table
from unsee.benchmarks.pocket import Pocket
from unsee.records.schema import Measures, Summary

HEADS = (
    "steps", "photographs to keep", "says what it said", "of others", "rank-1", "verification AUC",
    "at 1 % false accepts", "kept people: says what it said", "verdict",
)  # fmt: skip


def photographs(folder: Path) -> tuple[Path, Path]:
    """Folders of the pictures of pocket's people to forget and to keep, a subfolder a person."""
    pocket = Pocket.open()
    for side in ("forget", "retain"):
        for sample in pocket.load(side):
            picture = sample.picture.path if sample.picture is not None else None
            if sample.concept and picture is not None:
                shutil.copytree(picture.parent, folder / side / sample.concept, dirs_exist_ok=True)
    return folder / "forget", folder / "retain"


def row(steps: int, kept: str, measures: Measures, verdict: str) -> list[str]:
    """A line of the table."""
    keys = (
        "forget_holdout/vqa/said_before",
        "others/vqa/said_of_others",
        "forget_holdout/features/rank_1",
        "forget_holdout/features/verification_auc",
        "forget_holdout/features/verification_rate",
        "retain_holdout/vqa/said_before",
    )
    values = [measures[key].value if key in measures else None for key in keys]
    return [str(steps), kept, *("" if v is None else f"{v:.2f}" for v in values), verdict]


def headline(summary: Summary) -> str:
    """The words of the verdict before its first colon."""
    return (summary.verdict or "").partition(":")[0]


def main() -> None:
    """Runs every setting and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", default="2,200")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with TemporaryDirectory() as temporary:
        root = options.out or Path(temporary)
        forget, retain = photographs(root)
        rows: list[list[str]] = []
        for kept in ("yes", "no"):
            before: list[str] | None = None
            for steps in (int(number) for number in options.steps.split(",")):
                reference = "pocket:visual_retain" if steps == 2 else None
                run = unsee.unlearn(
                    "pocket:target",
                    forget=forget,
                    retain=retain if kept == "yes" else None,
                    out=root / f"{kept}-{steps}",
                    steps=steps,
                    reference=reference,
                )
                summary = run.summary
                if before is None:
                    before = row(0, kept, summary.target or {}, "")
                    rows.append(before)
                rows.append(row(steps, kept, summary.measures or {}, headline(summary)))
                if summary.reference:
                    rows.append(row(0, f"{kept}, visual-retain", summary.reference, ""))
        print(table(HEADS, rows))


if __name__ == "__main__":
    main()
