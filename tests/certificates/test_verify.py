"""A certificate is compared with the run, the patch, the checkpoints and the photographs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from support.certificates import full_request, sample_certificate
from support.cli import SHORT, unsee
from unsee.api.certificates import certify, verify_certificate_file
from unsee.artifacts.manifest import patch_id, read_manifest
from unsee.artifacts.pseudonyms import read_key
from unsee.certificates import Request, build_certificate
from unsee.certificates.keys import make_key
from unsee.certificates.signing import certificate_text
from unsee.data.digests import salted_hash
from unsee.errors import CertificateError, UnseeError
from unsee.runs.purge import purge_run
from unsee.types import Picture


@pytest.fixture(scope="module")
def job(tiny_folder: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with a patch, the result, a salt, a key, and a signed certificate."""
    folder = tmp_path_factory.mktemp("job")
    people = sorted(path.name for path in photos.iterdir())
    for name in people:
        place = "forget" if name == people[0] else "retain"
        shutil.copytree(photos / name, folder / place / name)
    unsee(
        *("unlearn", "--model", tiny_folder, "--forget", folder / "forget"),
        *("--retain", folder / "retain", "--ask", "none", "--out", folder / "run", *SHORT),
    )
    unsee("apply", folder / "run" / "patch", "--model", tiny_folder, "--out", folder / "result")
    (folder / "salt").write_bytes(b"a salt of thirty-two bytes, keep it")
    make_key(folder / "key.pem")
    certify(
        folder / "run",
        key=folder / "key.pem",
        request=Request(id="2026-17"),
        photos=folder / "forget",
        salt=folder / "salt",
        out=folder / "certificate",
    )
    return folder


def failed(job: Path, **options: Any) -> list[str]:
    """The sentences of the checks that fail."""
    public = job / "key.pem.pub"
    found = verify_certificate_file(job / "certificate", public_key=public, **options)
    return [check.sentence for check in found.failed]


def test_everything_that_belongs_to_it_passes(job: Path) -> None:
    found = verify_certificate_file(
        job / "certificate",
        public_key=job / "key.pem.pub",
        run=job / "run",
        patch=job / "run" / "patch",
        model=job / "result",
        photos=job / "forget",
        salt=job / "salt",
    )
    assert [check.name for check in found.checks] == [
        *("signature", "signer", "page", "run", "patch", "model", "photographs"),
    ]
    assert {check.outcome for check in found.checks} == {"passed"}
    certificate = found.certificate
    assert certificate.result.patch_id == patch_id(read_manifest(job / "run" / "patch"))
    manifest = json.loads((job / "run" / "patch" / "manifest.json").read_text())
    assert certificate.changes.tensors is not None
    assert [t.name for t in certificate.changes.tensors] == [t["name"] for t in manifest["changed"]]


def test_base_is_told_from_the_result(job: Path, tiny_folder: Path) -> None:
    for model, words in ((tiny_folder, "is the base"), (job / "result", "is the result")):
        found = verify_certificate_file(job / "certificate", model=model)
        assert words in found.describe() and not found.failed


