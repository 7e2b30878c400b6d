"""Checks a certificate: its signature, and what can be computed again from other files."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from unsee import __version__
from unsee.artifacts.identity import base_of
from unsee.artifacts.manifest import MANIFEST, TENSORS, patch_id, read_manifest
from unsee.artifacts.pseudonyms import read_key
from unsee.certificates.builder import build_certificate
from unsee.certificates.document import document
from unsee.certificates.keys import fingerprint, read_public_key
from unsee.certificates.pages import html
from unsee.certificates.photographs import photographs_in
from unsee.certificates.schema import Certificate, Checkpoint, TensorChange
from unsee.certificates.signing import CertificateFile, is_signature_valid, read_certificate
from unsee.certificates.writing import HTML
from unsee.data.digests import salt_id, salted_hash
from unsee.data.overlaps import distinct_photographs
from unsee.errors import CertificateError, UnseeError, counted, listed, quoted
from unsee.files import hash_file, path_text, read_text
from unsee.models.checkpoint import resolve, weight_map
from unsee.models.vlm import VLM
from unsee.records.reader import read_run

Outcome = Literal["passed", "failed", "not_checked"]


@dataclass(frozen=True)
class Check:
    """One check of a certificate.

    Attributes:
        name: Subject of the check: file, signature, signer, page, run, record, patch,
            manifest, model or photographs.
        outcome: "not_checked" where nothing was given to check it with.
        sentence: The outcome in words.
    """

    name: str
    outcome: Outcome
    sentence: str


@dataclass(frozen=True)
class CertificateVerification:
    """The checks of one certificate, from `verify_certificate`.

    Attributes:
        path: The certificate.
        certificate: Its content.
        checks: The checks, in order.
    """

    path: Path
    certificate: Certificate
    checks: tuple[Check, ...]

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.outcome == "failed")

    def describe(self) -> str:
        """Returns the checks as text, one a line."""
        words = {"passed": "ok", "failed": "FAILED", "not_checked": "not checked"}
        return "\n".join(f"{words[c.outcome]}: {c.sentence}" for c in self.checks)


@dataclass(frozen=True)
class Sources:
    """The files and keys that a certificate is compared with; None leaves a check out.

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

    public_key: Path | str | None = None
    run: Path | str | None = None
    patch: Path | str | None = None
    model: Path | str | None = None
    photos: Path | str | None = None
    salt: Path | str | None = None
    allow_unsigned: bool = False
    trust_remote_code: bool = False


def verify_certificate(path: Path | str, sources: Sources | None = None) -> CertificateVerification:
    """Checks a certificate's signature, and everything that `sources` allow to compute again.

    Args:
        path: The certificate, or the folder that has it.
        sources: The files and keys that it is compared with.

    Raises:
        UnseeError: If the certificate or something it is compared with cannot be read.
    """
    sources = sources or Sources()
    if (sources.photos is None) != (sources.salt is None):
        raise CertificateError(
            "--photos and --salt belong together: hashes of photographs are salted. Give both."
        )
    file = read_certificate(path)
    checks = [*_signature(file, sources), *_page(file)]
    certificate = file.certificate
    if sources.run is not None:
        checks += _run(certificate, sources)
    if sources.patch is not None:
        checks += _patch(certificate, Path(sources.patch))
    if sources.model is not None:
        checks.append(_model(certificate, sources))
    if sources.photos is not None and sources.salt is not None:
        checks.append(_photographs(certificate, sources.photos, sources.salt))
    return CertificateVerification(file.path, certificate, tuple(checks))


def _signature(file: CertificateFile, sources: Sources) -> Iterator[Check]:
    certificate = file.certificate
    if not file.exact:
        yield Check(
            "file",
            "failed",
            f"{file.path} was changed: it is not the bytes that unsee writes for its content.",
        )
    signer = certificate.signer
    if certificate.signature is None:
        yield from _unsigned(certificate, sources)
        return
    if signer is None or not is_signature_valid(certificate):
        yield Check(
            "signature",
            "failed",
            "the signature does not fit the content: the certificate was edited after it was "
            "signed, or the signature belongs to another.",
        )
        return
    print_ = fingerprint(base64.b64decode(signer.public_key))
    yield Check("signature", "passed", f"the content is as it was signed by the key {print_}.")
    yield _signer(print_, sources)


def _unsigned(certificate: Certificate, sources: Sources) -> Iterator[Check]:
    if certificate.signer is not None:
        yield Check(
            "signature",
            "failed",
            "the signature was removed: the certificate names the key that signed it, and has no "
            "signature.",
        )
    elif sources.public_key is not None:
        yield Check(
            "signature", "failed", "the certificate is not signed, so it is not by the given key."
        )
    elif sources.allow_unsigned:
        yield Check(
            "signature",
            "not_checked",
            "the certificate is not signed: nothing shows who issued it, nor that parts that are "
            "not compared below were not edited.",
        )
    else:
        yield Check(
            "signature",
            "failed",
            "the certificate is not signed: nothing shows who issued it, nor that it was not "
            "edited. Ask for a signed one, or compare it with --run and type --allow-unsigned.",
        )


