"""The deployed model of a ledger: its base checkpoint with the accepted patches on it, in order."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from unsee.artifacts.manifest import MANIFEST, TENSORS
from unsee.artifacts.patch import apply_patch
from unsee.errors import ModelError, PatchError, RunError, listed
from unsee.families.encoders.functions import is_function
from unsee.files import (
    combine_digests,
    hash_file,
    read_json_with_digest,
    remove,
    write_json_with_digest,
)
from unsee.models.checkpoint import resolve
from unsee.requests.entries import Decided, LedgerState
from unsee.requests.store import FILE
from unsee.runs.content import checkpoint_inputs

# The checkpoint that the next step starts from; it can be removed at any time and is made again.
STATE, STATE_FACTS = "state", "state.json"
STEPS, RUN, PATCH = "steps", "run", "patch"


def step_folder(ledger: Path, step: int) -> Path:
    """The folder of a step."""
    return ledger / STEPS / f"{step:04d}"


def ledger_of(run: Path) -> Path | None:
    """The ledger of which a run folder is a step's; None if it is of none."""
    run = run.absolute()
    ledger = run.parents[2] if len(run.parents) > 2 else run
    ours = run.name == RUN and run.parent.parent.name == STEPS and (ledger / FILE).is_file()
    return ledger if ours else None


def patch_folder(ledger: Path, step: int) -> Path:
    """The folder of a step's patch."""
    return step_folder(ledger, step) / RUN / PATCH


def base_hashes(model: str) -> dict[str, str]:
    """SHA-256 of the files of a base checkpoint that transformers reads, by name."""
    return {
        name.partition("/")[2]: digest for name, digest in checkpoint_inputs("base", model).items()
    }


def check_base(model: str, expected: Mapping[str, str]) -> None:
    """Refuses a base checkpoint that is not the one that the ledger was created over.

    Args:
        model: Its folder or hub id.
        expected: The hashes of its files when the ledger was created.

    Raises:
        ModelError: If a file differs, is missing, or is new.
    """
    found = base_hashes(model)
    differing = [n for n in sorted({*expected, *found}) if expected.get(n) != found.get(n)]
    if differing:
        # A function has no files: its weights must be the same whenever it is called.
        mend = "Put the original files back"
        if is_function(model):
            mend = "Let the function load the same weights on every call"
        raise ModelError(
            f"model {model} is not the one that the ledger was created over: {listed(differing)} "
            f"differ{'s' * (len(differing) == 1)}. {mend}, or begin a new ledger over this model "
            "with unsee request init."
        )


def check_patches(ledger: Path, state: LedgerState) -> list[Path]:
    """Returns the folders of the deployed patches, in order, after comparing their hashes.

    Raises:
        PatchError: If one is missing or was altered.
    """
    patches = []
    for number in state.stack:
        folder, decided = patch_folder(ledger, number), state.steps[number].decided
        if decided is None or patch_hashes(folder) != _recorded(decided):
            raise PatchError(
                f"patch {folder} is missing, or not the one that step {number} made. Restore the "
                "ledger's folder from a backup."
            )
        patches.append(folder)
    return patches


def patch_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the two files of a patch, by name; without those that are missing."""
    names = (TENSORS, MANIFEST)
    return {name: hash_file(folder / name) for name in names if (folder / name).is_file()}


def _recorded(decided: Decided) -> dict[str, str]:
    return {TENSORS: decided.patch_sha256, MANIFEST: decided.manifest_sha256}


def deployed_model(ledger: Path, state: LedgerState, model: str) -> Path:
    """Returns the checkpoint with all accepted patches on it, which is made if it is not there.

    Args:
        ledger: The ledger's folder.
        state: The state of the ledger.
        model: The base checkpoint, after `check_base`.

    Raises:
        PatchError: If a patch is missing or was altered.
        ModelError: If the checkpoint cannot be written.
    """
    patches = check_patches(ledger, state)
    if not patches:
        return resolve(model)
    folder, facts = ledger / STATE, ledger / STATE_FACTS
    stack = {str(p.relative_to(ledger)): combine_digests(patch_hashes(p)) for p in patches}
    if folder.is_dir() and facts.exists():
        try:
            kept = read_json_with_digest(facts)
        except RunError:
            kept = None
        if kept == {"stack": stack, "files": base_hashes(str(folder))}:
            return folder
    remove(facts)
    remove(folder)
    apply_patch(patches, model, folder, "leave-out")
    write_json_with_digest(facts, {"stack": stack, "files": base_hashes(str(folder))})
    return folder