def test_another_model_fails(job: Path, tiny_folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(job / "result", other)
    weights = other / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    (sentence,) = failed(job, model=other)
    assert "neither base nor result" in sentence or "and the certificate has" in sentence


def test_another_patch_fails(job: Path, tmp_path: Path) -> None:
    patch = tmp_path / "patch"
    shutil.copytree(job / "run" / "patch", patch)
    manifest = json.loads((patch / "manifest.json").read_text())
    manifest["method"] = "other"
    (patch / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    found = verify_certificate_file(job / "certificate", patch=patch)
    assert not found.failed and "cannot be compared" in found.describe()
    # The same patch under a base whose first tensor was another.
    manifest["changed"][0]["before"] = "0" * 64
    (patch / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    (sentence,) = failed(job, patch=patch)
    assert "and the certificate is about" in sentence


def test_changed_record_fails(job: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(job / "run", run)
    text = (run / "summary.json").read_text()
    (run / "summary.json").write_text(text.replace('"unlearn"', '"run"', 1))
    (sentence,) = failed(job, run=run)
    assert "another run, or its record was changed" in sentence


def test_certificate_of_another_run_fails(job: Path, tmp_path: Path) -> None:
    sample_certificate(tmp_path / "run")
    (sentence,) = failed(job, run=tmp_path / "run")
    assert "another run" in sentence


def test_edited_unsigned_certificate_fails_against_its_run(tmp_path: Path) -> None:
    """Without a signature the record itself shows the edit."""
    certificate = sample_certificate(tmp_path / "run")
    path = tmp_path / "certificate.json"
    path.write_text(certificate_text(certificate))
    options: dict[str, Any] = {"run": tmp_path / "run", "allow_unsigned": True}
    assert not verify_certificate_file(path, **options).failed
    text = certificate_text(certificate).replace('"level": "bounded"', '"level": "unknown"')
    text = text.replace('"changed": 42', '"changed": 41')
    path.write_text(text)
    (check,) = verify_certificate_file(path, **options).failed
    assert "changes.changed, residual_risk.level" in check.sentence


def test_edited_page_fails(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "certificate"
    shutil.copytree(job / "certificate", folder)
    page = folder / "certificate.html"
    page.write_text(page.read_text().replace("Certificate of", "Certificate for", 1))
    (check,) = verify_certificate_file(folder).failed
    assert check.name == "page" and "does not say what" in check.sentence


def test_photographs_are_matched_by_pixels_with_the_salt_alone(job: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    for number, path in enumerate(sorted((job / "forget").rglob("*.png"))):
        again.mkdir(exist_ok=True)
        Image.open(path).convert("RGB").save(again / f"{number}.bmp")
    assert failed(job, photos=again, salt=job / "salt") == []
    (again / "0.bmp").unlink()
    (sentence,) = failed(job, photos=again, salt=job / "salt")
    assert "1 photograph of the certificate is not in" in sentence
    (sentence,) = failed(job, photos=job / "retain", salt=job / "salt")
    assert "are not the certificate's" in sentence
    (tmp_path / "salt").write_bytes(b"x" * 32)
    (sentence,) = failed(job, photos=job / "forget", salt=tmp_path / "salt")
    assert "were hashed with the salt" in sentence


def test_copies_of_a_photograph_count_as_one_in_a_certificate(job: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    shutil.copytree(job / "forget", folder)
    first = min(folder.rglob("*.png"))
    image = Image.open(first).convert("RGB")
    image.putpixel((0, 0), tuple(min(255, value + 1) for value in image.getpixel((0, 0))))  # type: ignore[misc]
    image.save(first.with_name("nearly.png"))
    shutil.copy(first, first.with_name("again.png"))
    key = job / "key.pem"
    certify(job / "run", key=key, photos=folder, salt=job / "salt", out=tmp_path / "made")
    found = verify_certificate_file(tmp_path / "made", photos=folder, salt=job / "salt")
    assert found.failed == () and found.checks[-1].sentence.endswith("has the 3 photographs.")
    named = found.certificate.request.photographs
    assert named is not None and (named.count, len(named.salted_sha256)) == (3, 4)


def test_salted_hash_is_the_hmac_of_the_pixels(job: Path) -> None:
    import hashlib
    import hmac

    path = next((job / "forget").rglob("*.png"))
    picture, salt = Picture.from_path(path), read_key(job / "salt")
    expected = hmac.new(salt, bytes.fromhex(picture.digest), hashlib.sha256).hexdigest()
    assert salted_hash(picture, salt) == expected
    text = (job / "certificate" / "certificate.json").read_text()
    assert expected in text and picture.digest not in text
    assert path.stem not in text and path.parent.name not in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"run": "none"}, "--run none"),
        ({"patch": "none"}, "is no visual patch"),
        ({"model": "./none"}, "no such folder"),
        ({"photos": "none"}, "--salt belong together"),
        ({"public_key": "none"}, "there is no such file"),
    ],
)
def test_missing_input_is_named(job: Path, options: dict[str, str], words: str) -> None:
    with pytest.raises(UnseeError, match=words):
        verify_certificate_file(job / "certificate", **options)  # type: ignore[arg-type]


def test_certificate_is_never_overwritten(job: Path) -> None:
    before = (job / "certificate" / "certificate.json").read_bytes()
    with pytest.raises(CertificateError, match="never overwritten"):
        certify(job / "run", out=job / "certificate")
    assert (job / "certificate" / "certificate.json").read_bytes() == before


def test_certificate_of_a_features_only_run_says_what_was_not_checked(job: Path) -> None:
    certificate = build_certificate(job / "run", full_request())
    assert certificate.changes.text.identical is None
    assert certificate.changes.text.statement.startswith("Outputs on text were not compared")
    assert certificate.base.weights_part == "visual"
    assert certificate.residual_risk.level == "unknown"


def test_redacted_run_has_a_certificate_that_names_nobody(
    job: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    run, salt = tmp_path / "Ada-Berg" / "run", tmp_path / "salt"
    unsee(
        *("unlearn", "--model", tiny_folder, "--forget", job / "forget"),
        *("--retain", job / "retain", "--out", run, "--redact", "--salt", salt, *SHORT),
    )
    written = certify(run, photos=job / "forget", salt=salt, out=tmp_path / "out")
    assert written.pdf is not None
    person = next((job / "forget").iterdir()).name
    for path in (written.json, written.html, written.pdf):
        content = path.read_bytes()
        for secret in (person, person.split()[-1], "Ada-Berg", str(tmp_path), str(tiny_folder)):
            assert secret.encode() not in content, (path.name, secret)
    assert written.certificate.base.name is None
    options: dict[str, Any] = {"photos": job / "forget", "salt": salt, "allow_unsigned": True}
    assert not verify_certificate_file(written.json, run=run, **options).failed


def test_purged_run_still_gives_the_certificate(job: Path, tmp_path: Path) -> None:
    """`unsee purge` leaves every number, and the certificate says that the record changed."""
    run = tmp_path / "run"
    shutil.copytree(job / "run", run)
    certify(run, key=job / "key.pem")
    before = (run / "certificate.json").read_bytes()
    purged = purge_run(run)
    assert purged.changes and purged.unknown == ()
    assert (run / "certificate.json").read_bytes() == before
    found = verify_certificate_file(run, run=run, patch=run / "patch")
    assert not found.failed and "as after `unsee purge`" in found.describe()
    record = json.loads((run / "summary.json").read_text())
    record["guarantees"]["changed_tensors"] = 1
    (run / "summary.json").write_text(json.dumps(record))
    (check,) = verify_certificate_file(run, run=run).failed
    assert "record was changed" in check.sentence