def _signer(found: str, sources: Sources) -> Check:
    """Whether the signer is the one that was asked for; `found` is the key's fingerprint."""
    if sources.public_key is None:
        return Check(
            "signer",
            "not_checked",
            f"signed by the key {found}, which you did not ask for: anyone can make a key. Give "
            "the signer's with --public-key.",
        )
    wanted = _wanted(sources.public_key)
    if wanted == found:
        return Check("signer", "passed", "the key is the one given with --public-key.")
    return Check(
        "signer",
        "failed",
        f"signed by the key {found}, and --public-key is the key {wanted}.",
    )


def _wanted(given: Path | str) -> str:
    """The fingerprint of the key that was asked for, which may be given as such."""
    digits = re.sub(r"[\s:]", "", str(given)).lower()
    if re.fullmatch(r"[0-9a-f]{64}", digits):
        return " ".join(digits[i : i + 4] for i in range(0, 64, 4))
    return fingerprint(read_public_key(given))


def _page(file: CertificateFile) -> Iterator[Check]:
    """Whether the HTML beside the certificate is its document."""
    page = file.path.with_name(HTML)
    if not page.exists() or file.certificate.software.certificate_by != __version__:
        return
    if read_text(page) == html(document(file.certificate)):
        yield Check("page", "passed", f"{HTML} beside it says what it says.")
    else:
        yield Check(
            "page",
            "failed",
            f"{page} does not say what the certificate says. Make the pages again: `unsee "
            "certificate show CERTIFICATE --out DIR`.",
        )


def _run(certificate: Certificate, sources: Sources) -> Iterator[Check]:
    """Builds the certificate again from the run, and names the first part that differs."""
    try:
        built = build_certificate(
            path_text("--run ", sources.run, "give a run folder.", CertificateError),
            certificate.request,
            patch=sources.patch,
            issued=certificate.issued,
        )
    except UnseeError as error:
        raise CertificateError(f"--run {sources.run}: {error}") from error
    same = built.run.record_sha256 == certificate.run.record_sha256
    parts = list(_differences(certificate.to_dict(), built.to_dict()))
    if not same and _is_purged(sources, parts):
        yield Check(
            "run",
            "passed",
            f"the record in {sources.run} gives every measure, attack and tensor of this "
            "certificate.",
        )
        yield Check(
            "record",
            "not_checked",
            "the record is redacted and no longer the file that the certificate was made from, as "
            f"after `unsee purge`: {listed(parts, 5)} cannot be compared.",
        )
    elif not same:
        yield Check(
            "run",
            "failed",
            f"the record in {sources.run} has the SHA-256 {built.run.record_sha256}, and the "
            f"certificate is about {certificate.run.record_sha256}: it is another run, or its "
            "record was changed.",
        )
    elif not parts:
        yield Check("run", "passed", f"the record in {sources.run} gives this certificate.")
    else:
        made = certificate.software.certificate_by
        versions = "" if made == __version__ else f" (made by unsee {made}; this is {__version__})"
        yield Check(
            "run",
            "failed",
            f"the record in {sources.run} gives other values for {listed(parts, 3)}{versions}.",
        )


# The parts of a certificate that `unsee purge` changes in a run folder.
_PURGED = (
    *("run.record_sha256", "run.command", "run.parameters", "base.name"),
    *("result.manifest_sha256", "result.patch_bytes"),
)


def _is_purged(sources: Sources, parts: Sequence[str]) -> bool:
    """Whether a run folder is redacted and differs from the certificate in nothing else."""
    if sources.run is None or not read_run(sources.run).summary.redacted:
        return False
    return all(part.startswith(_PURGED) for part in parts)


# What a run does not determine.
_FREE = ("signer", "signature", "software.certificate_by")


def _differences(one: Any, other: Any, key: str = "") -> Iterator[str]:
    """Dotted keys whose values differ, as far as a run determines them."""
    if key in _FREE:
        return
    if isinstance(one, dict) and isinstance(other, dict):
        for name in dict.fromkeys([*one, *other]):
            place = f"{key}.{name}".lstrip(".")
            yield from _differences(one.get(name), other.get(name), place)
    elif one != other:
        yield key


