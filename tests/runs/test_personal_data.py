"""Redacted runs, killed and finished, and purged ones hold no name, path, picture or answer."""

from __future__ import annotations

import json
import shutil
import signal
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from support.cli import SHORT, refused, unsee
from support.planted import Planted, search
from support.processes import Running
from unsee.artifacts.pseudonyms import Pseudonyms
from unsee.benchmarks.pocket import Pocket
from unsee.records.lock import exclusive
from unsee.records.reader import read_run

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


def run_command(model: Path, forget: Path, out: Path, *words: str) -> list[Any]:
    """An unlearning run of a few steps that resumes from any of them."""
    start = ["unlearn", "--model", model, "--forget", forget, "--out", out]
    return [*start, *SHORT, "--set", "save_every=1", *words]


@pytest.fixture(scope="module")
def table(photographs: Path) -> Path:
    return person_table(photographs)


@pytest.fixture(scope="module")
def plain(table: Path, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is not redacted, with a cache of the teacher's features."""
    folder = tmp_path_factory.mktemp("plain")
    words = ["--set", f"cache={folder / 'cache'}", "--set", "augment=0", "--names"]
    unsee(*run_command(tiny_folder, table, folder / "run", *words))
    return folder / "run"


def test_search_finds_planted_data_in_a_run_that_is_not_redacted(
    plain: Path, planted: Planted
) -> None:
    found = search(plain, planted)
    files = {line.partition(": ")[0].partition(" (")[0] for line in found}
    assert files >= {"recipe.yaml", "summary.json", "scores.jsonl", "report.html"}
    assert "patch/README.md" in files
    assert any("a picture like" in line for line in found)
    assert any("hash of" in line for line in found)


@pytest.mark.parametrize("kind", ["answers", "photographs"])
def test_redacted_run_holds_no_personal_data_killed_or_finished(
    kind: str, photographs: Path, table: Path, planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    forget = table if kind == "answers" else photographs
    command = run_command(tiny_folder, forget, out, "--redact")
    marks = [out / ".state" / "state", out / "patch" / "manifest.json"]
    if kind == "answers":
        marks.append(out / ".parts" / "scores-unlearned.json")
    for number, mark in enumerate(marks):
        running = Running([str(word) for word in command], tmp_path / f"logs{number}")
        running.until(mark.exists)
        running.stop(signal.SIGKILL)
        running.wait()
        assert mark.exists() and not (out / "report.html").exists()
        found = search(tmp_path, planted)
        assert not found, "\n".join(found)
    code, output, errors = Running([*map(str, command), "--json"], tmp_path / "last").wait()
    assert code == 0, errors
    assert json.loads(output) == json.loads((out / "summary.json").read_text())
    found = search(tmp_path, planted)
    assert not found, "\n".join(found)
    salt = tmp_path / "run.salt"
    assert salt.stat().st_mode & 0o777 == 0o600
    assert not any(salt.read_bytes() in p.read_bytes() for p in out.rglob("*") if p.is_file())


def test_redacted_run_has_the_results_of_one_that_is_not(
    plain: Path, table: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    command = run_command(tiny_folder, table, out, "--set", "augment=0", "--redact")
    unsee(*command)
    one, other = read_run(plain).summary, read_run(out).summary
    assert one.measures == other.measures
    assert one.target == other.target
    patches = [folder / "patch" / "patch.safetensors" for folder in (plain, out)]
    assert patches[0].read_bytes() == patches[1].read_bytes()
    assert "finished before" in unsee(*command, stderr=True)
    assert {len(run.concept or "") for run in read_run(out).scores()} == {len("person-") + 12}
    page = tmp_path / "both.html"
    unsee("report", out, plain, "-o", page)
    unsee("apply", out / "patch", "--model", tiny_folder, "--out", tmp_path / "applied")
    # Another key, and a recipe without paths.
    (tmp_path / "run.salt").rename(tmp_path / "kept.salt")
    assert "--salt FILE" in unsee(*command, code=2)
    assert "finished before" in unsee(*command, "--salt", tmp_path / "kept.salt", stderr=True)
    assert "left out" in unsee("run", out / "recipe.yaml", "--out", tmp_path / "again", code=2)


def test_messages_of_a_redacted_run_are_masked(
    photographs: Path, table: Path, planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
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


# Places as they are typed on Windows, and tables whose rows name pictures in unusual ways.
PLACES = (
    rf"C:\{PLACE}\Zoë Çelik\photos",
    rf"C:\{PLACE}\Zoë Çelik.jsonl",
    rf"\\server\{PLACE}\李娜",
    f"C:/{PLACE}/Zoë Çelik",
)
IMAGES = (
    r".\Zoë Çelik\1.jpg",
    rf"C:\{PLACE}\Zoë Çelik\1.jpg",
    f"{PLACE}/../{PLACE}//Zoë Çelik/1.jpg",
)


def test_paths_of_windows_and_unusual_ones_are_masked(
    planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
    model, redact = ["--model", tiny_folder], ["--redact", "--out", tmp_path / "run"]
    commands = [["unlearn", *model, "--forget", place, *redact] for place in PLACES]
    commands += [["evaluate", *model, "--data", place, *redact] for place in PLACES]
    commands += [["audit", *model, "--forget", place, *redact, "--json"] for place in PLACES]
    for number, image in enumerate(IMAGES):
        table = tmp_path / f"{number}.jsonl"
        row = {"image": image, "question": "Who?", "answer": "A.", "concept": "Ng"}
        table.write_text(json.dumps(row) + "\n")
        commands += [["unlearn", *model, "--forget", table, *redact]]
        commands += [["evaluate", *model, "--data", table, *redact]]
    printed = ["\n".join(refused(*command)[1:]) for command in commands]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "printed").write_text("\n".join(printed))
    found = search(tmp_path / "logs", planted)
    assert not found, "\n".join([*found, *printed])


def test_purged_run_holds_no_personal_data_and_keeps_the_proof(
    plain: Path, planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    (out / ".state").mkdir()
    (out / ".state" / "state").write_text(PLACE)
    (out / ".report.html.partial").write_text(ANSWER)
    (out / "patch" / ".README.md.partial").write_text(ANSWER)
    (out / "notes.txt").write_text("mine")
    cache = plain.parent / "cache"
    other = cache / "mine.safetensors"
    other.write_bytes(b"not of unsee")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    measures = read_run(out).summary.measures
    listed = unsee("purge", out, "--dry-run")
    assert "scores.jsonl: would be removed" in listed
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    printed = unsee("purge", out)
    assert printed == listed.replace("would be ", "")
    assert "notes.txt: left" in printed
    found = search(out, planted)
    assert not found, "\n".join(found)
    assert not (out / "scores.jsonl").exists() and not (out / ".state").exists()
    assert [path.name for path in cache.iterdir()] == ["mine.safetensors"]
    # What is left can be used, and proves the same.
    run = read_run(out)
    assert run.summary.measures == measures and run.summary.redacted
    assert (out / "patch" / "patch.safetensors").read_bytes() == before[
        out / "patch" / "patch.safetensors"
    ]
    assert "model/model.safetensors" in (run.summary.provenance.inputs or {})
    unsee("report", out, "-o", tmp_path / "page.html")
    unsee("apply", out / "patch", "--model", tiny_folder, "--out", tmp_path / "applied")
    after = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    assert "nothing in it identifies" in unsee("purge", out)
    assert after == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_purge_hides_a_model_whose_relative_path_looks_like_a_hub_id(
    table: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_folder, tmp_path / "clients" / "quarzbrand")
    unsee(*run_command(Path("clients/quarzbrand"), table, tmp_path / "run"), cwd=tmp_path)
    unsee("purge", tmp_path / "run")
    assert not search(tmp_path / "run", Planted(("quarzbrand",)))
    assert "nothing in it identifies" in unsee("purge", tmp_path / "run")


def test_purge_refuses_what_is_no_run_has_links_or_is_in_use(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "scores.jsonl").write_text("mine")
    assert "is no run folder" in unsee("purge", tmp_path / "photos", code=2)
    assert "no such folder" in unsee("purge", tmp_path / "none", code=2)
    assert (tmp_path / "photos" / "scores.jsonl").read_text() == "mine"
    out = tmp_path / "run"
    shutil.copytree(plain, out)
    (tmp_path / "link").symlink_to(out)
    assert "is a link" in unsee("purge", tmp_path / "link", code=2)
    (out / "scores.jsonl").unlink()
    (out / "scores.jsonl").symlink_to(tmp_path / "photos" / "scores.jsonl")
    assert "is not followed" in unsee("purge", out, code=2)
    assert (tmp_path / "photos" / "scores.jsonl").read_text() == "mine"
    (out / "scores.jsonl").unlink()
    with exclusive(out):
        assert "is in use" in unsee("purge", out, code=2)
    assert "Zoë" in (out / "summary.json").read_text()
    assert "scores.jsonl" in unsee("purge", plain, "--dry-run")


def test_redacted_evaluation_audit_and_finetuning_hold_no_personal_data(
    table: Path, planted: Planted, tiny_folder: Path, tmp_path: Path
) -> None:
    salt = ["--redact", "--salt", tmp_path / "key"]
    model = ["--model", tiny_folder]
    evaluate = ["evaluate", *model, "--data", table, "--out", tmp_path / "evaluated", *salt]
    attacks = ["--attack", "relearn", "--attack", "answer_prefix?text=Çelik", "--set", "steps=2"]
    audit = ["audit", *model, "--forget", table, *attacks, "--out", tmp_path / "audited", *salt]
    for number, command in enumerate((evaluate, [*audit, "--json"])):
        # What is printed is searched too.
        running = Running([*map(str, command)], tmp_path / f"printed{number}")
        assert running.wait()[0] == 0
    redacted = [tmp_path / "evaluated", tmp_path / "audited"]
    unsee("report", *redacted, "-o", tmp_path / "compared.html")
    fields = [f"model={tiny_folder}", f"forget={table}", f"retain={table}", "steps=2", "lora=0"]
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"who: target\nredact: true\nsalt: {tmp_path / 'key'}\n")
    out = tmp_path / "finetuned"
    unsee("finetune", recipe, *fields, "--out", out)
    assert "finished before" in unsee("finetune", recipe, *fields, "--out", out, stderr=True)
    recipe.unlink()
    texts = Planted(planted.texts, planted.pictures)
    tokenizer = "finetuned/target/tokenizer.json"
    found = search(tmp_path, texts, ignore=[tokenizer])
    assert not found, "\n".join(found)
    people = read_run(tmp_path / "audited").summary.relearn[0].curve("unlearned")[-1].by_person
    assert all(name.startswith("person-") for name in people) and people
    # The same key, the same pseudonyms.
    scores = read_run(tmp_path / "evaluated").scores()
    assert {score.concept for score in scores} >= set(people)
    key = Pseudonyms((tmp_path / "key").read_bytes())
    assert key.name("person", PEOPLE[0]) in people
    unsee("purge", out, tmp_path / "audited")
