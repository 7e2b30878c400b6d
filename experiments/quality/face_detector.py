"""How often the face detector finds the one face of a portrait; writes docs/few-photographs.md.

    python -m experiments.quality.face_detector --faces DIR [--each 3]

Looks for faces on the first photographs of every person in a folder (one subfolder a person, each
photograph with one person on it), as `unsee data check` and `unsee request new` do. Nothing is
drawn at random. The counts are kept beside this file; the page is written from them.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.pages import DOCS, append_row, read_rows, replace_section
from experiments.quality.photos import DATABASE
from unsee.data.faces import faces
from unsee.data.folders import list_folder
from unsee.records.provenance import describe_this_machine
from unsee.types import Picture

PAGE = DOCS / "few-photographs.md"
KEPT = Path(__file__).with_suffix(".jsonl")


def measure(folder: Path, each: int) -> dict[str, Any]:
    """Returns how many photographs show no face, one, and several, as the detector finds them.

    Args:
        folder: Photographs, one subfolder a person.
        each: Photographs of each person.
    """
    people: dict[str, list[Path]] = {}
    for path in list_folder(folder).pictures:
        people.setdefault(path.parent.name, []).append(path)
    looked_at = [path for own in people.values() for path in own[:each]]
    found = Counter(min(len(faces(Picture.from_path(path))), 2) for path in looked_at)
    return {
        "people": len(people),
        "each": each,
        "none": found[0],
        "one": found[1],
        "several": found[2],
        "machine": describe_this_machine(),
    }


def section(row: dict[str, Any]) -> str:
    """Returns what the page says."""
    total = row["people"] * row["each"]
    return (
        f"On the first {row['each']} photographs of each of {row['people']} people the detector "
        f"finds one face on {row['one']} of {total}, none on {row['none']} and several on "
        f"{row['several']} (`python -m experiments.quality.face_detector --faces DIR --each "
        f"{row['each']}`, {row['machine']}; {DATABASE})."
    )


def main() -> None:
    """Counts, if there is no row yet, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--faces", type=Path, required=True)
    parser.add_argument("--each", type=int, default=3)
    options = parser.parse_args()
    rows = [row for row in read_rows(KEPT) if row["each"] == options.each]
    if not rows:
        append_row(KEPT, rows, measure(options.faces, options.each))
    replace_section(PAGE, "detector", section(rows[-1]))


if __name__ == "__main__":
    main()
