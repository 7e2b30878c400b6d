"""The certificates of a step: one for each request that it answers."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from unsee.artifacts.manifest import patch_id, read_manifest
from unsee.certificates import (
    EarlierPatch,
    Photographs,
    ReAudit,
    Request,
    build_certificate,
    private_key_from_environment,
    write_certificate,
)
from unsee.certificates.signing import FILE
from unsee.data.digests import salt_id
from unsee.files import hash_file, remove
from unsee.records.reader import Run
from unsee.requests.decision import Scores
from unsee.requests.entries import Criterion, Decision, LedgerState
from unsee.requests.models import patch_folder, step_folder
from unsee.requests.store import Store

CERTIFICATES = "certificates"


def certificate_folder(ledger: Path, step: int, request: str) -> Path:
    """Returns the folder of a request's certificate.

    Args:
        ledger: The ledger's folder.
        step: Number of the step that answered the request.
        request: The request's id.
    """
    return step_folder(ledger, step) / CERTIFICATES / request


def write_certificates(
    store: Store,
    state: LedgerState,
    record: Run,
    decision: Decision,
    scores: Scores,
) -> dict[str, str]:
    """Writes a certificate for each request of the step that is unfinished.

    It is signed with the key that the environment variable UNSEE_SIGNING_KEY holds or names.
    Certificates of a decision that was not recorded, as after a kill, are replaced.

    Args:
        store: The ledger.
        state: Its state, in which the step is unfinished.
        record: The record of the step's run.
        decision: The decision on it.
        scores: The scores that it was decided by.

    Returns:
        SHA-256 of each certificate.json, by request.
    """
    step = state.unfinished
    if step is None:
        return {}
    digests, key = {}, private_key_from_environment()
    remove(step_folder(store.folder, step.number) / CERTIFICATES)
    for name in step.entry.requests:
        request = Request(
            id=name,
            received=state.requests[name].created,
            carried_out=datetime.now(UTC).isoformat(timespec="seconds"),
            data_subjects=state.requests[name].entry.people,
            photographs=_photographs(store, state, name),
            earlier=tuple(
                EarlierPatch(
                    request_id=" + ".join(state.steps[number].entry.requests),
                    patch_id=patch_id(read_manifest(patch_folder(store.folder, number))),
                )
                for number in state.stack
            ),
            re_audit=_re_audit(state, decision, scores),
            decision="accepted" if decision.accepted else "not_accepted",
            reasons=tuple(criterion.text for criterion in decision.failed),
        )
        folder = certificate_folder(store.folder, step.number, name)
        write_certificate(build_certificate(record.folder, request), folder, key)
        digests[name] = hash_file(folder / FILE)
    return digests


def _photographs(store: Store, state: LedgerState, name: str) -> Photographs:
    entry = state.requests[name].entry
    hashes = sorted(set(entry.photographs))
    return Photographs(
        count=entry.distinct,
        salted_sha256=tuple(hashes),
        salt_id=salt_id(store.salt_of(name)),
    )


def _re_audit(state: LedgerState, decision: Decision, scores: Scores) -> tuple[ReAudit, ...]:
    """The results of those forgotten before, and of those who are kept."""
    judged: Mapping[str, Criterion] = {
        c.subject: c for c in decision.criteria if c.name in ("still forgotten", "kept")
    }
    found = []
    for subject, score in scores.items():
        criterion = judged.get(subject)
        if subject == "kept":
            who, before = "kept", score.base
        elif subject in state.forgotten:
            who, before = "forgotten_earlier", state.last_score(subject)
        else:
            continue
        found.append(
            ReAudit(
                who=who,  # type: ignore[arg-type]
                request_id=None if subject == "kept" else subject,
                measure=score.measure,
                before=before,
                after=score.after,
                n=score.n,
                margin=criterion.margin if criterion is not None else None,
                passed=criterion.passed if criterion is not None else None,
            )
        )
    return tuple(found)
