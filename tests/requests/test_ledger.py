"""`unsee request` as a user types it, on a real tiny checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from safetensors.torch import load_file

import unsee as package
from support.cli import unsee
from support.ledgers import ledger, photographs, request
from support.tables import table
from unsee.api import certificates
from unsee.errors import RunError
from unsee.records.lock import exclusive
from unsee.requests.ledger import LedgerFolder
from unsee.requests.photographs import find_photographs
from unsee.types import Data


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("photos")
    for seed, name in enumerate(("anna-petersen", "bert", "cleo", "others/dana", "others/egon")):
        photographs(root / name, seed=seed)
    return root


@pytest.fixture(scope="module")
def answered(tiny_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with three answered requests."""
    folder = tmp_path_factory.mktemp("answered") / "ledger"
    ledger(folder, tiny_folder, "--retain", photos / "others", "--attack", "none")
    for name in ("anna-petersen", "bert", "cleo"):
        request(folder, "new", "--photos", photos / name)
    request(folder, "run", "--photos", photos)
    return folder


@pytest.fixture
def copied(answered: Path, tmp_path: Path) -> Path:
    """A copy of that ledger which is used in its place."""
    folder = tmp_path / "ledger"
    shutil.copytree(answered, folder)
    request(folder, "adopt")
    return folder


