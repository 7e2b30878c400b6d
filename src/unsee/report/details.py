"""Rows of the report about guarantees, cost, hyperparameters, provenance and benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unsee.records.reader import Run
from unsee.records.schema import BenchmarkRecord, Choice, Guarantees, Provenance, Selection
from unsee.report import wording
from unsee.report.findings import Level, percent


@dataclass(frozen=True)
class Row:
    """A labelled value of the report.

    Attributes:
        label: What the value is.
        value: The value, worded.
        note: Small print beside it.
        level: Shows the value as a coloured badge.
        code: Shows the value in a monospaced font.
    """

    label: str
    value: str
    note: str = ""
    level: Level | None = None
    code: bool = False


def guarantees(run: Run) -> list[Row]:
    """Checks of the unlearned model; empty if there were none."""
    checked = run.summary.guarantees
    if checked is None:
        return []
    probes, sha256 = checked.text_probes, checked.language_part_sha256
    rows = [
        _yes_no(
            checked.text_identical,
            "Text-only outputs are identical",
            f"Outputs equal bit for bit on {probes} text-only probes." if probes else "",
        ),
        *_next_tokens(checked),
        _yes_no(
            checked.language_part_sha256_unchanged,
            "Language part is unchanged",
            f"SHA-256 {sha256}" if sha256 else "",
        ),
    ]
    outside = checked.changed_outside_visual
    if outside is not None:
        note = "none" if outside == 0 else f"{outside} tensors"
        level: Level = "good" if outside == 0 else "warn"
        rows.append(Row("Changed outside the visual part", note, level=level))
    if checked.changed_tensors is not None:
        total = checked.total_tensors
        of = f" of {total:,}" if total is not None else ""
        rows.append(Row("Tensors changed", f"{checked.changed_tensors}{of}"))
    if checked.reason:
        rows.append(Row("Why not checked", checked.reason))
    if checked.patch_bytes is not None:
        size = wording.size(checked.patch_bytes)
        rows.append(
            Row("Visual patch", size, "Holds all changed tensors; apply it with `unsee apply`.")
        )
    return rows


def _next_tokens(checked: Guarantees) -> list[Row]:
    """How far text-only outputs have moved, where they are not identical."""
    share = checked.text_next_token_same
    if checked.text_identical is not False or share is None:
        return []
    note = f"On the positions of {checked.text_probes} text-only probes."
    return [Row("The same next token", percent(share), note)]


def _yes_no(value: object, label: str, note: str) -> Row:
    if value is True:
        return Row(label, "yes", note, "good")
    if value is False:
        return Row(label, "no", "", "warn")
    return Row(label, "not checked", "", "unknown")


def cost(run: Run) -> list[Row]:
    """The cost of unlearning; fields without a wording of their own are shown by their key."""
    record = run.summary.cost
    if record is None:
        return []
    total, trained = record.total_parameters, record.trainable_parameters
    of_total = f"{percent(trained / total)} of {total:,}" if trained is not None and total else ""
    speed = record.samples_per_second or 0.0
    worded = {
        "seconds": Row("Wall-clock time", wording.duration(record.seconds or 0.0)),
        "steps": Row("Training steps", wording.plain(record.steps)),
        "trainable_parameters": Row("Trained parameters", f"{trained or 0:,}", of_total),
        "peak_memory_bytes": Row("Peak memory", wording.size(record.peak_memory_bytes or 0)),
        "samples_per_second": Row("Throughput", f"{speed:,.{0 if speed >= 10 else 1}f} samples/s"),
    }
    return [
        worded.get(key, Row(wording.words(key), wording.plain(value)))
        for key, value in record.to_dict().items()
        if value is not None and key != "total_parameters"
    ]


def parameters(run: Run) -> tuple[list[Row], list[Row]]:
    """The method's hyperparameters: those that matter most, and the others.

    The first are what differs from the defaults, and the weights or neurons that were selected;
    the others have their default values. Records of earlier versions do not say which are defaults:
    there all are of the first kind.
    """
    method = run.summary.method
    used = method.parameters if method else {}
    changed = set(used) if method is None or method.changed is None else set(method.changed)
    rows = {k: Row(k, "none" if v is None else wording.plain(v)) for k, v in used.items()}
    choices = run.summary.choices or {}
    chosen = [row for name, choice in choices.items() for row in _selected(name, choice)]
    first = [row for key, row in rows.items() if key in changed]
    return first + chosen, [row for key, row in rows.items() if key not in changed]


def _selected(name: str, choice: Choice) -> list[Row]:
    """Lines of a selection of weights or neurons: how many of how many, and where."""
    label = wording.words(name)
    if isinstance(choice, Selection):
        parts = ", ".join(f"{part} {count:,}" for part, count in choice.by_part.items())
        return [Row(f"{label} chosen", f"{choice.chosen:,} of {choice.of:,}", parts)]
    if isinstance(choice, dict):
        return [row for key, inner in choice.items() for row in _selected(f"{name}_{key}", inner)]
    return [Row(label, wording.plain(choice))]


def provenance(run: Run) -> list[Row]:
    """Versions, device, seeds and hashes."""
    record = run.summary.provenance or Provenance()
    rows = [Row("Created", run.summary.created)] if run.summary.created else []
    for key, value in record.to_dict().items():
        code = key.endswith("sha256") or key == "commit"
        label = (
            f"{wording.words(key.removesuffix('_sha256'))} SHA-256" if code else wording.words(key)
        )
        label = {"commit": "Commit", "dirty": "Uncommitted changes", "cpu": "CPU"}.get(key, label)
        label = key if key in ("unsee", "torch", "transformers", "python") else label
        # A seed is no quantity: "5230" must not become "5,230".
        said = str(value) if key == "seed" else wording.plain(value)
        said = "none" if key == "quantization" and value is None else said
        if key == "inputs" and isinstance(value, Mapping):
            rows.append(Row(label, f"{len(value)} SHA-256 hashes", "By name, in environment.json."))
        else:
            rows.append(Row(label, said, code=code))
    return rows + _tasks(run)


def _tasks(run: Run) -> list[Row]:
    """Tasks of lm-evaluation-harness."""
    harness = run.summary.harness
    if harness is None:
        return []
    chat = "with" if harness.chat_template else "without"
    rows = [Row("lm-eval", str(harness.lm_eval), f"Prompts {chat} the chat template.")]
    for name, task in harness.tasks.items():
        words = (
            f"version {task.version}, {task.shots or 0} shots, {task.samples} of {task.of} samples"
        )
        rows.append(Row(name, words, f"Prompts SHA-256 {task.prompts_sha256}"))
    return rows


def benchmark(run: Run) -> str:
    """The benchmark in a line, such as "pocket: people 40, forgotten 4"."""
    record = run.summary.benchmark or BenchmarkRecord()
    parts = ", ".join(
        f"{key.replace('_', ' ')} {_counts(value)}"
        for key, value in record.to_dict().items()
        if value is not None and key != "name"
    )
    return ": ".join(part for part in (record.name, parts) if part)


def _counts(value: object) -> str:
    """A value on a line; counts by name in brackets, such as "(forget 6, retain 30)"."""
    if not isinstance(value, Mapping):
        return wording.plain(value)
    return f"({', '.join(f'{name} {wording.plain(number)}' for name, number in value.items())})"
