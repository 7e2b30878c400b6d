"""Certificates of finished runs: made, signed, shown and verified."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict, Unpack

from unsee.api.inputs import Location, location_text
from unsee.artifacts.pseudonyms import read_key
from unsee.certificates import (
    Request,
    Written,
    build_certificate,
    identify,
    photographs_in,
    private_key_from_environment,
    read_certificate,
    read_private_key,
    write_certificate,
)
from unsee.certificates.keys import make_key
from unsee.certificates.verify import CertificateVerification, Sources, verify_certificate
from unsee.certificates.writing import refuse_written, write_document
from unsee.errors import ConfigError
from unsee.files import refuse_nested
from unsee.recipes.sources import shipped_checkpoint

__all__ = [
    "CertificateVerification",
    "CertifyOptions",
    "Request",
    "VerifyOptions",
    "Written",
    "certify",
    "make_key",
    "rewrite_document",
    "verify_certificate_file",
]


class CertifyOptions(TypedDict, total=False):
    """Further arguments of `certify`.

    Attributes:
        out: Folder to write; default: the run folder.
        key: PEM file of the private key that signs; default: UNSEE_SIGNING_KEY, else unsigned.
        request: What the controller knows of the request.
        photos: Folder with the photographs of the request, identified by salted hashes.
        salt: File with the salt.
        patch: The visual patch, if it is no longer in the run folder.
    """

    out: Location | None
    key: Location | None
    request: Request | None
    photos: Location | None
    salt: Location | None
    patch: Location | None


class VerifyOptions(TypedDict, total=False):
    """The files and keys that `verify_certificate_file` compares a certificate with.

    Attributes:
        public_key: The signer's public key: a PEM file, or its fingerprint.
        run: The run folder.
        patch: The visual patch.
        model: The checkpoint after the run, or before.
        photos: A folder of the photographs.
        salt: The file with the salt of their hashes.
        allow_unsigned: Whether a certificate without a signature may pass.
        trust_remote_code: Allow the checkpoint's own Python code to run.
    """

    public_key: Location | None
    run: Location | None
    patch: Location | None
    model: Location | None
    photos: Location | None
    salt: Location | None
    allow_unsigned: bool
    trust_remote_code: bool


def certify(run: Location, **options: Unpack[CertifyOptions]) -> Written:
    """Writes the certificate of a finished run: JSON, HTML and PDF.

    Args:
        run: The run folder.
        options: Further arguments, as `CertifyOptions` documents them.

    Returns:
        The certificate and its files.

    Raises:
        UnseeError: If the run is not finished, an input cannot be read, or the folder has a
            certificate already.

    Example:
        unsee.api.certify("runs/job", key="key.pem", request=Request(id="2026-17"))
    """
    out = Path(location_text("out", options.get("out") or run))
    refuse_written(out)
    given = options.get("key")
    key = read_private_key(given) if given is not None else private_key_from_environment()
    request = options.get("request") or Request()
    photos, salt = options.get("photos"), options.get("salt")
    refuse_nested(out, [("photographs", photos), ("patch", options.get("patch"))])
    if (photos is None) != (salt is None):
        raise ConfigError(
            "--photos and --salt belong together: photographs are identified by salted hashes. "
            "Give both, or neither."
        )
    if photos is not None and salt is not None:
        identified = identify(photographs_in(photos), read_key(Path(location_text("salt", salt))))
        request = request.model_copy(update={"photographs": identified})
    certificate = build_certificate(run, request, patch=options.get("patch"))
    return write_certificate(certificate, out, key)


def rewrite_document(path: Location, out: Location) -> tuple[Path, Path | None]:
    """Writes the HTML and the PDF of a certificate again.

    Args:
        path: The certificate, or the folder that has it.
        out: Folder to write.

    Returns:
        The files; None for a PDF that could not be written because fpdf2 is not installed.

    Raises:
        UnseeError: If the certificate cannot be read, or the folder has other pages.
    """
    file = read_certificate(path)
    folder = Path(location_text("out", out))
    if folder.resolve() != file.path.parent.resolve():
        refuse_written(folder)
    return write_document(file.certificate, folder)


def verify_certificate_file(
    path: Location, **options: Unpack[VerifyOptions]
) -> CertificateVerification:
    """Checks a certificate's signature, and everything that the options allow to compute again.

    Args:
        path: The certificate, or the folder that has it.
        options: What it is compared with, as `VerifyOptions` documents it.

    Returns:
        The checks; `failed` has those that failed.

    Raises:
        UnseeError: If the certificate or something it is compared with cannot be read.

    Example:
        unsee.api.verify_certificate_file("certificate.json", public_key="key.pem.pub").failed
    """
    model = options.get("model")
    if model is not None:
        options["model"] = shipped_checkpoint(location_text("model", model))
    return verify_certificate(path, Sources(**options))
