"""Certificates of sample records, and requests with every key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from support.report_record import make_run
from unsee.certificates import (
    Certificate,
    EarlierPatch,
    Photographs,
    ReAudit,
    Request,
    build_certificate,
)

ISSUED = "2026-11-29T01:20:00Z"


def full_request(**changes: Any) -> Request:
    """A request with every key."""
    hashes = tuple(f"{number:064x}" for number in range(12))
    audits = [
        ReAudit(
            who="forgotten_earlier",
            request_id="2026-11",
            measure="forget_holdout/vqa/accuracy",
            before=0.03,
            after=0.04,
            low=0.0,
            high=0.1,
            n=20,
            margin=0.05,
            passed=True,
        ),
        ReAudit(
            who="kept",
            measure="retain_holdout/vqa/accuracy",
            before=0.93,
            after=0.92,
            n=200,
            margin=0.02,
            passed=True,
        ),
    ]
    fields: dict[str, Any] = {
        "id": "2026-17",
        "received": "2026-11-20",
        "carried_out": ISSUED,
        "data_subjects": 4,
        "photographs": Photographs(count=12, salted_sha256=hashes, salt_id="0123456789abcdef"),
        "earlier": (EarlierPatch(request_id="2026-11", patch_id="ab" * 32),),
        "re_audit": tuple(audits),
        "decision": "accepted",
        "reasons": (),
    }
    return Request(**{**fields, **changes})


def equivalence_tests(outcome: str = "indistinguishable", **changes: Any) -> list[dict[str, Any]]:
    """A test before any attack, and one at the worst point of a relearning attack."""
    common = {
        "outcome": outcome,
        "side": "above",
        "difference": 0.01,
        "low": -0.01,
        "high": 0.03,
        "margin": 0.05,
        "p": 0.01,
        "people": 40,
        "test": "paired t",
    }
    return [
        {"attack": "", "measure": "forget_holdout/vqa/accuracy", **common, **changes},
        {
            "attack": "relearn?share=0.2",
            "step": 40,
            "measure": "forget_holdout/vqa/accuracy",
            **common,
            **changes,
        },
    ]


def sample_certificate(folder: Path, request: Request | None = None, **changes: Any) -> Certificate:
    """The certificate of the sample record, which is written into `folder`.

    Args:
        folder: The run folder to make.
        request: The request; None for one with every key.
        changes: Parts of the record to replace; None removes a part.
    """
    changes = {"artifacts": None, "equivalence": equivalence_tests(), **changes}
    run = make_run(folder, **changes)
    return build_certificate(run, request or full_request(), issued=ISSUED)
