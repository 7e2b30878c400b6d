"""What can be different between two checkpoints, and how it is told."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that two checkpoints both have and that is not the same bit for bit.

    Attributes:
        name: The parameter's name, or that of the files where no parameter has it.
        part: "encoder", "projector", "language" or "other".
        shape: Its shape before.
        max_abs: Largest absolute difference; None if dtype or shape differ.
        relative_norm: Norm of the difference over the norm before; None likewise, or if that is 0.
        detail: What else is different, such as "F32 [4, 4] became F16 [4, 4]".
    """

    name: str
    part: str
    shape: tuple[int, ...]
    max_abs: float | None
    relative_norm: float | None
    detail: str | None = None


@dataclass(frozen=True)
class FileDifference:
    """A configuration, tokenizer or processor file that differs.

    Attributes:
        name: Its path in the folder.
        change: "changed", "missing" or "added".
        detail: The dotted keys that differ, for JSON.
    """

    name: str
    change: str
    detail: str | None = None


@dataclass(frozen=True)
class Verification:
    """What `verify` found between two checkpoints.

    Attributes:
        before: The first folder.
        after: The second folder.
        compared: Number of tensors that both have.
        differing: Tensors that are not the same bit for bit.
        missing: Tensors that only the first has.
        added: Tensors that only the second has.
        language_identical: Whether the language part hashes the same.
        language_sha256: Hashes of the language parts, before and after.
        files: Differing files beside the weights.
        text_identical: Whether logits are equal bit for bit on every text probe; None if none
            was run.
        text_probes: Probes that were run.
        text_differing: Probes whose logits differ.
    """

    before: str
    after: str
    compared: int
    differing: tuple[TensorDifference, ...]
    missing: tuple[str, ...]
    added: tuple[str, ...]
    language_identical: bool
    language_sha256: tuple[str, str]
    files: tuple[FileDifference, ...]
    text_identical: bool | None
    text_probes: int
    text_differing: int

    def describe(self, most: int = 12) -> str:
        """What was found, for people: a line a finding, at most `most` tensors by name."""
        parts = Counter(d.part for d in self.differing)
        where = ", ".join(f"{count} {part}" for part, count in sorted(parts.items())) or "none"
        text = "not checked"
        if self.text_identical is not None:
            differing = f"{self.text_differing} of {self.text_probes} probes differ"
            same = f"identical bit for bit on {self.text_probes} probes"
            text = same if self.text_identical else differing
        lines = [
            f"language part: {'identical' if self.language_identical else 'DIFFERENT'}",
            f"text-only logits: {text}",
            f"tensors: {len(self.differing)} of {self.compared} differ ({where})",
        ]
        for found in self.differing[:most]:
            how = found.detail or f"largest change {found.max_abs or 0.0:.3g}"
            if found.relative_norm is not None:
                how += f", relative norm {found.relative_norm:.3g}"
            lines.append(f"  {found.part}: {found.name}: {how}")
        if len(self.differing) > most:
            lines.append(f"  and {len(self.differing) - most} more; --json names them all")
        lines += [f"only before: {name}" for name in self.missing[:most]]
        lines += [f"only after: {name}" for name in self.added[:most]]
        for file in self.files:
            lines.append(
                f"{file.name}: {file.change}" + (f" ({file.detail})" if file.detail else "")
            )
        return "\n".join(lines)

    @property
    def identical(self) -> bool:
        """Whether nothing differs at all."""
        return not (self.differing or self.missing or self.added or self.files)

    @property
    def outside_visual(self) -> tuple[str, ...]:
        """Names of differing, missing or added tensors that are not visual."""
        named = [d.name for d in self.differing if d.part not in {"encoder", "projector"}]
        return (*named, *self.missing, *self.added)
