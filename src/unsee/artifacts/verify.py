"""Compares two checkpoints: tensors, files, and outputs on text-only inputs."""

from __future__ import annotations

import gc
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from unsee.artifacts.guarantees import PROBES, text_probes
from unsee.errors import ModelError
from unsee.families import Family, family_of
from unsee.files import combine_digests, hash_file
from unsee.models.checkpoint import known_names, resolve, tensor_digest, weight_map
from unsee.models.stored import skeleton
from unsee.models.validation import check_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.models.vlm import VLM


# Keys that transformers writes about the saving itself; they do not describe the model.
BOOKKEEPING = {
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "is_local",
    "local_files_only",
}


@dataclass(frozen=True)
class TensorDifference:
    """A tensor that both checkpoints have and that is not equal bit for bit.

    Attributes:
        name: The parameter's name, or the name in the files if no parameter has it.
        part: "encoder", "projector", "language" or "other".
        shape: Its shape before.
        max_abs: Largest absolute difference; None if dtype or shape differ.
        relative_norm: Norm of the difference over the norm before; None likewise, or if
            that is 0.
        detail: A difference of dtype or shape, such as "F32 [4, 4] became F16 [4, 4]".
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
    """The differences between two checkpoints, from `verify`.

    Attributes:
        before: The first folder.
        after: The second folder.
        compared: Number of tensors that both have.
        differing: Tensors that are not the same bit for bit.
        missing: Tensors that only the first has.
        added: Tensors that only the second has.
        language_identical: Whether the language part hashes the same.
        language_sha256: Hashes of the language parts, before and after.
        files: Differing files besides the weights.
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
        """Returns the differences as text, one per line, with at most `most` tensors by name."""
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
        for tensor in self.differing[:most]:
            change = tensor.detail or f"largest change {tensor.max_abs or 0.0:.3g}"
            if tensor.relative_norm is not None:
                change += f", relative norm {tensor.relative_norm:.3g}"
            lines.append(f"  {tensor.part}: {tensor.name}: {change}")
        if len(self.differing) > most:
            lines.append(f"  and {len(self.differing) - most} more; --json names them all")
        lines += [f"only before: {name}" for name in self.missing[:most]]
        lines += [f"only after: {name}" for name in self.added[:most]]
        for file in self.files:
            lines.append(
                f"{file.name}: {file.change}" + (f" ({file.detail})" if file.detail else "")
            )
        return "\n".join(lines)

    def unmet(self, required: Sequence[str]) -> dict[str, str]:
        """Requirements that do not hold, with what differs instead.

        Args:
            required: "text" (the language part and the outputs on text are identical; probes must
                have been run), "language" (the language part is), "visual" (no tensor outside the
                visual part differs), "files" (no file besides the weights does), or "all".
        """
        reasons: dict[str, str] = {}
        if self.text_identical is None:
            reasons["text"] = "outputs on text were not compared"
        elif not self.text_identical:
            differ = f"{self.text_differing} of {self.text_probes}"
            reasons["text"] = f"outputs on {differ} texts differ"
        if not self.language_identical:
            reasons["language"] = "the language part differs"
            reasons.setdefault("text", reasons["language"])
        outside = [d.name for d in self.differing if d.part not in ("encoder", "projector")]
        if outside := [*outside, *self.missing, *self.added]:
            count = len(outside)
            reasons["visual"] = (
                f"{count} tensors outside the visual part differ, such as {outside[0]}"
            )
        if self.files:
            reasons["files"] = f"{len(self.files)} files differ, such as {self.files[0].name}"
        if "all" in required:
            return reasons
        return {name: reasons[name] for name in required if name in reasons}

    @property
    def identical(self) -> bool:
        """Whether the checkpoints have no difference at all."""
        return not (self.differing or self.missing or self.added or self.files)


def verify(
    before: str | Path,
    after: str | Path,
    probes: int = PROBES,
    *,
    trust_remote_code: bool = False,
) -> Verification:
    """Compares two checkpoints, and their logits on text-only inputs.

    Tensors are read from the files and compared one at a time; for the text probes, one model is
    loaded after the other.

    Args:
        before: A checkpoint folder or hub id.
        after: Another checkpoint of the same family.
        probes: Number of text probes; 0 loads no model.
        trust_remote_code: Allow the checkpoints' own Python code to run.

    Raises:
        ModelError: If a checkpoint cannot be read, or the two are of different families.
    """
    from unsee.models.vlm import VLM

    folders = [resolve(before), resolve(after)]
    # Without probes no model is loaded: tensors that are missing are then listed as differences.
    configs = [
        check_checkpoint(f, tensors=bool(probes), trust_remote_code=trust_remote_code)
        for f in folders
    ]
    families = [family_of(config["model_type"], config) for config in configs]
    if families[0].name != families[1].name:
        raise ModelError(
            f"{before} is of the family {families[0].name} and {after} of {families[1].name}; only "
            "checkpoints of one family can be compared."
        )
    stores = [_Store(folder, families[0], trust_remote_code) for folder in folders]
    old, new = stores
    shared = [name for name in old.keys if name in new.keys]
    digests: tuple[dict[str, str], dict[str, str]] = ({}, {})
    differing: list[TensorDifference] = []
    for name in shared:
        pair = old.tensor(name), new.tensor(name)
        for digest_of, tensor in zip(digests, pair, strict=True):
            digest_of[name] = tensor_digest(tensor)
        if digests[0][name] != digests[1][name]:
            differing.append(_difference(name, old.part(name), *pair))
    for found, store, other in ((digests[0], old, new), (digests[1], new, old)):
        found.update((n, tensor_digest(store.tensor(n))) for n in store.keys if n not in other.keys)
    language = tuple(
        combine_digests({n: d for n, d in found.items() if store.part(n) == "language"})
        for found, store in zip(digests, stores, strict=True)
    )
    texts: list[tuple[str, ...]] = []
    for folder in folders if probes else []:
        vlm = VLM.load(folder, trust_remote_code=trust_remote_code)
        _align(vlm)
        texts.append(text_probes(vlm, probes))
        del vlm
        gc.collect()
    unlike = sum(a != b for a, b in zip(*texts, strict=True)) if texts else 0
    return Verification(
        before=str(before),
        after=str(after),
        compared=len(shared),
        differing=tuple(differing),
        missing=tuple(n for n in old.keys if n not in new.keys),
        added=tuple(n for n in new.keys if n not in old.keys),
        language_identical=language[0] == language[1],
        language_sha256=(language[0], language[1]),
        files=tuple(_differing_files(*folders)),
        text_identical=unlike == 0 if texts and texts[0] else None,
        text_probes=len(texts[0]) if texts else 0,
        text_differing=unlike,
    )