def _patch(certificate: Certificate, patch: Path) -> Iterator[Check]:
    manifest = read_manifest(patch)
    result = certificate.result
    if result.patch_id is None:
        yield Check("patch", "failed", f"{patch} is a patch, and the certificate is about none.")
        return
    changed = tuple(
        TensorChange(name=t.name, dtype=t.dtype, shape=t.shape, before=t.before, after=t.after)
        for t in manifest.changed
    )
    expected = (result.patch_id, certificate.base.identity_sha256, certificate.changes.tensors)
    if (patch_id(manifest), manifest.base_sha256, changed) != expected:
        yield Check(
            "patch",
            "failed",
            f"{patch} is the patch {patch_id(manifest)}, and the certificate is about "
            f"{result.patch_id}.",
        )
        return
    found = hash_file(patch / TENSORS)
    if found != result.tensors_sha256:
        yield Check(
            "patch",
            "failed",
            f"{patch / TENSORS} has the SHA-256 {found}, and the certificate has "
            f"{result.tensors_sha256}.",
        )
        return
    yield Check(
        "patch",
        "passed",
        f"{patch} is the certificate's patch, of {counted(len(changed), 'tensor')}.",
    )
    if hash_file(patch / MANIFEST) != result.manifest_sha256:
        yield Check(
            "manifest",
            "not_checked",
            f"{patch / MANIFEST} is another file than the certificate was made with, as after "
            "`unsee purge`: its base and its tensors are the same, and what it says of method and "
            "command cannot be compared.",
        )


def _model(certificate: Certificate, sources: Sources) -> Check:
    """Whether a checkpoint is the result, or the base, by its weights' hash and tensors."""
    given = path_text("--model ", sources.model, "give a checkpoint.", CertificateError)
    folder = resolve(given)
    base, result = certificate.base, certificate.result
    if base.weights_sha256 is None and result.weights_sha256 is None:
        return Check(
            "model", "failed", f"{given} cannot be compared: the certificate has no weights' hash."
        )
    if certificate.changes.tensors is not None:
        state = _tensor_state(folder, certificate.changes.tensors)
        if isinstance(state, Check):
            return state
    found = _weights(folder, base, sources.trust_remote_code)
    part = "visual weights" if base.weights_part == "visual" else "weights"
    if found == result.weights_sha256:
        return Check("model", "passed", f"{given} is the result: its {part} have the same SHA-256.")
    if found == base.weights_sha256:
        return Check(
            "model",
            "passed",
            f"{given} is the base, before unlearning: its {part} have the same SHA-256.",
        )
    return Check(
        "model",
        "failed",
        f"{given} is neither base nor result: its {part} have the SHA-256 {found}, and the result "
        f"has {result.weights_sha256}.",
    )


def _tensor_state(folder: Path, tensors: tuple[TensorChange, ...]) -> Check | None:
    """A failed check where a changed tensor is neither as before nor as after."""
    files = weight_map(folder)
    stored = base_of(folder, files)
    for tensor in tensors:
        if tensor.name not in files:
            # Saved again under other names; the hash of all weights decides.
            return None
        digest = stored.digest(tensor.name)
        if digest not in (tensor.before, tensor.after):
            return Check(
                "model",
                "failed",
                f"{folder}: tensor {tensor.name} has the SHA-256 {digest}, and the certificate "
                f"has {tensor.before} before and {tensor.after} after.",
            )
    return None


def _weights(folder: Path, base: Checkpoint, trust_remote_code: bool) -> str:
    """SHA-256 over the weights that a run would load from a checkpoint."""
    visual = base.weights_part == "visual"
    vlm = VLM.load(folder, visual_only=visual, trust_remote_code=trust_remote_code)
    digest: str = vlm.hash("visual" if visual else "all")
    return digest


def _photographs(certificate: Certificate, photos: Path | str, salt: Path | str) -> Check:
    named = certificate.request.photographs
    key = read_key(Path(path_text("--salt ", salt, "give the file with the salt.")))
    if named is None:
        return Check("photographs", "failed", "the certificate identifies no photographs.")
    if salt_id(key) != named.salt_id:
        return Check(
            "photographs",
            "failed",
            f"{salt} is the salt {salt_id(key)}, and the photographs were hashed with the salt "
            f"{named.salt_id}.",
        )
    pictures = photographs_in(photos)
    found = {salted_hash(picture, key): picture for picture in pictures}
    wanted = set(named.salted_sha256)
    strange = [picture.source for digest, picture in found.items() if digest not in wanted]
    missing = len(wanted - found.keys())
    if strange:
        return Check(
            "photographs",
            "failed",
            f"{counted(len(strange), 'photograph')} in {photos} {_are(len(strange))} not the "
            f"certificate's, first {quoted(strange[0])}.",
        )
    if missing:
        return Check(
            "photographs",
            "failed",
            f"{counted(missing, 'photograph')} of the certificate {_are(missing)} not in {photos}.",
        )
    count = distinct_photographs(pictures)
    if count != named.count:
        return Check(
            "photographs",
            "failed",
            f"{photos} has {counted(count, 'distinct photograph')}, and the certificate says "
            f"{named.count}.",
        )
    return Check("photographs", "passed", f"{photos} has the {counted(named.count, 'photograph')}.")


def _are(count: int) -> str:
    return "is" if count == 1 else "are"
