"""Those who were forgotten before stay so while others are: their pictures are kept as they are."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import pytest
import torch

from support.ledgers import ledger, photographs, request
from support.processes import Running, lines
from support.tables import table
from unsee.features.capture import picture_features
from unsee.models.vlm import VLM
from unsee.requests.photographs import held_pictures
from unsee.types import Data, Picture, Sample

# Erased strongly and kept weakly, so that what is not held moves.
TRAINED = tuple(
    word
    for setting in ("steps=40", "batch_size=4", "lr=0.003", "scale_erase=false", "w_keep=20")
    for word in ("--set", setting)
)


@pytest.fixture
def book(tiny_folder: Path, tmp_path: Path) -> Path:
    """A ledger with two requests, the first of which is answered."""
    for seed, name in enumerate(("a", "b", "others")):
        photographs(tmp_path / "photos" / name, seed=seed)
    retain = ("--retain", tmp_path / "photos/others")
    made = ledger(tmp_path / "book", tiny_folder, "--attack", "none", *retain, *TRAINED)
    for name in ("a", "b"):
        request(made, "new", "--photos", tmp_path / "photos" / name, "--id", name)
    request(made, "run", "a", "--photos", tmp_path / "photos")
    return made


def features(folder: Path, photos: Path) -> torch.Tensor:
    vlm = VLM.load(folder)
    pictures = [Picture.from_path(path) for path in sorted(photos.iterdir())]
    inputs = vlm.collate_pictures([vlm.image(picture) for picture in pictures])
    found = picture_features(vlm, inputs, ["projector"])["projector"]
    assert isinstance(found, torch.Tensor)
    return found.detach()


def exported(book: Path, out: Path) -> Path:
    request(book, "export", "--out", out, "--checkpoint")
    return out / "model"


def test_pictures_of_earlier_requests_keep_their_erased_features(
    book: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    before = features(exported(book, tmp_path / "before"), photos / "a")
    moved = {}
    for name, given in {"held": photos, "not held": photos / "b"}.items():
        copy = tmp_path / name / "book"
        shutil.copytree(book, copy)
        request(copy, "adopt")
        request(copy, "run", "b", "--photos", given)
        after = features(exported(copy, tmp_path / name / "out"), photos / "a")
        moved[name] = float((after - before).square().mean())
        steps = request(copy, "show", "b", "--json")["steps"]
        assert steps[-1]["held"] == (["a"] if name == "held" else [])
    assert moved["held"] < 0.7 * moved["not held"], moved


def test_step_is_continued_with_the_photographs_that_it_was_begun_with(
    book: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    words = ["request", "run", "--ledger", str(book), "--set", "save_every=3", "--photos"]
    running = Running([*words, str(photos)], tmp_path / "process")
    running.until(lambda: lines(book / "steps/0002/run/train.jsonl") >= 5)
    running.stop(signal.SIGKILL)
    running.wait()
    said = request(book, "run", "b", "--photos", photos / "b", code=2)
    assert "photographs were not found: 3 of a." in said
    assert "unsee request run b --photos DIR" in said
    request(book, "run", "b", "--photos", photos)
    assert request(book, "list", "--json")["requests"][1]["status"] == "accepted"


def test_photographs_of_this_request_are_not_kept(tmp_path: Path) -> None:
    samples = {}
    for seed, name in enumerate(("first", "second")):
        folder = photographs(tmp_path / name, seed=seed)
        samples[name] = [
            Sample(path.name, "Who?", "Anna", Picture.from_path(path), "anna")
            for path in sorted(folder.iterdir())
        ]
    shutil.copy(tmp_path / "second/IMG_1.png", tmp_path / "first/again.png")
    again = Sample("x", "", "", Picture.from_path(tmp_path / "first/again.png"), "anna")
    held = held_pictures({"R1": [*samples["first"], again]}, samples["second"], kept=9)
    assert [sample.id for sample in held] == [f"R1-picture-{n}.png" for n in (1, 2, 3)]
    assert {(sample.concept, sample.question, sample.answer) for sample in held} == {(None, "", "")}


def test_earlier_pictures_are_kept_without_answers_beside_a_table_that_has_some(
    tiny_folder: Path, data: Data, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none", "--set", "steps=4")
    by_person = {c: [s for s in data.forget if s.concept == c] for c in ("Ada Berg", "Bo Lind")}
    tables = [table(tmp_path / f"{n}.jsonl", some) for n, some in enumerate(by_person.values())]
    for path in tables:
        request(book, "new", "--photos", path)
    request(book, "run", "--photos", tables[0], "--photos", tables[1])
    values = request(book, "list", "--json")
    assert values["steps"][1]["held"] == ["R1"]
    assert values["steps"][1]["scores"]["R2"]["measure"] == "forget_holdout/vqa/accuracy"


@pytest.mark.parametrize("kept,count", [(9, 3), (90, 30), (3, 2), (0, 2)])
def test_earlier_pictures_are_about_a_quarter_of_what_is_kept(
    kept: int, count: int, tmp_path: Path
) -> None:
    earlier = {}
    for seed, (name, number) in enumerate({"R1": 2, "R2": 1}.items()):
        folder = photographs(tmp_path / name, number, seed)
        earlier[name] = [
            Sample(path.name, "", "", Picture.from_path(path)) for path in sorted(folder.iterdir())
        ]
    held = held_pictures(earlier, (), kept)
    assert len(held) == len({sample.id for sample in held}) == count
    # Of every request at least one picture stays.
    assert {sample.id.partition("-")[0] for sample in held} == {"R1", "R2"}
