"""Every edit of a signed certificate is found, and odd files are refused in a sentence."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from support.certificates import sample_certificate
from unsee.certificates import Certificate, read_certificate, sign
from unsee.certificates.keys import (
    VARIABLE,
    fingerprint,
    make_key,
    private_key_from_environment,
    public_bytes,
    read_private_key,
    read_public_key,
)
from unsee.certificates.signing import MOST_BYTES, certificate_text, signed_bytes
from unsee.certificates.verify import Sources, verify_certificate
from unsee.errors import CertificateError


@pytest.fixture(scope="module")
def key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


@pytest.fixture(scope="module")
def certificate(
    tmp_path_factory: pytest.TempPathFactory, key: ed25519.Ed25519PrivateKey
) -> Certificate:
    return sign(sample_certificate(tmp_path_factory.mktemp("run") / "run"), key)


def is_refused(path: Path, text: str | bytes, sources: Sources | None = None) -> bool:
    """Whether a certificate is not read, or a check of it fails."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    try:
        return bool(verify_certificate(path, sources).failed)
    except CertificateError:
        return True


def places(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value, containers included."""
    yield where
    if isinstance(value, dict | list):
        for name, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*where, name))


def edited(value: Any) -> list[Any]:
    """Other values of the same kind, and null."""
    if isinstance(value, bool):
        return [not value, None]
    if isinstance(value, int | float):
        return [value + 1, -value if value else 2, None]
    if isinstance(value, str):
        others = [value[:-1], value + " ", value.swapcase(), "x" + value[1:]]
        return [*(other for other in others if other != value), None]
    if isinstance(value, list):
        return [value[1:], [*value, *value[-1:]], value[::-1]]
    if isinstance(value, dict):
        without = dict(list(value.items())[1:])
        return [without, {**value, "more": 1}]
    return ["x", 0, True, []]


def with_value(content: Any, where: tuple[Any, ...], value: Any) -> Any:
    if not where:
        return value
    changed = copy.deepcopy(content)
    place = changed
    for name in where[:-1]:
        place = place[name]
    place[where[-1]] = value
    return changed


def test_signed_certificate_verifies(certificate: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    assert not is_refused(path, certificate_text(certificate))
    found = read_certificate(path)
    assert found.exact and found.certificate == certificate


def test_signature_covers_everything_as_canonical_json(
    certificate: Certificate, key: ed25519.Ed25519PrivateKey
) -> None:
    """What another language would do: parse, leave the signature out, RFC 8785, check."""
    import base64

    content = json.loads(certificate_text(certificate))
    signature = base64.b64decode(content.pop("signature"))
    assert rfc8785.dumps(content) == signed_bytes(certificate)
    key.public_key().verify(signature, rfc8785.dumps(content))


def test_every_edited_field_is_found(certificate: Certificate, tmp_path: Path) -> None:
    content = certificate.to_dict()
    path, missed, tried = tmp_path / "certificate.json", [], 0
    every = list(places(content))
    # Rows of tables are alike: of each table the first two and the last are edited in full.
    last = {key: len(content[key]) - 1 for key in ("measures",)}
    few = [
        where
        for where in every
        if not (len(where) > 1 and where[0] == "measures" and 1 < where[1] < last["measures"])
        and not (len(where) > 2 and where[:2] == ("attacks", "run") and where[2] > 1)
    ]
    for where in few:
        value = content
        for name in where:
            value = value[name]
        for other in edited(value):
            changed = with_value(content, where, other)
            if changed == content and repr(changed) == repr(content):
                continue
            tried += 1
            if not is_refused(path, json.dumps(changed, indent=1, ensure_ascii=False) + "\n"):
                missed.append((where, other))
    assert tried > 1000
    assert missed == []


def test_every_edited_byte_is_found(certificate: Certificate, tmp_path: Path) -> None:
    content, path = certificate_text(certificate).encode(), tmp_path / "certificate.json"
    rng, missed = random.Random(0), []
    for number in range(300):
        place = rng.randrange(len(content))
        flipped = bytes([content[place] ^ (1 << rng.randrange(8))])
        new = [flipped, b"", content[place : place + 1] + b" "][number % 3]
        if not is_refused(path, content[:place] + new + content[place + 1 :]):
            missed.append((place, new))
    assert missed == []


@pytest.mark.parametrize("change", [b"\n", b"\r\n", b" "])
def test_added_space_is_found(certificate: Certificate, tmp_path: Path, change: bytes) -> None:
    path = tmp_path / "certificate.json"
    path.write_bytes(certificate_text(certificate).encode() + change)
    (check,) = verify_certificate(path).failed
    assert check.name == "file" and "was changed" in check.sentence


def test_removed_signature_is_found(certificate: Certificate, tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    path.write_text(certificate_text(certificate.model_copy(update={"signature": None})))
    for unsigned in (False, True):
        (check,) = verify_certificate(path, Sources(allow_unsigned=unsigned)).failed
        assert "was removed" in check.sentence


def test_certificate_without_signature_and_signer_fails_unless_allowed(
    certificate: Certificate, key: ed25519.Ed25519PrivateKey, tmp_path: Path
) -> None:
    path, public = tmp_path / "certificate.json", fingerprint(public_bytes(key.public_key()))
    stripped = certificate.model_copy(update={"signature": None, "signer": None})
    path.write_text(certificate_text(stripped))
    assert "not signed" in verify_certificate(path).failed[0].sentence
    assert not verify_certificate(path, Sources(allow_unsigned=True)).failed
    given = Sources(allow_unsigned=True, public_key=public)
    assert "not by the given key" in verify_certificate(path, given).failed[0].sentence


def test_signature_of_another_key_is_told_apart(certificate: Certificate, tmp_path: Path) -> None:
    """An edited certificate that was signed again passes for nobody who knows the key."""
    path, other = tmp_path / "certificate.json", ed25519.Ed25519PrivateKey.generate()
    path.write_text(certificate_text(sign(certificate, other)))
    found = fingerprint(public_bytes(other.public_key()))
    unasked = verify_certificate(path)
    assert not unasked.failed
    assert f"signed by the key {found}, which you did not ask for" in unasked.describe()
    assert certificate.signer is not None
    import base64

    wanted = fingerprint(base64.b64decode(certificate.signer.public_key))
    (check,) = verify_certificate(path, Sources(public_key=wanted)).failed
    assert check.name == "signer" and found in check.sentence and wanted in check.sentence


def test_swapped_public_key_is_found(certificate: Certificate, tmp_path: Path) -> None:
    path, other = tmp_path / "certificate.json", ed25519.Ed25519PrivateKey.generate()
    swapped = sign(certificate, other).model_copy(update={"signature": certificate.signature})
    path.write_text(certificate_text(swapped))
    assert verify_certificate(path).failed[0].name == "signature"


def odd_files(text: str) -> dict[str, tuple[bytes, str]]:
    content = text.encode()
    return {
        "twice": (content.replace(b'"kind"', b'"schema": 1,\n "kind"', 1), "is there twice"),
        "nan": (content.replace(b'"cost_seconds": 83.4', b'"cost_seconds": NaN', 1), "NaN"),
        "infinity": (content.replace(b"83.4", b"-Infinity", 1), "-Infinity"),
        "huge number": (content.replace(b"83.4", b"1e999", 1), "cost_seconds"),
        "not utf-8": (content.replace(b"2026-17", b"2026-\xff7", 1), "utf-8"),
        "surrogate": (content.replace(b"2026-17", b"\\ud800", 1), "surrogates"),
        "schema": (content.replace(b'"schema": 1', b'"schema": 7', 1), "has schema 7"),
        "no schema": (content.replace(b'"schema": 1,', b"", 1), "has schema None"),
        "other json": (b"{}", "no certificate"),
        "list": (b"[]", "no JSON object"),
        "empty": (b"", "cannot be read"),
        "cut": (content[:-200], "cannot be read"),
        "deep": (b"[" * 100_000, "cannot be read"),
        "unknown key": (content.replace(b'"kind"', b'"note": 1,\n "kind"', 1), "'note'"),
    }


@pytest.mark.parametrize("name", odd_files(""))
def test_odd_file_is_refused_in_a_sentence(
    certificate: Certificate, tmp_path: Path, name: str
) -> None:
    content, words = odd_files(certificate_text(certificate))[name]
    path = tmp_path / "certificate.json"
    path.write_bytes(content)
    with pytest.raises(CertificateError, match=str(path)) as caught:
        read_certificate(path)
    assert words in str(caught.value) and len(str(caught.value)) < 700


def test_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "certificate.json"
    with path.open("wb") as file:
        file.truncate(MOST_BYTES + 1)
    with pytest.raises(CertificateError, match="more than 50,000,000 bytes"):
        read_certificate(path)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="unsee certificate new RUN"):
        read_certificate(tmp_path)


def test_key_pair_is_made_for_its_owner_alone_and_never_overwritten(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "key.pem"
    found = make_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert fingerprint(read_public_key(f"{path}.pub")) == found
    assert fingerprint(read_public_key(path)) == found
    assert fingerprint(public_bytes(read_private_key(path).public_key())) == found
    assert caplog.text == ""
    path.chmod(0o644)
    read_private_key(path)
    assert f"chmod 600 {path}" in caplog.text
    before = path.read_bytes()
    with pytest.raises(CertificateError, match="never overwritten"):
        make_key(path)
    path.rename(tmp_path / "other.pem")
    with pytest.raises(CertificateError, match=r"key.pem.pub exists"):
        make_key(path)
    assert not path.exists() and (tmp_path / "other.pem").read_bytes() == before


def test_key_comes_from_the_environment_as_text_or_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert private_key_from_environment() is None
    path = tmp_path / "key.pem"
    found = make_key(path)
    for given in (str(path), path.read_text()):
        monkeypatch.setenv(VARIABLE, given)
        key = private_key_from_environment()
        assert key is not None and fingerprint(public_bytes(key.public_key())) == found
    monkeypatch.setenv(VARIABLE, "-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----")
    with pytest.raises(CertificateError, match=f"environment variable {VARIABLE}: is no private"):
        private_key_from_environment()


def test_damaged_key_in_the_environment_is_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_key(tmp_path / "key.pem")
    secret = (tmp_path / "key.pem").read_text().splitlines()[1]
    monkeypatch.setenv(VARIABLE, secret)
    with pytest.raises(CertificateError, match="holds neither the PEM text") as error:
        private_key_from_environment()
    assert secret not in str(error.value)


def test_folder_is_no_key_file(tmp_path: Path) -> None:
    with pytest.raises(CertificateError, match="is no ordinary file"):
        read_private_key(tmp_path)


def pem(key: Any, password: bytes | None = None) -> bytes:
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    return bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    )


WRONG_KEYS: dict[str, tuple[Callable[[], bytes], str]] = {
    "text": (lambda: b"no key", "is no private key in PEM"),
    "empty": (lambda: b"", "is no private key in PEM"),
    "encrypted": (
        lambda: pem(ed25519.Ed25519PrivateKey.generate(), b"secret"),
        "is encrypted",
    ),
    "rsa": (lambda: pem(rsa.generate_private_key(65537, 2048)), "is a RSA key"),
    "public": (lambda: b"-----BEGIN PUBLIC KEY-----\n", "is a public key"),
    "large": (lambda: b"x" * 100_000, "more than 65,536 bytes"),
}


@pytest.mark.parametrize("name", WRONG_KEYS)
def test_wrong_private_key_is_named(tmp_path: Path, name: str) -> None:
    make, words = WRONG_KEYS[name]
    path = tmp_path / "key.pem"
    path.write_bytes(make())
    with pytest.raises(CertificateError, match=words):
        read_private_key(path)


def test_wrong_public_key_is_named(tmp_path: Path) -> None:
    public = rsa.generate_private_key(65537, 2048).public_key()
    path = tmp_path / "key.pub"
    path.write_bytes(
        public.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    with pytest.raises(CertificateError, match="is a RSA key"):
        read_public_key(path)
    path.write_text("no key")
    with pytest.raises(CertificateError, match="is no public key in PEM"):
        read_public_key(path)
    with pytest.raises(CertificateError, match="there is no such file"):
        read_public_key(tmp_path / "none")
