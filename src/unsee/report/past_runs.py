"""The runs in a folder: finished, running, resumable or unreadable; no model is loaded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from unsee.errors import RunError, UnseeError, first_line, printable
from unsee.files import path_text, read_text
from unsee.records.folder import RECIPE, REPORT, SUMMARY
from unsee.records.lock import is_in_use
from unsee.records.reader import parse_summary
from unsee.records.schema import FinetuneRecord, Measures, Summary
from unsee.report.findings import first_key, forgotten_prefixes, value_of

FINETUNE = "finetune.json"

# Folders below the given one in which runs are looked for.
DEPTH = 4

# The keys of a summary that the table needs. Attacks, galleries and proofs take most of the time
# that it takes to check a record, and most of its size.
KEYS = (
    *("schema", "kind", "created", "command", "verdict", "method", "benchmark", "forgetting"),
    *("measures", "target", "cost"),
)

KEPT_PREFIXES = ("retain_holdout/vqa", "retain/vqa", "general/vqa")

State = Literal["finished", "running", "resumable", "unreadable"]


@dataclass(frozen=True)
class PastRun:
    """A run folder, as `unsee runs` lists it.

    Attributes:
        folder: The run folder.
        name: Its path below the folder that was listed.
        state: "finished", "running" (a process writes it), "resumable" (stopped: its command
            continues it), or "unreadable".
        kind: The command: demo, run, unlearn, evaluate, audit or finetune; "" if unknown.
        created: When it was finished, or last written if it was not (ISO 8601, UTC).
        method: The unlearning method; None if nothing was unlearned.
        benchmark: The benchmark; None if the data was the user's own.
        verdict: The first words of the verdict, such as "Forgotten".
        forget: Score on the pictures to forget, 0..1, with its measure and the score before.
        retain: Score on the pictures to keep, likewise.
        seconds: Wall-clock time of the training (s).
        command: Command that repeats or continues the run.
        reason: Why it is unreadable.
    """

    folder: Path
    name: str
    state: State
    kind: str = ""
    created: str | None = None
    method: str | None = None
    benchmark: str | None = None
    verdict: str = ""
    forget: Score | None = None
    retain: Score | None = None
    seconds: float | None = None
    command: str | None = None
    reason: str = ""


@dataclass(frozen=True)
class Score:
    """A score and the score before unlearning.

    Attributes:
        measure: Its key, as split/modality/metric.
        value: The score after unlearning, 0..1.
        before: The target model's score; None if it was not measured.
    """

    measure: str
    value: float
    before: float | None = None


def list_runs(folder: Path | str = "runs") -> list[PastRun]:
    """Lists the runs in a folder and its subfolders, the newest first.

    A damaged record is listed with the reason; it stops nothing.

    Args:
        folder: A folder of run folders, or one run folder.

    Returns:
        An entry for each run, empty if there is none.

    Raises:
        RunError: If there is no such folder.

    Example:
        >>> import tempfile
        >>> list_runs(tempfile.mkdtemp())
        []
    """
    advice = "give a folder that --out named, or the one above it."
    root = Path(path_text("folder of runs ", folder, advice, RunError))
    if not root.is_dir():
        raise RunError(
            f"folder of runs {root}: there is no such folder. Give the one that holds your run "
            "folders: `unsee runs FOLDER`."
        )
    found = [_read(path, root) for path in _run_folders(root, DEPTH)]
    return sorted(found, key=lambda run: (_time(run.created), run.name), reverse=True)


def _run_folders(folder: Path, depth: int) -> Iterator[Path]:
    """Yields run folders; nothing is looked for inside one, behind links, or in hidden folders."""
    try:
        with os.scandir(folder) as entries:
            listed = sorted(entries, key=lambda entry: entry.name)
    except OSError:
        # Somebody else's folder among the runs; a run that is in it could not be read either.
        return
    if {entry.name for entry in listed} & {SUMMARY, RECIPE, FINETUNE}:
        yield folder
        return
    for entry in listed:
        if depth and not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False):
            yield from _run_folders(Path(entry.path), depth - 1)


def _read(folder: Path, root: Path) -> PastRun:
    name = printable(folder.relative_to(root).as_posix() if folder != root else folder.name)
    try:
        if (folder / FINETUNE).exists():
            return _finetuned(folder, name)
        if (folder / SUMMARY).exists() and (folder / REPORT).exists():
            return _finished(folder, name)
        return _unfinished(folder, name)
    except (UnseeError, OSError) as error:
        reason = printable(first_line(error))
        return PastRun(folder, name, "unreadable", created=_written(folder), reason=reason)


def _finished(folder: Path, name: str) -> PastRun:
    path = folder / SUMMARY
    content = _json(path)
    if isinstance(content, dict):
        content = {key: content[key] for key in KEYS if key in content}
    summary = parse_summary(content, str(path))
    return PastRun(
        folder,
        name,
        "finished",
        kind=printable(summary.kind),
        created=summary.created or _written(folder),
        method=summary.method.name if summary.method else None,
        benchmark=summary.benchmark.name if summary.benchmark else None,
        verdict=printable((summary.verdict or "").partition(":")[0]),
        forget=_score(summary, first_key(summary.measures, *forgotten_prefixes(summary))),
        retain=_score(summary, first_key(summary.measures, *KEPT_PREFIXES)),
        seconds=summary.cost.seconds if summary.cost else None,
        command=summary.command,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path}: is no JSON ({first_line(error)}).") from error


def _score(summary: Summary, key: str | None) -> Score | None:
    measures: Measures | None = summary.measures
    value = value_of(measures, key)
    if key is None or value is None:
        return None
    return Score(key, value, value_of(summary.target, key))


def _finetuned(folder: Path, name: str) -> PastRun:
    path = folder / FINETUNE
    try:
        record = FinetuneRecord.model_validate(_json(path))
    except ValidationError as error:
        raise RunError(f"{path}: is no record of a fine-tuning.") from error
    seconds = [model.seconds for model in record.models.values() if model.seconds is not None]
    return PastRun(
        folder,
        name,
        "finished",
        kind="finetune",
        created=record.created or _written(folder),
        verdict=printable(", ".join(record.models)),
        seconds=sum(seconds) if seconds else None,
        command=record.command,
    )


def _unfinished(folder: Path, name: str) -> PastRun:
    """A run whose record is not written yet: the first line of its recipe is its command."""
    text = read_text(folder / RECIPE)
    first, _, rest = text.partition("\n")
    command = first.removeprefix("#").strip()
    words = command.split()
    keys = _plain_keys(rest)
    return PastRun(
        folder,
        name,
        "running" if is_in_use(folder) else "resumable",
        kind=words[1] if len(words) > 1 and words[0] == "unsee" else "",
        created=_written(folder),
        method=keys.get("method"),
        benchmark=keys.get("benchmark"),
        command=printable(command) or None,
    )


def _plain_keys(text: str) -> Mapping[str, str]:
    """The keys of a recipe at its top level whose value is one word."""
    pairs = (line.partition(": ") for line in text.splitlines() if line[:1].isalpha())
    return {
        key: printable(value.strip()) for key, _, value in pairs if value.strip().isidentifier()
    }


def _written(folder: Path) -> str | None:
    """When the newest file in a run folder was written."""
    try:
        with os.scandir(folder) as entries:
            newest = max((entry.stat().st_mtime for entry in entries), default=None)
    except OSError:
        return None
    if newest is None:
        return None
    return datetime.fromtimestamp(newest, UTC).isoformat(timespec="seconds")


def _time(created: str | None) -> float:
    """Seconds since 1970; 0 where the time is not known."""
    try:
        moment = datetime.fromisoformat(created or "")
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def as_dict(run: PastRun) -> dict[str, Any]:
    """A run as JSON holds it."""
    scores = {"forget": run.forget, "retain": run.retain}
    plain = {key: vars(score) if score else None for key, score in scores.items()}
    return {**vars(run), "folder": str(run.folder), **plain}


def table(runs: list[PastRun]) -> str:
    """The runs as a table of text, a line each, and the reasons of unreadable ones below it."""
    head = ("name", "date (UTC)", "kind", "method", "benchmark", "forget", "retain", "seconds")
    rows = [(*head, "state", "verdict"), *(_row(run) for run in runs)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines += [f"{run.name}: {run.reason}" for run in runs if run.reason]
    return "\n".join(lines)


def _row(run: PastRun) -> tuple[str, ...]:
    return (
        run.name,
        (run.created or "")[:16].replace("T", " "),
        run.kind or "-",
        run.method or "-",
        run.benchmark or "-",
        _percent(run.forget),
        _percent(run.retain),
        "-" if run.seconds is None else f"{run.seconds:.0f}",
        run.state,
        run.verdict or "-",
    )


def _percent(score: Score | None) -> str:
    if score is None:
        return "-"
    before = "" if score.before is None else f"{100 * score.before:.0f} -> "
    return f"{before}{100 * score.value:.0f} %"
