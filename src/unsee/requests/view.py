"""A ledger as plain values, for listings, JSON and exports; without names, paths and pictures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from unsee.artifacts.patch import apply_patch
from unsee.errors import RunError
from unsee.files import atomic_folder, refuse_nested, write_atomically
from unsee.requests.entries import LedgerState, Request, Step
from unsee.requests.ledger import LedgerFolder
from unsee.requests.models import (
    check_base,
    check_patches,
    patch_folder,
    step_folder,
)
from unsee.requests.settings import model_folder

LEDGER = "ledger.json"
README = "README.md"


def request_values(request: Request) -> dict[str, Any]:
    """A request in one line of a listing.

    Args:
        request: The request.
    """
    return {
        "id": request.id,
        "status": request.status,
        "received": request.created,
        "photographs": request.entry.distinct,
        "marked": request.entry.marked,
        "people": request.entry.people,
        "steps": list(request.steps),
    }


def step_values(step: Step) -> dict[str, Any]:
    """A step with its decision.

    Args:
        step: The step.
    """
    decided = step.decided
    values: dict[str, Any] = {
        "step": step.number,
        "requests": list(step.entry.requests),
        "held": list(step.entry.held),
        "status": step.status,
        "started": step.started,
        "ended": step.ended,
    }
    if decided is not None:
        values |= {
            "scores": {name: score.to_dict() for name, score in decided.scores.items()},
            "seconds": decided.seconds,
            "certificates_sha256": dict(decided.certificates),
        }
        values |= {
            "accepted": decided.decision.accepted,
            "criteria": [c.to_dict() for c in decided.decision.criteria],
            "not_measured": list(decided.decision.not_measured),
            "audited": list(decided.audited),
            "not_audited": list(decided.not_audited),
            "patch_sha256": decided.patch_sha256,
        }
    return values


def show_values(ledger: LedgerFolder, name: str) -> dict[str, Any]:
    """Everything that a ledger says of a request.

    Args:
        ledger: The ledger.
        name: The request's id.

    Raises:
        UnknownNameError: If there is no such request.
    """
    request = ledger.request(name)
    state = ledger.state
    return {
        **request_values(request),
        "notes": list(request.entry.notes),
        "photograph_hashes": list(request.entry.photographs),
        "path_remembered": name in ledger.store.places(),
        "steps": [
            step_values(state.steps[number]) | {"folder": str(step_folder(ledger.folder, number))}
            for number in request.steps
        ],
    }


def ledger_values(state: LedgerState) -> dict[str, Any]:
    """The whole ledger: settings, base, requests, steps and the deployed patches.

    Args:
        state: The state of the ledger.
    """
    settings = state.settings.to_dict()
    return {
        "settings": {k: v for k, v in settings.items() if k not in ("retain", "strangers")},
        "base_sha256": dict(state.created.base),
        "requests": [
            {**request_values(r), "photograph_hashes": list(r.entry.photographs)}
            for r in state.requests.values()
        ],
        "steps": [step_values(step) for step in state.steps.values()],
        "deployed": [
            {"step": number, "requests": list(state.steps[number].entry.requests)}
            for number in state.stack
        ],
    }


def export(ledger: LedgerFolder, out: Path, model: bool = False) -> dict[str, Any]:
    """Writes what is to be deployed and what is evidence: patches, decisions, and the model.

    Args:
        ledger: The ledger.
        out: Folder to write.
        model: Also write the checkpoint with all deployed patches on it.

    Returns:
        Names of what was written, and how to apply the patches.

    Raises:
        UnseeError: If a patch or the base was altered, there is no patch, or `out` is not empty or
            lies in the ledger.
    """
    state = ledger.state
    source = model_folder(state.settings)
    refuse_nested(out, [("ledger", ledger.folder), ("model", source)])
    patches = check_patches(ledger.folder, state)
    if model:
        if not patches:
            raise RunError(
                "no request was accepted yet, so the deployed model is the base as it is. Run one "
                "first, or leave --checkpoint out."
            )
        check_base(source, state.created.base)
    names = [f"{place:02d}-step-{number:04d}" for place, number in enumerate(state.stack, 1)]
    with atomic_folder(out) as partial:
        for name, number in zip(names, state.stack, strict=True):
            shutil.copytree(patch_folder(ledger.folder, number), partial / "patches" / name)
        text = json.dumps(ledger_values(state), indent=1, ensure_ascii=False)
        write_atomically(partial / LEDGER, text + "\n")
        write_atomically(partial / README, _readme(names))
        if model:
            apply_patch(patches, source, partial / "model", "leave-out")
    return {
        "out": str(out),
        "requests": len(state.requests),
        "patches": [f"patches/{name}" for name in names],
        "model": str(out / "model") if model else None,
    }


def _readme(names: list[str]) -> str:
    patches = " ".join(f"patches/{name}" for name in names)
    apply = (
        f"To apply them in order to the base checkpoint:\n\n    unsee apply {patches} --model BASE "
        "--out DIR\n"
        if names
        else "No request was accepted: the model is the base as it is.\n"
    )
    return (
        "# Deletion requests\n\n"
        f"`{LEDGER}` lists the requests, the steps that answered them, every decision with its "
        "margins, and keyed hashes of the photographs; it names no person. `patches/` holds the "
        f"deployed visual patches.\n\n{apply}"
    )
