"""Removes what identifies a person from a run folder, and leaves the proof.

What is left: the patch or model with its manifest, the hashes of the checkpoints, every measure,
check and attack, the training log, and a report of these. Nothing is followed out of the folder.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from unsee.artifacts.manifest import MANIFEST
from unsee.artifacts.model_card import CARD, redacted_card
from unsee.artifacts.pseudonyms import Pseudonyms
from unsee.artifacts.redactor import Redactor
from unsee.certificates.writing import FILES
from unsee.errors import ConfigError, RunError, listed
from unsee.files import path_text, read_text, remove, write_atomically
from unsee.recipes import plain_yaml
from unsee.recipes.finetune import ROLES
from unsee.recipes.redaction import redacted_recipe, vocabulary
from unsee.records.folder import (
    ENVIRONMENT,
    PARTS,
    RECIPE,
    REPORT,
    SCORES,
    STATE,
    SUMMARY,
    TRAIN,
    key_of_run,
)
from unsee.records.lock import NAME as LOCK
from unsee.records.lock import exclusive
from unsee.records.reader import parse_summary, read_run
from unsee.records.schema import FinetuneRecord, Provenance, Summary
from unsee.report.page import render
from unsee.runs.finetune import RECORD

# What trackers write into a run folder: settings and command lines, and weights of nothing.
TRACKERS = ("tensorboard", "wandb", "dvclive", "aim", ".aim", "mlruns", "swanlog")

# Files and folders that are removed, with what they hold.
REMOVED = {
    SCORES: "names, questions and answers",
    PARTS: "answers of an interrupted run",
    STATE: "half-trained weights and the state of the optimizer",
    **dict.fromkeys(TRACKERS, "a tracker's log, which may hold paths"),
}

# What is left as it is: numbers, weights with their proofs, and certificates, which name nobody.
LEFT = {TRAIN, LOCK, *FILES, *(f"{role}.jsonl" for role in (*ROLES, "visual_refit"))}
SAVED = ("patch", "model", "adapter")


@dataclass(frozen=True)
class Change:
    """A change of a purge.

    Attributes:
        path: The file or folder.
        action: "removed" or "rewritten".
        reason: What it held.
        content: The new content of a file that is rewritten.
    """

    path: Path
    action: Literal["removed", "rewritten"]
    reason: str
    content: str | None = None


@dataclass(frozen=True)
class Purged:
    """The result of purging a run folder.

    Attributes:
        folder: The run folder.
        changes: What was removed or rewritten; empty if nothing identified a person any more.
        unknown: Files that no run writes, and that were left: they may hold anything.
    """

    folder: Path
    changes: tuple[Change, ...]
    unknown: tuple[str, ...]


def purge_run(
    folder: Path,
    find_features: Callable[[Path], Sequence[Path]] = lambda cache: (),
    dry_run: bool = False,
    keep_manifest: bool = False,
) -> Purged:
    """Removes what identifies a person from a run folder; a second time it changes nothing.

    Every file is removed or replaced as a whole, so that a purge that was interrupted is finished
    by the next.

    Args:
        folder: The folder of a run, or of a fine-tuning; also unfinished, and of an older version.
        find_features: Returns the files of teacher features in the folder that `cache` of the run's
            method names; it may hold those of other runs too.
        dry_run: Change nothing, and say what would be changed.
        keep_manifest: Leave the manifest of the patch, of which somebody has the hash. Manifests
            have no paths in any case.

    Raises:
        RunError: If it is no run folder, is in use, or holds a link, a pipe or a device.
    """
    folder = Path(path_text("run folder ", folder, "give a run folder.", RunError))
    _require_run(folder)
    with exclusive(folder):
        _refuse_odd(folder)
        changes = [
            change
            for change in _changes(folder, find_features)
            if not (keep_manifest and change.path.name == MANIFEST)
        ]
        if not dry_run:
            for change in changes:
                if change.content is None:
                    remove(change.path)
                    if change.path.exists():
                        raise RunError(
                            f"{change.path} cannot be removed. Change its permissions, and purge "
                            "again."
                        )
                else:
                    write_atomically(change.path, change.content)
        return Purged(folder, tuple(changes), tuple(_unknown(folder)))


def _require_run(folder: Path) -> None:
    """Refuses a folder that is no run.

    Raises:
        RunError: If it is a link, missing, a file, or holds no record.
    """
    if folder.is_symlink():
        raise RunError(f"{folder} is a link. Give the run folder itself.")
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "there is no such folder"
        raise RunError(f"run folder {folder}: {what}. Give a run folder.")
    if any((folder / name).is_file() for name in (SUMMARY, RECORD)):
        return
    if (folder / RECIPE).is_file() and (folder / ENVIRONMENT).is_file():
        return
    inner = sorted(path.parent for path in folder.glob(f"*/{SUMMARY}"))
    hint = f" It holds runs: {listed([str(path) for path in inner], most=3)}." if inner else ""
    raise RunError(
        f"{folder} is no run folder: it has neither {SUMMARY} nor {RECORD}, nor the {RECIPE} and "
        f"{ENVIRONMENT} of an unfinished run. Nothing was changed.{hint}"
    )


def _refuse_odd(folder: Path) -> None:
    """Refuses links, pipes and devices, which would be followed out of the folder.

    Raises:
        RunError: If there is one.
    """
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(parent) / name
            mode = path.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                raise RunError(
                    f"{path} is a link, a pipe or a device, which no run makes, and is not "
                    "followed. Remove it, and purge again; nothing was changed."
                )


def _changes(folder: Path, find_features: Callable[[Path], Sequence[Path]]) -> Iterator[Change]:
    """The changes to make; what says where other files are comes last."""
    pseudonyms = Pseudonyms(secrets.token_bytes(32))
    redactor = Redactor(pseudonyms, vocabulary(), hub_ids=_hub_ids(folder))
    for cache in _cache_folders(folder):
        for path in find_features(cache):
            yield Change(path, "removed", "the teacher's features of pictures")
    for name, reason in REMOVED.items():
        if (folder / name).exists():
            yield Change(folder / name, "removed", reason)
    for inner in (folder, *_saved_folders(folder)):
        for path in sorted(inner.iterdir()):
            if path.name.startswith(".") and path.name.endswith(".partial"):
                yield Change(path, "removed", "a half-written file")
    for saved in _saved_folders(folder):
        yield from identifying_files(saved, redactor)
    yield from _records(folder, redactor)
    path = folder / RECIPE
    if path.is_file():
        try:
            text: str | None = redacted_recipe(read_text(path), redactor)
        except ConfigError:
            # Of releases before 0.2, or damaged.
            text = None
        yield from _rewritten(path, "paths", text, unreadable="removed")


def identifying_files(saved: Path, redactor: Redactor | None = None) -> Iterator[Change]:
    """The changes of a folder with a patch or a model; none if no file in it identifies a person.

    Args:
        saved: The folder, of which the card and the manifest are looked at.
        redactor: Knows the words that may stay; None makes one.
    """
    redactor = redactor or Redactor(Pseudonyms(secrets.token_bytes(32)), vocabulary())
    yield from _rewritten(saved / CARD, "names or paths", _card(saved / CARD, redactor))
    manifest = saved / MANIFEST
    yield from _rewritten(manifest, "paths in the command", _manifest(manifest, redactor))


def _hub_ids(folder: Path) -> frozenset[str] | None:
    """The hub ids that a run read from the hub; None if it was redacted, which told them apart."""
    if key_of_run(folder) is not None:
        return None
    path = folder / ENVIRONMENT
    if not path.is_file():
        return frozenset()
    hub = Provenance.model_validate_json(read_text(path)).hub or {}
    return frozenset(name.partition("@")[0] for name in hub)


def _records(folder: Path, redactor: Redactor) -> Iterator[Change]:
    """The changes of the record, the environment and the report."""
    path = folder / SUMMARY
    if path.is_file():
        run = read_run(folder)
        purged = _purged_summary(run.summary, redactor)
        page = render([replace(run, summary=purged)])
        yield from _rewritten(folder / REPORT, "faces, names and answers", page)
        yield from _rewritten(path, "names, answers, paths and hashes of pictures", _json(purged))
    elif (folder / REPORT).exists():
        yield Change(folder / REPORT, "removed", "faces, names and answers")
    path = folder / RECORD
    if path.is_file():
        record = FinetuneRecord.model_validate_json(read_text(path))
        content = redactor.record(_without_data_hashes(record.to_dict()))
        purged_record = FinetuneRecord.model_validate({**content, "redacted": True})
        yield from _rewritten(path, "names, paths and hashes of data", _json(purged_record))
    path = folder / ENVIRONMENT
    if path.is_file():
        environment = Provenance.model_validate_json(read_text(path))
        content = _without_data_hashes(environment.to_dict())
        yield from _rewritten(path, "hashes of pictures", json.dumps(content, indent=1) + "\n")


def _rewritten(
    path: Path, reason: str, content: str | None, unreadable: Literal["left", "removed"] = "left"
) -> Iterator[Change]:
    """The change of a file, if its content differs."""
    if content is None:
        if unreadable == "removed":
            yield Change(path, "removed", f"{reason}; it could not be read")
        return
    if not path.exists() or path.read_bytes() != content.encode("utf-8", "replace"):
        yield Change(path, "rewritten", reason, content)


def _purged_summary(summary: Summary, redactor: Redactor) -> Summary:
    if summary.redacted:
        return summary
    content = _without_data_hashes(summary.to_dict())
    return redactor.summary(Summary.model_validate(content))


def _json(record: Summary | FinetuneRecord) -> str:
    return json.dumps(record.to_dict(), indent=1, ensure_ascii=False) + "\n"


def _without_data_hashes(value: Any) -> Any:
    """A record without hashes of samples and pictures, unless they are keyed.

    Those of a checkpoint's files, by "name/file", stay.
    """
    if isinstance(value, list | tuple):
        return [_without_data_hashes(item) for item in value]
    if not isinstance(value, Mapping):
        return value
    kept = {key: _without_data_hashes(inner) for key, inner in value.items()}
    if value.get("redacted_with") is None:
        kept.pop("data_sha256", None)
        if isinstance(kept.get("inputs"), dict):
            kept["inputs"] = {n: digest for n, digest in kept["inputs"].items() if "/" in n}
        if isinstance(kept.get("sha256"), list):
            del kept["sha256"]
    return kept


def _saved_folders(folder: Path) -> Iterator[Path]:
    """The folders with a patch or a model in a run folder."""
    roles = (*ROLES, "visual_refit")
    for name in (*SAVED, *roles, *(f"{role}-adapter" for role in roles)):
        if (folder / name).is_dir():
            yield folder / name


def _card(path: Path, redactor: Redactor) -> str | None:
    return redacted_card(read_text(path), redactor) if path.is_file() else None


def _manifest(path: Path, redactor: Redactor) -> str | None:
    """A manifest without paths in its command and parameters; None if there is none."""
    if not path.is_file():
        return None
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        raise RunError(f"{path} is damaged. Restore it, or remove it, and purge again.") from error
    if isinstance(content, dict):
        if isinstance(content.get("command"), str):
            content["command"] = redactor.command(content["command"])
        content["parameters"] = redactor.typed(content.get("parameters") or {})
    return json.dumps(content, indent=1) + "\n"


def _cache_folders(folder: Path) -> Iterable[Path]:
    """The cache folders that the recipe and the record name, if they are there."""
    named: list[Any] = []
    if (folder / RECIPE).is_file():
        try:
            recipe = plain_yaml.parse(read_text(folder / RECIPE), "recipe")
        except ConfigError:
            recipe = None
        settings = recipe.get("set") if isinstance(recipe, dict) else None
        named.append(settings.get("cache") if isinstance(settings, dict) else None)
    if (folder / SUMMARY).is_file():
        method = parse_summary(json.loads(read_text(folder / SUMMARY))).method
        named.append(method.parameters.get("cache") if method is not None else None)
    paths = {Path(os.path.abspath(name)) for name in named if isinstance(name, str)}
    return sorted(path for path in paths if path.is_dir() and not path.is_symlink())


def _unknown(folder: Path) -> Iterator[str]:
    """Names of files and folders that no run writes."""
    known = {*REMOVED, *LEFT, RECIPE, ENVIRONMENT, SUMMARY, REPORT, RECORD}
    known |= {path.name for path in _saved_folders(folder)}
    for path in sorted(folder.iterdir()):
        partial = path.name.startswith(".") and path.name.endswith(".partial")
        if path.name not in known and not partial:
            yield path.name


def as_dict(purged: Purged) -> dict[str, Any]:
    """Returns the result as JSON has it."""
    changes = [asdict(replace(c, content=None)) | {"path": str(c.path)} for c in purged.changes]
    for change in changes:
        del change["content"]
    return {
        "folder": str(purged.folder),
        "changes": changes,
        "unknown": list(purged.unknown),
    }
