"""Certificates as files: canonical bytes, signature, strict reading.

The signature covers every key but `signature`, as RFC 8785 canonical JSON, so that any language
can check it. The file is written in one way only, so that a changed byte is found even where JSON
means the same.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rfc8785
from pydantic import ValidationError

from unsee.certificates import schema
from unsee.certificates.keys import public_text
from unsee.certificates.schema import Certificate, Signer
from unsee.errors import CertificateError, first_line, quoted, require_extra, shorten
from unsee.files import is_regular, path_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

FILE = "certificate.json"

# A certificate takes about 400 bytes for each changed tensor.
MOST_BYTES = 50_000_000
AGAIN = "Get an undamaged copy from whoever issued it."


@dataclass(frozen=True)
class CertificateFile:
    """A certificate as read from its file.

    Attributes:
        path: The file.
        certificate: Its content.
        exact: Whether the file's bytes are those that unsee writes for that content.
    """

    path: Path
    certificate: Certificate
    exact: bool


def signed_bytes(certificate: Certificate) -> bytes:
    """The bytes that a signature covers: everything but the signature, as RFC 8785 JSON."""
    content = certificate.to_dict()
    del content["signature"]
    canonical: bytes = rfc8785.dumps(content)
    return canonical


def sign(certificate: Certificate, key: Ed25519PrivateKey) -> Certificate:
    """Returns the certificate with its signer and signature.

    Args:
        certificate: The certificate; an earlier signature is replaced.
        key: The private key.
    """
    named = certificate.model_copy(
        update={"signer": Signer(public_key=public_text(key)), "signature": None}
    )
    signature = base64.b64encode(key.sign(signed_bytes(named))).decode()
    return named.model_copy(update={"signature": signature})


def is_signature_valid(certificate: Certificate) -> bool:
    """Whether the signature is the named signer's over this content; False without a signature.

    Raises:
        ConfigError: If the package cryptography is not installed.
    """
    if certificate.signer is None or certificate.signature is None:
        return False
    require_extra("cryptography", "certificates", "checking a signature")
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public = base64.b64decode(certificate.signer.public_key, validate=True)
        signature = base64.b64decode(certificate.signature, validate=True)
        # The last digit of base64 has unused bits: only one spelling is accepted.
        if base64.b64encode(signature).decode() != certificate.signature:
            return False
        if base64.b64encode(public).decode() != certificate.signer.public_key:
            return False
        Ed25519PublicKey.from_public_bytes(public).verify(signature, signed_bytes(certificate))
    except (InvalidSignature, ValueError):
        return False
    return True


def certificate_text(certificate: Certificate) -> str:
    """The text of `certificate.json`."""
    return json.dumps(certificate.to_dict(), indent=1, ensure_ascii=False) + "\n"


def read_certificate(path: Path | str) -> CertificateFile:
    """Reads a certificate; whether it is signed and by whom is not checked here.

    Args:
        path: The file, or a folder with `certificate.json`.

    Raises:
        CertificateError: If it cannot be read, is no certificate, or is of another schema.
    """
    advice = f"give a {FILE}, or the folder that has it."
    path = Path(path_text("certificate ", path, advice, CertificateError))
    if path.is_dir():
        path = path / FILE
    content = _read(path)
    raw = _decode(content, path)
    number = raw.get("schema")
    if raw.get("kind") != schema.KIND:
        raise CertificateError(f"certificate {path}: is JSON, but no certificate. {AGAIN}")
    if isinstance(number, bool) or number != schema.SCHEMA:
        raise CertificateError(
            f"certificate {path}: has schema {quoted(number)}; this version reads schema "
            f"{schema.SCHEMA}. Type `pip install --upgrade unsee`."
        )
    try:
        certificate = Certificate.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        key = shorten("/".join(str(part) for part in first["loc"]), 200)
        raise CertificateError(
            f"certificate {path}: '{key}' is not as the schema says ({first['msg']}). {AGAIN}"
        ) from error
    exact = certificate_text(certificate).encode() == content
    return CertificateFile(path, certificate, exact)


def _read(path: Path) -> bytes:
    if not is_regular(path):
        raise CertificateError(
            f"certificate {path}: there is no such file. Make one with `unsee certificate new RUN`."
        )
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CertificateError(
            f"certificate {path} cannot be read ({first_line(error)})."
        ) from error
    if len(content) > MOST_BYTES:
        raise CertificateError(
            f"certificate {path}: has more than {MOST_BYTES:,} bytes; no certificate has. {AGAIN}"
        )
    return content


def _decode(content: bytes, path: Path) -> dict[str, Any]:
    """The JSON object in a file, without repeated keys and without NaN."""
    try:
        raw = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_refuse_repeated,
            parse_constant=_refuse_constant,
        )
        # Half of a surrogate pair is JSON, but no text.
        json.dumps(raw, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else first_line(error)
        raise CertificateError(f"certificate {path}: cannot be read ({reason}). {AGAIN}") from error
    if not isinstance(raw, dict):
        raise CertificateError(f"certificate {path}: holds no JSON object. {AGAIN}")
    return raw


def _refuse_repeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {quoted(twice)} is there twice")
    return content


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
