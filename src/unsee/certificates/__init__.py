"""Certificates: what was done for a request, as evidence that others can check.

`build_certificate` makes one from a run folder, `write_certificate` signs and writes it, and
`unsee.certificates.verify` checks it.
"""

from __future__ import annotations

from unsee.certificates.builder import build_certificate
from unsee.certificates.keys import private_key_from_environment, read_private_key
from unsee.certificates.photographs import identify, photographs_in
from unsee.certificates.schema import (
    Certificate,
    EarlierPatch,
    Photographs,
    ReAudit,
    Request,
    json_schema,
)
from unsee.certificates.signing import read_certificate, sign
from unsee.certificates.writing import Written, write_certificate

__all__ = [
    "Certificate",
    "EarlierPatch",
    "Photographs",
    "ReAudit",
    "Request",
    "Written",
    "build_certificate",
    "identify",
    "json_schema",
    "photographs_in",
    "private_key_from_environment",
    "read_certificate",
    "read_private_key",
    "sign",
    "write_certificate",
]
