"""Writes a certificate into a folder: JSON, HTML and PDF."""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from unsee.certificates.document import document
from unsee.certificates.pages import html
from unsee.certificates.pdf import pdf
from unsee.certificates.schema import Certificate
from unsee.certificates.signing import FILE, certificate_text, sign
from unsee.errors import CertificateError, RunError
from unsee.files import make_folder, path_text, write_atomically

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

LOGGER = logging.getLogger("unsee")
HTML, PDF = "certificate.html", "certificate.pdf"
FILES = (FILE, HTML, PDF)
ADVICE = "Free some space or name another folder with --out."


@dataclass(frozen=True)
class Written:
    """The files of a certificate.

    Attributes:
        certificate: The certificate, signed if a key was given.
        json: `certificate.json`.
        html: `certificate.html`.
        pdf: `certificate.pdf`; None without the package fpdf2.
    """

    certificate: Certificate
    json: Path
    html: Path
    pdf: Path | None


def write_certificate(
    certificate: Certificate, folder: Path | str, key: Ed25519PrivateKey | None = None
) -> Written:
    """Writes certificate.json, certificate.html and, with fpdf2, certificate.pdf.

    The JSON is written last, so a folder that has it has all of them.

    Args:
        certificate: From `build_certificate`.
        folder: The folder; created if it is missing.
        key: The private key that signs; None leaves the certificate unsigned, and it says so.

    Raises:
        CertificateError: If the folder has a certificate already.
        RunError: If it cannot be written; nothing of it is left then.
    """
    folder = Path(path_text("folder ", folder, "name a folder with --out.", CertificateError))
    refuse_written(folder)
    if key is not None:
        certificate = sign(certificate, key)
    is_new = not folder.exists()
    try:
        pages = write_document(certificate, folder)
        write_atomically(folder / FILE, certificate_text(certificate), advice=ADVICE)
    except RunError:
        # Half a certificate would be in the way of the next attempt, which overwrites nothing.
        for name in FILES:
            (folder / name).unlink(missing_ok=True)
        if is_new:
            with suppress(OSError):
                folder.rmdir()
        raise
    return Written(certificate, folder / FILE, *pages)


def refuse_written(folder: Path) -> None:
    """Checks that a folder has no certificate yet.

    Raises:
        CertificateError: If it has one, or is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise CertificateError(f"{folder} is a file. Name a folder with --out.")
    for name in FILES:
        if os.path.lexists(folder / name):
            raise CertificateError(
                f"{folder / name} exists, and a certificate is never overwritten. Name another "
                "folder with --out."
            )


def write_document(certificate: Certificate, folder: Path) -> tuple[Path, Path | None]:
    """Writes the HTML and, with fpdf2, the PDF of a certificate; existing ones are replaced.

    Args:
        certificate: The certificate, signed or not.
        folder: The folder; created if it is missing.

    Raises:
        RunError: If they cannot be written.
    """
    shown = document(certificate)
    content = pdf(shown) if find_spec("fpdf") is not None else None
    make_folder(folder, ADVICE)
    write_atomically(folder / HTML, html(shown), advice=ADVICE)
    if content is None:
        LOGGER.warning(
            "no PDF was written: it needs fpdf2. Type: pip install 'unsee[certificates]'."
        )
        return folder / HTML, None
    write_atomically(folder / PDF, content, advice=ADVICE)
    return folder / HTML, folder / PDF
