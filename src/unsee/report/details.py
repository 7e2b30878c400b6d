"""Lists of facts: guarantees, cost, hyperparameters, provenance and benchmark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from unsee.records.reader import Run
from unsee.report import wording
from unsee.report.findings import Level, percent


@dataclass(frozen=True)
class Row:
    """A line of a list of facts."""

    label: str
    value: str
    note: str = ""
    level: Level | None = None
    code: bool = False


def guarantees(run: Run) -> list[Row]:
    """The exact statements about what the run changed; empty if none was recorded."""
    held = run.summary.guarantees
    if not held:
        return []
    probes = held.get("text_probes")
    rows = [
        _yes_no(
            held.get("text_identical"),
            "Text-only answers are identical",
            f"Logits equal bit for bit on {probes} probes without a picture." if probes else "",
        ),
        _yes_no(
            held.get("language_part_sha256_unchanged"),
            "Language part is untouched",
            f"SHA-256 {held['language_part_sha256']}" if held.get("language_part_sha256") else "",
        ),
    ]
    outside = held.get("changed_outside_visual")
    if outside is not None:
        note = "none" if outside == 0 else f"{outside} tensors"
        level: Level = "good" if outside == 0 else "warn"
        rows.append(Row("Changed outside the visual part", note, level=level))
    if held.get("changed_tensors") is not None:
        total = held.get("total_tensors")
        of = f" of {total:,}" if isinstance(total, int) else ""
        rows.append(Row("Tensors changed", f"{held['changed_tensors']}{of}"))
    if held.get("reason"):
        rows.append(Row("Why not checked", str(held["reason"])))
    if held.get("patch_bytes") is not None:
        rows.append(
            Row(
                "Visual patch",
                wording.size(held["patch_bytes"]),
                "The whole change, to be shipped.",
            )
        )
    return rows


def _yes_no(value: object, label: str, note: str) -> Row:
    if value is True:
        return Row(label, "yes", note, "good")
    if value is False:
        return Row(label, "no", "", "warn")
    return Row(label, "not checked", "", "unknown")


def cost(run: Run) -> list[Row]:
    """What the run cost."""
    held = dict(run.summary.cost or {})
    rows = []
    if (seconds := held.pop("seconds", None)) is not None:
        rows.append(Row("Time", wording.duration(float(seconds))))
    if (steps := held.pop("steps", None)) is not None:
        rows.append(Row("Steps", wording.plain(steps)))
    total = held.pop("total_parameters", None)
    if (trained := held.pop("trainable_parameters", None)) is not None:
        of = f"{percent(trained / total)} of {total:,}" if total else ""
        rows.append(Row("Trained parameters", f"{trained:,}", of))
    if (peak := held.pop("peak_memory_bytes", None)) is not None:
        rows.append(Row("Peak memory", wording.size(peak)))
    if (speed := held.pop("samples_per_second", None)) is not None:
        rows.append(
            Row("Speed", f"{speed:,.0f} samples/s" if speed >= 10 else f"{speed:.1f} samples/s")
        )
    return rows + [
        Row(wording.words(k), wording.plain(v)) for k, v in held.items() if v is not None
    ]


def parameters(run: Run) -> list[Row]:
    """The method's hyperparameters, and what it chose by them."""
    method = run.summary.method
    used = method.parameters if method else {}
    given = [Row(k, "none" if v is None else wording.plain(v)) for k, v in used.items()]
    return given + [row for k, v in (run.summary.choices or {}).items() for row in _chosen(k, v)]


def _chosen(name: str, held: object) -> list[Row]:
    """Lines of a choice of weights or neurons: how many of how many, and where."""
    label = wording.words(name)
    if not isinstance(held, dict):
        return [Row(label, wording.plain(held))]
    if "chosen" not in held:
        return [row for k, v in held.items() for row in _chosen(f"{name}_{k}", v)]
    parts = ", ".join(f"{part} {count:,}" for part, count in held.get("by_part", {}).items())
    return [Row(f"{label} chosen", f"{held['chosen']:,} of {held['of']:,}", parts)]


def provenance(run: Run) -> list[Row]:
    """Versions, device, seeds and hashes."""
    held = run.summary.provenance or {}
    rows = [Row("Created", run.summary.created)] if run.summary.created else []
    for key, value in held.items():
        code = key.endswith("sha256") or key == "commit"
        label = (
            f"{wording.words(key.removesuffix('_sha256'))} SHA-256" if code else wording.words(key)
        )
        label = {"commit": "Commit", "dirty": "Uncommitted changes", "cpu": "CPU"}.get(key, label)
        label = key if key in ("unsee", "torch", "transformers", "python") else label
        # A version is no number: "5230" must not become "5,230".
        rows.append(Row(label, str(value) if key == "seed" else wording.plain(value), code=code))
    return rows + _tasks(run)


def _tasks(run: Run) -> list[Row]:
    """What lm-evaluation-harness was asked."""
    held = run.summary.harness
    if not held:
        return []
    chat = "with" if held.get("chat_template") else "without"
    rows = [Row("lm-eval", str(held.get("lm_eval")), f"Prompts {chat} the chat template.")]
    for name, task in (held.get("tasks") or {}).items():
        words = (
            f"version {task.get('version')}, {task.get('shots') or 0} shots, "
            f"{task.get('samples')} of {task.get('of')} samples"
        )
        rows.append(Row(name, words, f"Prompts SHA-256 {task.get('prompts_sha256')}"))
    return rows


def benchmark(run: Run) -> str:
    """The benchmark in a line, such as "pocket: people 40, forgotten 4"."""
    held = dict(run.summary.benchmark or {})
    name = held.pop("name", None)
    parts = ", ".join(
        f"{k.replace('_', ' ')} {_counts(v)}" for k, v in held.items() if v is not None
    )
    return ": ".join(str(part) for part in (name, parts) if part)


def _counts(value: object) -> str:
    """A value on a line; counts by name in brackets, such as "(forget 6, retain 30)"."""
    if not isinstance(value, Mapping):
        return wording.plain(value)
    return f"({', '.join(f'{name} {wording.plain(number)}' for name, number in value.items())})"
