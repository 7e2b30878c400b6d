"""Ed25519 keys that sign and check certificates: made, read from PEM files, and identified."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from unsee.errors import CertificateError, first_line, require_extra
from unsee.files import is_read_by_others, is_regular, path_text

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

LOGGER = logging.getLogger("unsee")

# The environment variable with the PEM text of a private key, or the path of its file.
VARIABLE = "UNSEE_SIGNING_KEY"

PUBLIC = ".pub"
MOST_BYTES = 65_536
MAKE = "Make a pair with `unsee certificate key --out FILE`."


def make_key(path: Path | str) -> str:
    """Writes a new key pair: the private key, readable by its owner alone, and FILE.pub.

    Args:
        path: The private key's file; neither it nor FILE.pub may exist.

    Returns:
        The fingerprint of the public key.

    Raises:
        CertificateError: If a file exists already, or cannot be written.
        ConfigError: If the package cryptography is not installed.
    """
    require_extra("cryptography", "certificates", "a signing key")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = Path(path_text("key ", path, "give a file to write.", CertificateError))
    public = path.with_name(path.name + PUBLIC)
    for file in (path, public):
        if os.path.lexists(file):
            raise CertificateError(
                f"{file} exists, and a key is never overwritten. Name another file with --out."
            )
    key = Ed25519PrivateKey.generate()
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    shown = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write_new(path, secret, 0o600)
    try:
        _write_new(public, shown, 0o644)
    except CertificateError:
        path.unlink()
        raise
    return fingerprint(public_bytes(key.public_key()))


def _write_new(path: Path, content: bytes, mode: int) -> None:
    """Writes a file that must not exist, with its permissions from the first byte on."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(number, "wb") as file:
            file.write(content)
    except OSError as error:
        if not isinstance(error, FileExistsError):
            path.unlink(missing_ok=True)
        raise CertificateError(
            f"key {path} cannot be written ({first_line(error)}). Name another file with --out."
        ) from error


def read_private_key(path: Path | str) -> Ed25519PrivateKey:
    """Reads a private key from a PEM file.

    Raises:
        CertificateError: If it cannot be read, is encrypted, or is no private Ed25519 key.
        ConfigError: If the package cryptography is not installed.
    """
    key = _private(_read(path), f"key {path}")
    if is_read_by_others(Path(path)):
        LOGGER.warning("key %s can be read by others. Type: chmod 600 %s", path, path)
    return key


def private_key_from_environment() -> Ed25519PrivateKey | None:
    """Reads the private key that UNSEE_SIGNING_KEY holds or names; None if it is not set.

    Raises:
        CertificateError: If it is no private Ed25519 key.
        ConfigError: If the package cryptography is not installed.
    """
    given = os.environ.get(VARIABLE, "")
    if not given.strip():
        return None
    if "-----BEGIN" in given:
        return _private(given.encode("utf-8", "replace"), f"environment variable {VARIABLE}")
    if not is_regular(Path(given)):
        # What it holds may be a damaged key, which no message repeats.
        raise CertificateError(
            f"environment variable {VARIABLE}: holds neither the PEM text of a private key nor the "
            f"path of a file. {MAKE}"
        )
    return read_private_key(given)


def read_public_key(path: Path | str) -> bytes:
    """Reads the 32 bytes of a public key from a PEM file, or from that of a private key.

    Raises:
        CertificateError: If it cannot be read, or is no Ed25519 key.
        ConfigError: If the package cryptography is not installed.
    """
    require_extra("cryptography", "certificates", "a public key")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    content = _read(path)
    if b"PRIVATE KEY" in content:
        return public_bytes(_private(content, f"key {path}").public_key())
    try:
        key = serialization.load_pem_public_key(content)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"key {path}: is no public key in PEM ({first_line(error)}). Give the FILE.pub that "
            "the signer gave you."
        ) from error
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError(
            f"key {path}: is a {_kind(key)}, and certificates are signed with Ed25519. {MAKE}"
        )
    return public_bytes(key)


def public_bytes(key: Ed25519PublicKey) -> bytes:
    """The 32 bytes of a public key."""
    raw: bytes = key.public_bytes_raw()
    return raw


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half of a key as a certificate has it: 32 bytes in base64."""
    return base64.b64encode(public_bytes(key.public_key())).decode()


def fingerprint(public: bytes) -> str:
    """The fingerprint of a public key: SHA-256 of its 32 bytes, in groups of four digits.

    Example:
        >>> fingerprint(bytes(32))[:19]
        '6668 7aad f862 bd77'
    """
    digits = hashlib.sha256(public).hexdigest()
    return " ".join(digits[i : i + 4] for i in range(0, 64, 4))


def _private(content: bytes, label: str) -> Ed25519PrivateKey:
    require_extra("cryptography", "certificates", "a signing key")
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if b"PUBLIC KEY" in content:
        raise CertificateError(f"{label}: is a public key, and only a private key signs. {MAKE}")
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError as error:
        raise CertificateError(
            f"{label}: is encrypted. Decrypt it into a file of yours alone: `openssl pkey -in "
            "KEY -out DECRYPTED`, and give that."
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise CertificateError(
            f"{label}: is no private key in PEM ({first_line(error)}). {MAKE}"
        ) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise CertificateError(
            f"{label}: is a {_kind(key)}, and certificates are signed with Ed25519. {MAKE}"
        )
    return key


def _kind(key: object) -> str:
    """Words for the type of a key, such as "RSA key"."""
    name = type(key).__name__.lstrip("_")
    return f"{name.removesuffix('PrivateKey').removesuffix('PublicKey')} key"


def _read(path: Path | str) -> bytes:
    path = Path(path_text("key ", path, "give a PEM file.", CertificateError))
    if not is_regular(path):
        what = "is no ordinary file" if os.path.lexists(path) else "there is no such file"
        raise CertificateError(f"key {path}: {what}. {MAKE}")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise CertificateError(f"key {path} cannot be read ({first_line(error)}).") from error
    if len(content) > MOST_BYTES:
        raise CertificateError(
            f"key {path}: has more than {MOST_BYTES:,} bytes; no key has. {MAKE}"
        )
    return content