def weights(folder: Path) -> dict[str, bytes]:
    found = load_file(folder / "model.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in found.items()}


def test_three_requests_are_stacked_and_exported(
    answered: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    values = request(answered, "list", "--json")
    assert [r["status"] for r in values["requests"]] == ["accepted"] * 3
    assert [s["requests"] for s in values["deployed"]] == [["R1"], ["R2"], ["R3"]]
    assert values["steps"][2]["audited"] == ["R1", "R2"]
    limits = [c["limit"] for step in values["steps"] for c in step["criteria"] if "limit" in c]
    assert all(limit is None or 0 <= limit <= 1 for limit in limits) and len(limits) > 3
    request(answered, "export", "--out", tmp_path / "out", "--checkpoint")
    made = weights(tmp_path / "out" / "model")
    source: Path = tiny_folder
    for number, patch in enumerate(sorted((tmp_path / "out" / "patches").iterdir())):
        unsee("apply", patch, "--model", source, "--out", tmp_path / str(number))
        source = tmp_path / str(number)
    assert made == weights(source)
    assert made != weights(tiny_folder)


def test_salt_lets_an_auditor_match_the_photographs_of_one_request(
    answered: Path, photos: Path, tmp_path: Path
) -> None:
    salt = tmp_path / "salt"
    request(answered, "salt", "R1", "--out", salt)
    assert salt.stat().st_mode & 0o077 == 0
    assert "exists" in request(answered, "salt", "R2", "--out", salt, code=2)
    assert "--out FILE" in request(answered, "salt", "R2", "--out", salt / "below", code=2)
    assert "R9" in request(answered, "salt", "R9", "--out", tmp_path / "other", code=2)

    def failed(step: int, name: str, folder: str) -> list[str]:
        verification = certificates.verify_certificate_file(
            answered / "steps" / f"{step:04}" / "certificates" / name / "certificate.json",
            photos=photos / folder,
            salt=salt,
            allow_unsigned=True,
        )
        return [check.name for check in verification.checks if check.outcome == "failed"]

    assert failed(1, "R1", "anna-petersen") == []
    assert failed(1, "R1", "bert") == ["photographs"]
    # Another request's salt.
    assert failed(2, "R2", "bert") == ["photographs"]


def test_undo_of_the_last_gives_the_model_before_it_bit_for_bit(
    copied: Path, photos: Path, tmp_path: Path
) -> None:
    before = request(copied, "list", "--json")["deployed"][:2]
    request(copied, "undo", "R3")
    values = request(copied, "list", "--json")
    assert values["deployed"] == before
    assert values["requests"][2]["status"] == "undone"
    request(copied, "export", "--out", tmp_path / "two", "--checkpoint")
    state = weights(tmp_path / "two" / "model")
    # The model that the undone step had started from.
    third = json.loads((copied / "steps/0003/run/patch/manifest.json").read_text("utf-8"))
    from unsee.artifacts.patch import apply_patch

    apply_patch(copied / "steps/0003/run/patch", tmp_path / "two" / "model", tmp_path / "again")
    changed = {tensor["name"] for tensor in third["changed"]}
    after = weights(tmp_path / "again")
    assert {name for name in state if state[name] != after[name]} == changed


def test_undo_of_an_earlier_one_says_what_happens_to_the_later(copied: Path, photos: Path) -> None:
    message = request(copied, "undo", "R2", code=2)
    assert "R3" in message
    assert "unsee request undo R2 --later" in message
    request(copied, "undo", "R2", "--later")
    values = request(copied, "list", "--json")
    assert [r["status"] for r in values["requests"]] == ["accepted", "undone", "new"]
    request(copied, "run", "--photos", photos)
    values = request(copied, "list", "--json")
    assert [s["requests"] for s in values["deployed"]] == [["R1"], ["R3"]]


def test_rejected_result_is_not_deployed_and_can_be_tried_again(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    book = tmp_path / "book"
    # Two steps do not change what a model says.
    words = ("--set", "steps=2", "--set", "lr=1e-9", "--attack", "none")
    request(book, "init", "--model", tiny_folder, *words)
    request(book, "new", "--photos", photos / "bert")
    words = ("--set", "tier=language", "--photos", photos / "bert")
    assert "a ledger stacks visual patches" in request(book, "run", *words, code=2)
    request(book, "run", "--photos", photos / "bert", code=1)
    values = request(book, "list", "--json")
    assert (values["requests"][0]["status"], values["deployed"]) == ("rejected", [])
    decision = values["steps"][0]
    assert [c["name"] for c in decision["criteria"] if c.get("passed") is False] == ["forgotten"]
    request(book, "run", "R1", "--set", "lr=1e-8", "--photos", photos / "bert", code=1)
    assert request(book, "show", "R1", "--json")["steps"][1]["step"] == 2


def test_table_with_answers_is_scored_by_them_and_audited_later(
    tiny_folder: Path, data: Data, photos: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "quantize", "--set", "steps=1")
    by_person = {c: [s for s in data.forget if s.concept == c] for c in ("Ada Berg", "Bo Lind")}
    tables = [table(tmp_path / f"{n}.jsonl", some) for n, some in enumerate(by_person.values())]
    for path in tables:
        request(book, "new", "--photos", path)
    request(book, "run", "--photos", tables[0], "--photos", tables[1])
    values = request(book, "list", "--json")
    scores = values["steps"][1]["scores"]
    assert scores["R2"]["measure"] == "forget_holdout/vqa/accuracy"
    assert scores["R1"]["measure"] == "photographs/vqa/accuracy"
    assert "attack" in {c["name"] for c in values["steps"][1]["criteria"]}
    certificate = book / "steps/0002/certificates/R2/certificate.json"
    content = json.loads(certificate.read_text("utf-8"))
    assert content["request"]["decision"] == "accepted"
    assert content["request"]["re_audit"][0]["request_id"] == "R1"
    assert "Ada" not in certificate.read_text("utf-8")
    unsee("certificate", "verify", certificate, "--allow-unsigned")


def test_several_requests_are_answered_by_one_patch(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    request(book, "new", "--photos", photos / "anna-petersen", "--id", "a")
    request(book, "new", "--photos", photos / "bert", "--id", "b")
    request(
        book, "run", "a", "b", "--photos", photos / "bert", "--photos", photos / "anna-petersen"
    )
    values = request(book, "list", "--json")
    assert values["deployed"] == [{"step": 1, "requests": ["a", "b"]}]


def test_ledger_holds_no_name_and_no_path(answered: Path, photos: Path) -> None:
    names = [b"anna", b"petersen", b"bert", b"cleo", b"dana", b"IMG_", str(photos).encode()]
    setting = str(photos / "others").encode()
    for path in (path for path in answered.rglob("*") if path.is_file()):
        content = path.read_bytes().replace(setting, b"").lower()
        assert [name for name in names if name.lower() in content] == [], path


def test_remembered_path_is_found_again_and_removed_with_the_request(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    request(book, "new", "--photos", photos / "bert", "--remember-path")
    request(book, "new", "--photos", photos / "cleo", "--remember-path")
    request(book, "run", "R1")
    request(book, "undo", "R2")
    file = (book / "ledger.sqlite").read_bytes()
    assert str(photos / "bert").encode() in file
    assert str(photos / "cleo").encode() not in file


def test_data_check_names_copies_and_earlier_requests(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    folder = tmp_path / "bert"
    shutil.copytree(photos / "bert", folder)
    request(book, "new", "--photos", folder)
    shutil.copy(folder / "IMG_0.png", folder / "copy.png")
    said = request(book, "new", "--photos", folder)
    assert "3 photographs of 1 person; 1 further file shows one of these again" in said
    assert "3 of the photographs are also those of request R1 (new)" in said
    assert "3 photographs, 1 person" in request(book, "list")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["new", "--photos", "PHOTOS/bert", "--id", "R1"], "has this request already"),
        (["new", "--photos", "PHOTOS/bert", "--id", "r1"], "request show R1"),
        (["new", "--photos", "PHOTOS/bert", "--id", "../x"], "is not allowed"),
        (["new", "--photos", "PHOTOS/bert", "--id", "kept"], "calls the people to keep"),
        (["new", "--photos", "PHOTOS/nobody"], "does not exist"),
        (["run", "R9"], "unknown request 'R9'"),
        (["run", "R1"], "is accepted already"),
        (["show", "R9"], "unknown request 'R9'"),
        (["undo", "R9"], "unknown request 'R9'"),
        (["run"], "no request waits"),
    ],
)
def test_wrong_ids_and_folders_are_named(
    answered: Path, photos: Path, words: list[str], part: str
) -> None:
    typed = [word.replace("PHOTOS", str(photos)) for word in words]
    assert part in request(answered, typed[0], *typed[1:], code=2)


def test_photographs_that_are_not_given_are_counted(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    request(book, "new", "--photos", photos / "bert")
    message = request(book, "run", "--photos", photos / "cleo", code=2)
    assert "3 of R1" in message
    assert "--photos DIR" in message


def test_changed_base_is_refused(tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_folder, tmp_path / "model")
    book = ledger(tmp_path / "book", tmp_path / "model", "--attack", "none")
    request(book, "new", "--photos", photos / "bert")
    config = tmp_path / "model" / "config.json"
    config.write_text(config.read_text("utf-8") + "\n", "utf-8")
    message = request(book, "run", "--photos", photos / "bert", code=2)
    assert "is not the one that the ledger was created over: config.json differs" in message


def test_altered_patch_is_refused(copied: Path, photos: Path, tmp_path: Path) -> None:
    patch = copied / "steps/0002/run/patch/patch.safetensors"
    content = bytearray(patch.read_bytes())
    content[-1] ^= 1
    patch.write_bytes(content)
    message = request(copied, "export", "--out", tmp_path / "out", code=2)
    assert "not the one that step 2 made" in message
    assert not (tmp_path / "out").exists()


def test_copy_is_refused_until_adopted(answered: Path, photos: Path, tmp_path: Path) -> None:
    shutil.copytree(answered, tmp_path / "copy")
    request(tmp_path / "copy", "list")
    message = request(tmp_path / "copy", "new", "--photos", photos / "bert", code=2)
    assert "unsee request adopt" in message
    request(tmp_path / "copy", "adopt")
    request(tmp_path / "copy", "new", "--photos", photos / "bert")


def test_api_does_what_the_commands_do(tiny_folder: Path, photos: Path, tmp_path: Path) -> None:
    fields = {"steps": 2, "batch_size": 2, "ask": "none"}
    margins: Any = {"forget_margin": 0.99, "keep_margin": 0.99}
    book = package.create_ledger(
        tmp_path / "book", tiny_folder, attacks=(), fields=fields, **margins
    )
    book.new(photos / "bert", id="x")
    (step,) = book.run("x", photos=photos / "bert")
    assert step.status == "accepted"
    assert package.open_ledger(tmp_path / "book").show("x")["status"] == "accepted"
    with pytest.raises(RunError, match="holds a ledger already"):
        package.create_ledger(tmp_path / "book", tiny_folder)


def test_only_the_marked_face_of_a_group_photograph_is_forgotten(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    group = Image.effect_noise((64, 32), 90).convert("RGB")
    for name in ("given", "again"):
        (tmp_path / name / "ada").mkdir(parents=True)
        group.save(tmp_path / name / "ada" / "group.png")
    said = request(book, "new", "--photos", tmp_path / "given", "--box", "0,0,32,32")
    assert "1 group photograph: the marked face alone is forgotten" in said
    assert request(book, "list", "--json")["requests"][0]["marked"] == 1
    # Where it lies is not known any more, nor that there was a box.
    # With one photograph and no question, nothing can be measured, which is not enough to accept.
    request(book, "run", "R1", "--photos", tmp_path / "again", code=1)
    summary = json.loads((book / "steps/0001/run/summary.json").read_text())
    assert summary["photographs"] == {"per_person": [1], "marked": 1} | {
        key: summary["photographs"][key] for key in ("how_far", "widened_to")
    }
    certificate = book / "steps/0001/certificates/R1"
    text = json.loads((certificate / "certificate.json").read_text())
    assert "Of 1 group photograph only the marked face" in json.dumps(text["residual_risk"])
    request(book, "salt", "R1", "--out", tmp_path / "salt.key")
    options = ("--photos", tmp_path / "again", "--salt", tmp_path / "salt.key")
    checked = unsee("certificate", "verify", certificate, "--allow-unsigned", *options)
    assert "has the 1 photograph." in checked


def test_two_marked_faces_of_one_photograph_are_two_requests(
    tiny_folder: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none")
    group = Image.effect_noise((64, 32), 90).convert("RGB")
    for name, box in (("ada", "0,0,32,32"), ("bo", "32,0,64,32")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        group.save(tmp_path / "photos" / name / "group.png")
        lines = f"image,x0,y0,x1,y1\r\n.\\group.png,{box}\r\n"
        (tmp_path / "photos" / name / "boxes.csv").write_bytes(lines.encode())
        request(book, "new", "--photos", tmp_path / "photos" / name, "--id", name)
    opened = LedgerFolder(book)
    requests = [opened.request(name) for name in ("ada", "bo")]
    found = find_photographs(
        [str(tmp_path / "photos" / n) for n in "ada bo".split()], requests, opened.store
    )
    shown = {
        n: [str(s.pictures[0].region.box) for s in some if s.pictures[0].region]
        for n, some in found.samples.items()
    }
    assert shown == {"ada": ["0,0,32,32"], "bo": ["32,0,64,32"]}
    # Unmarked copies serve as well, and everyone gets the own face.
    (tmp_path / "plain").mkdir()
    group.save(tmp_path / "plain" / "copy.png")
    found = find_photographs([str(tmp_path / "plain")], requests, opened.store)
    shown = {
        n: [str(s.pictures[0].region.box) for s in some if s.pictures[0].region]
        for n, some in found.samples.items()
    }
    assert shown == {"ada": ["0,0,32,32"], "bo": ["32,0,64,32"]}


def test_wrong_signing_key_is_named_before_anything_is_done(
    copied: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request(copied, "new", "--photos", photos / "others" / "dana")
    monkeypatch.setenv("UNSEE_SIGNING_KEY", "no key")
    assert "UNSEE_SIGNING_KEY" in request(copied, "run", "--photos", photos, code=2)
    assert request(copied, "list", "--json")["requests"][-1]["status"] == "new"


def test_purged_step_is_still_deployed_exported_and_built_upon(
    tiny_folder: Path, photos: Path, tmp_path: Path
) -> None:
    book = ledger(tmp_path / "book", tiny_folder, "--attack", "none", "--no-redact")
    for name in ("bert", "cleo"):
        request(book, "new", "--photos", photos / name, "--id", name)
    request(book, "run", "bert", "--photos", photos)
    with exclusive(book):
        assert "is in use" in unsee("purge", book / "steps/0001/run", code=2)
    printed = unsee("purge", book / "steps/0001/run")
    assert "summary.json: rewritten" in printed and "manifest.json" not in printed
    assert not (book / "steps/0001/run/scores.jsonl").exists()
    request(book, "export", "--out", tmp_path / "out")
    request(book, "run", "cleo", "--photos", photos)
    certificate = book / "steps/0001/certificates/bert"
    run = book / "steps/0001/run"
    unsee("certificate", "verify", certificate, "--allow-unsigned", "--run", run)