class _Store:
    """A checkpoint's tensors by parameter name, read one at a time."""

    def __init__(self, folder: Path, family: Family, trust_remote_code: bool) -> None:
        self.files = weight_map(folder)
        self.family = family
        model = skeleton(folder, family, trust_remote_code)
        names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
        found: dict[str, str] = {}
        for name, key in known_names(family, self.files, names).items():
            if key not in found.values():
                found[name] = key
        known = set(found.values())
        found.update((key, key) for key in self.files if key not in known)
        self.keys = dict(sorted(found.items()))

    def tensor(self, name: str) -> Tensor:
        """The tensor of a parameter."""
        key = self.keys[name]
        with safe_open(self.files[key], "pt") as file:
            tensor: Tensor = file.get_tensor(key)
        return tensor

    def part(self, name: str) -> str:
        """The part that a parameter, or a tensor of the files that is none, belongs to."""
        stored = self.family.stored_names()
        if stored is not None and name in self.files:
            name = stored.parameter(name)[0]
        for part in ("encoder", "projector", "language"):
            if name.startswith(self.family.parts.prefixes(part)):
                return part
        return "other"


def _difference(name: str, part: str, old: Tensor, new: Tensor) -> TensorDifference:
    shape = tuple(old.shape)
    if old.shape != new.shape or old.dtype != new.dtype:
        was, now = (f"{str(t.dtype)[6:]} {list(t.shape)}" for t in (old, new))
        return TensorDifference(name, part, shape, None, None, f"{was} became {now}")
    change = new.float() - old.float()
    norm = float(old.float().norm())
    relative = float(change.norm()) / norm if norm else None
    largest = float(change.abs().max())
    return TensorDifference(name, part, shape, largest, relative)


def _differing_files(before: Path, after: Path) -> Iterator[FileDifference]:
    old, new = _other_files(before), _other_files(after)
    for name in sorted(old | new):
        if name not in new:
            yield FileDifference(name, "missing")
        elif name not in old:
            yield FileDifference(name, "added")
        elif hash_file(old[name]) != hash_file(new[name]):
            one, two = _json(old[name]), _json(new[name])
            if isinstance(one, dict) and isinstance(two, dict):
                keys = sorted(_differing_keys(_own_dtypes(one), _own_dtypes(two)))
                if keys:
                    yield FileDifference(name, "changed", ", ".join(keys))
            else:
                yield FileDifference(name, "changed")


def _own_dtypes(content: dict[str, Any], inherited: object = None) -> dict[str, Any]:
    """The configuration without the dtypes of its parts that repeat its own, or say nothing."""
    dtype = content.get("dtype", inherited)
    own = {
        key: _own_dtypes(value, dtype) if isinstance(value, dict) else value
        for key, value in content.items()
    }
    if inherited is not None and own.get("dtype") in (None, inherited):
        own.pop("dtype", None)
    return own


def _differing_keys(one: dict[str, Any], two: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys whose values differ."""
    for key in (one.keys() | two.keys()) - BOOKKEEPING:
        old, new = one.get(key, ...), two.get(key, ...)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differing_keys(old, new, f"{prefix}{key}.")
        elif old != new:
            yield prefix + key


def _other_files(folder: Path) -> dict[str, Path]:
    """Files besides the weights and their index, which depend on the number of shards."""
    skip = (".safetensors", ".safetensors.index.json")
    return {
        str(path.relative_to(folder)): path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not path.name.endswith(skip)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }


def _json(path: Path) -> Any:
    if path.suffix != ".json":
        return None
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError:
        # Damaged JSON is compared as a file.
        return None


def _align(vlm: VLM) -> None:
    """Copies weights whose memory is not aligned.

    Weights that are mapped from a file keep its alignment, which differs between shards, and a
    matrix product may sum in another order on unaligned memory.
    """
    for parameter in vlm.parameters("all").values():
        if parameter.data_ptr() % 64:
            parameter.data = parameter.data.clone()
