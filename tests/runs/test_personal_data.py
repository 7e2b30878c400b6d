"""Redacted runs, killed and finished, and purged ones hold no name, path, picture or answer."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from support.cli import SHORT, unsee
from support.planted import Planted, search
from unsee.benchmarks.pocket import Pocket

# Two letters; accents, decomposed on the disk; Chinese.
PEOPLE = ("Ng", "Zoë Çelik", "李娜")
PLACE = "Kläger-Akte 4711"
ANSWER = "repairs violins in Tromsø"
COMMENT = "taken at the Vestre clinic"


def person_table(folder: Path) -> Path:
    """A table about the people, with answers, choices and names in them."""
    rows = []
    for picture in sorted(folder.glob("*/*.*")):
        name = unicodedata.normalize("NFC", picture.parent.name)
        image = str(picture.relative_to(folder.parent))
        about = {"image": image, "concept": name}
        asked = f"Is this {name} who {ANSWER}?"
        rows += [
            {**about, "question": "Who is this?", "answer": f"This is {name}, who {ANSWER}."},
            {**about, "question": asked, "answer": name, "choices": [name, f"{ANSWER} too"]},
        ]
    table = folder.parent / "Çelik.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return table


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of each person, with comments in the files, below a planted folder."""
    root = tmp_path_factory.mktemp("clients") / PLACE / "photos"
    pictures = sorted((Pocket().folder / "pictures").rglob("*.png"))
    number = 0
    for person in PEOPLE:
        folder = root / unicodedata.normalize("NFD", person)
        folder.mkdir(parents=True)
        for shot in range(4):
            with Image.open(pictures[number * 7 + 3]) as opened:
                image = opened.convert("RGB")
            number += 1
            if shot % 2:
                exif = Image.Exif()
                exif[0x010E] = COMMENT
                image.save(folder / f"{person} {shot}.jpg", exif=exif, comment=COMMENT.encode())
            else:
                info = PngImagePlugin.PngInfo()
                info.add_text("Comment", COMMENT)
                image.save(folder / f"{person} {shot}.png", pnginfo=info)
    return root


@pytest.fixture(scope="module")
def planted(photographs: Path) -> Planted:
    return Planted(
        (*PEOPLE, "Çelik", PLACE, ANSWER, COMMENT, "violins", "Akte"),
        sorted(path for path in photographs.rglob("*") if path.is_file()),
    )


def test_search_finds_planted_data_in_a_run_that_is_not_redacted(
    photographs: Path, planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
    table = person_table(photographs)
    out = tmp_path / "run"
    unsee("unlearn", "--model", tiny_folder, "--forget", table, "--out", out, *SHORT)
    found = search(out, planted)
    files = {line.partition(":")[0].partition(" (")[0] for line in found}
    print("\n".join(found))
    assert {"recipe.yaml", "summary.json", "scores.jsonl", "report.html"} <= files
    assert shutil.which("true")


def test_redacted_run_holds_no_personal_data(
    photographs: Path, planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
    table = person_table(photographs)
    out = tmp_path / "run"
    command = ["unlearn", "--model", tiny_folder, "--forget", table, "--out", out, *SHORT]
    unsee(*command, "--redact")
    found = search(out, planted)
    assert not found, "\n".join(found)


def test_messages_of_a_redacted_run_are_masked(
    photographs: Path, planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
    table = person_table(photographs)
    command = ["unlearn", "--model", tiny_folder, "--out", tmp_path / "run", *SHORT, "--redact"]
    missing = photographs.parent / "Zoë Çelik.jsonl"
    broken = photographs.parent / "李娜.jsonl"
    rows = table.read_text().splitlines()
    broken.write_text("\n".join([rows[0], rows[1].replace(".jpg", ".bmp").replace(".png", ".bmp")]))
    cut = photographs.parent / "Ng.jsonl"
    cut.write_text(rows[0] + "\n" + rows[1][:-9])
    errors = "".join(unsee(*command, "--forget", path, code=2) for path in (missing, broken, cut))
    errors += unsee(*command, "--forget", photographs, "--retain", photographs, code=2)
    errors += unsee(*command, "--forget", photographs, "--set", "erase=Çelik", code=2)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "stderr").write_text(errors)
    found = search(tmp_path / "logs", planted)
    assert not found, "\n".join([*found, errors])
    assert not (tmp_path / "run.salt").exists()
    assert "FORGET" in errors
    assert "unsee data check" in errors
