"""Personal data in run folders: purge."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from unsee.api.inputs import Location, location_text
from unsee.errors import ConfigError
from unsee.methods.vkd.feature_cache import feature_files
from unsee.records.lock import exclusive
from unsee.requests.models import ledger_of
from unsee.runs.purge import Purged, purge_run


def purge(runs: Location | Sequence[Location], *, dry_run: bool = False) -> list[Purged]:
    """Removes what identifies a person from run folders, and leaves the proof.

    Names, faces, questions, answers, paths, hashes of pictures, the state of the optimizer and the
    teacher's cached features go; the patch or model, its manifest, the hashes of the checkpoints,
    measures, checks and attacks stay. A second purge changes nothing.

    Args:
        runs: One run folder or several, finished or not, also of earlier versions.
        dry_run: Change nothing, and return what would be changed.

    Returns:
        For each folder, what was removed and rewritten, and files of unknown origin that are left.

    Raises:
        RunError: If a folder is no run, is in use, or holds links. Folders before it are purged.
        ConfigError: If no folder is given.

    Example:
        for purged in unsee.purge("runs/job"):
            print(purged.changes)
    """
    folders = [runs] if isinstance(runs, str) or not isinstance(runs, list | tuple) else list(runs)
    if not folders:
        raise ConfigError("no run folder was given. Name at least one, such as runs/job.")
    paths = [location_text("runs", folder) for folder in folders]
    return [_purge(Path(path), dry_run) for path in paths]


def _purge(run: Path, dry_run: bool) -> Purged:
    """Purges a run; a ledger has the hashes of its patches, and may be at work on it."""
    ledger = ledger_of(run)
    if ledger is None:
        return purge_run(run, feature_files, dry_run)
    with exclusive(ledger, "wait until that process has ended"):
        return purge_run(run, feature_files, dry_run, keep_manifest=True)
