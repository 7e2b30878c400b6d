"""The manifest of a visual patch: base, changed tensors and their hashes."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from unsee import __version__
from unsee.errors import ModelError, PatchError, first_line
from unsee.files import is_regular, path_text
from unsee.models.checkpoint import Entry, read_header

FORMAT = 3


READABLE = (1, 2, FORMAT)


MANIFEST = "manifest.json"


TENSORS = "patch.safetensors"


CHUNK = 1 << 20


# Letters of a tensor's name; models' have about 100.
LONGEST_NAME = 1000

# A manifest takes about 300 bytes a tensor.
MOST_BYTES = 50_000_000


# Dtypes of weights that can be trained, by safetensors' names: their bytes as whole numbers, and
# the bits of the exponent, which are all set in a number that is not finite.
TRAINABLE = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


DIGEST = re.compile("[0-9a-f]{64}")


AGAIN = "Write it again, or get an undamaged copy."


@dataclass(frozen=True)
class BaseTensor:
    """A tensor of the base checkpoint's files.

    Attributes:
        name: As the files name it.
        dtype: As safetensors spells it, such as "BF16"; None for a tensor that is not visual, whose
            file was never opened.
        shape: Its shape; None where the model has no parameter of that name.
        sha256: SHA-256 of its bytes; None for a tensor that is not visual.
    """

    name: str
    dtype: str | None
    shape: tuple[int, ...] | None
    sha256: str | None

    def as_known(self, known: BaseTensor | None) -> BaseTensor:
        """Returns the tensor with only those fields that are known of `known`, its record."""
        if known is None:
            return self
        return BaseTensor(
            self.name,
            self.dtype if known.dtype else None,
            self.shape if known.shape is not None else None,
            self.sha256,
        )


@dataclass(frozen=True)
class ChangedTensor:
    """A tensor that the patch replaces; dtype and shape stay.

    Attributes:
        name: As the base checkpoint's files name it.
        dtype: As safetensors spells it.
        shape: Its shape.
        before: SHA-256 of its bytes in the base.
        after: SHA-256 of its bytes in the patch.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    before: str
    after: str


@dataclass(frozen=True)
class Step:
    """One patch in the lineage of a checkpoint or of a stacked patch.

    Attributes:
        id: Identity of the patch: `patch_id` of its manifest.
        base_sha256: Identity of the state that it was made from.
        result_sha256: Identity of the state that it makes.
        method: The unlearning method.
        made: When it was made (UTC, ISO 8601); None for patches of earlier versions.
        tensors: Number of tensors that it replaces.
        values: Number of weights in these.
        where: Number of tensors by the first part of their name, such as "vision_tower".
    """

    id: str
    base_sha256: str
    result_sha256: str
    method: str | None
    made: str | None
    tensors: int
    values: int
    where: Mapping[str, int]


@dataclass(frozen=True)
class Manifest:
    """The content of a patch's `manifest.json`.

    Attributes:
        base_sha256: Identity of the base: `base_hash` of `base`.
        base: Every tensor of the base, in name order.
        changed: The tensors in the patch, in name order.
        method: The unlearning method.
        parameters: The method's hyperparameters.
        command: The command that made it, without the values that could name a person.
        made: When it was made (UTC, ISO 8601).
        earlier: The patches whose result is this patch's base, in order; empty for a patch of a
            checkpoint without any.
        undoes: For an inverse, the identities of the patches that it takes back, in order.
        restores: For an inverse, SHA-256 of the files besides the weights that it puts back, by
            name.
        unsee: The version that made it.
        format: Version of this layout.
    """

    base_sha256: str
    base: tuple[BaseTensor, ...]
    changed: tuple[ChangedTensor, ...]
    method: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
    made: str | None = None
    earlier: tuple[Step, ...] = ()
    undoes: tuple[str, ...] = ()
    restores: Mapping[str, str] = field(default_factory=dict)
    unsee: str = __version__
    format: int = FORMAT


def base_hash(tensors: Iterable[BaseTensor]) -> str:
    """SHA-256 over (name, dtype, shape, bytes' SHA-256), each "-" if not known, in name order.

    The same for one file and for any number of shards.
    """
    lines = (
        f"{t.name}|{t.dtype or '-'}|{'-' if t.shape is None else list(t.shape)}|{t.sha256 or '-'}\n"
        for t in sorted(tensors, key=lambda tensor: tensor.name)
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def patch_id(manifest: Manifest) -> str:
    """Identity of a patch: SHA-256 over its base's identity and what it replaces by what.

    It does not depend on when, where or by which command the patch was made.
    """
    lines = "".join(
        f"{t.name}|{t.dtype}|{list(t.shape)}|{t.before}|{t.after}\n"
        for t in sorted(manifest.changed, key=lambda tensor: tensor.name)
    )
    return hashlib.sha256(f"{manifest.base_sha256}\n{lines}".encode()).hexdigest()


def step_of(manifest: Manifest) -> Step:
    """A patch as a step of a lineage."""
    after = {tensor.name: tensor.after for tensor in manifest.changed}
    result = (replace(t, sha256=after.get(t.name, t.sha256)) for t in manifest.base)
    where = Counter(t.name.removeprefix("model.").split(".")[0] for t in manifest.changed)
    return Step(
        patch_id(manifest),
        manifest.base_sha256,
        base_hash(result),
        manifest.method,
        manifest.made,
        len(manifest.changed),
        sum(prod(tensor.shape) for tensor in manifest.changed),
        dict(sorted(where.items())),
    )


def read_manifest(patch: str | Path) -> Manifest:
    """Reads and checks a patch: its manifest, and every tensor's bytes against it.

    Raises:
        PatchError: If it is missing, of a newer format, damaged, or holds what no training makes:
            no tensor, one of another shape or dtype than it says, or numbers that are not finite.
    """
    advice = "give the folder that `unsee unlearn --save patch` wrote."
    patch = Path(path_text("patch ", patch, advice, PatchError))
    path = patch / MANIFEST
    if not path.exists() or not (patch / TENSORS).exists():
        raise PatchError(
            f"'{patch}' is no visual patch: it needs {MANIFEST} and {TENSORS}. Give the folder "
            "that `unsee unlearn --save patch` wrote."
        )
    for part in (path, patch / TENSORS):
        if not is_regular(part):
            raise PatchError(f"patch {patch}: {part.name} is not an ordinary file. {AGAIN}")
    if path.stat().st_size > MOST_BYTES:
        raise PatchError(
            f"patch {patch}: {MANIFEST} has {path.stat().st_size:,} bytes; at most "
            f"{MOST_BYTES:,} are read. {AGAIN}"
        )
    try:
        raw = json.loads(path.read_text("utf-8"))
        # Half of a surrogate pair is JSON, but no text that can be hashed, printed or written.
        json.dumps(raw, ensure_ascii=False).encode()
        manifest = _parse(raw, patch)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        reason = first_line(error) if isinstance(error, ValueError) else repr(error)
        raise PatchError(f"patch {patch}: {MANIFEST} is damaged ({reason}). {AGAIN}") from error
    if base_hash(manifest.base) != manifest.base_sha256:
        raise PatchError(f"patch {patch}: {MANIFEST} was altered: its base hash is off. {AGAIN}")
    try:
        entries = read_header(patch / TENSORS)
    except ModelError as error:
        raise PatchError(f"patch {patch}: {error}") from error
    if set(entries) != {tensor.name for tensor in manifest.changed}:
        raise PatchError(f"patch {patch}: {TENSORS} and {MANIFEST} list other tensors. {AGAIN}")
    for tensor in manifest.changed:
        entry = entries[tensor.name]
        if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
            raise PatchError(
                f"patch {patch}: tensor {tensor.name} is {entry.dtype} {list(entry.shape)} in "
                f"{TENSORS} and {tensor.dtype} {list(tensor.shape)} in {MANIFEST}. {AGAIN}"
            )
    with (patch / TENSORS).open("rb") as file:
        for tensor in manifest.changed:
            _check_bytes(file, entries[tensor.name], tensor, patch)
    return manifest


def write_manifest(manifest: Manifest, folder: Path) -> None:
    """Writes `manifest.json` into a patch's folder."""
    (folder / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", "utf-8")


def patch_bytes(patch: str | Path) -> int:
    """Size of a patch's two files in bytes."""
    return sum((Path(patch) / name).stat().st_size for name in (MANIFEST, TENSORS))


def chunks(file: BinaryIO, entry: Entry) -> Iterator[bytes]:
    """Yields the bytes of a tensor in pieces of at most `CHUNK` bytes."""
    file.seek(entry.start)
    left = entry.stop - entry.start
    while left > 0:
        chunk = file.read(min(CHUNK, left))
        if not chunk:
            raise PatchError(f"file {file.name} ended early. {AGAIN}")
        left -= len(chunk)
        yield chunk


def range_digest(file: BinaryIO, entry: Entry) -> str:
    """SHA-256 of a tensor's bytes in a file."""
    digest = hashlib.sha256()
    for chunk in chunks(file, entry):
        digest.update(chunk)
    return digest.hexdigest()


def _parse(raw: Any, patch: Path) -> Manifest:
    """The manifest that a JSON value describes.

    Raises:
        PatchError: If its format is newer.
        ValueError: If a field is missing or of another type than it should be.
    """
    if not isinstance(raw, dict):
        raise ValueError(f"it holds a {type(raw).__name__} instead of an object")
    number = raw["format"]
    if isinstance(number, bool) or number not in READABLE:
        raise PatchError(
            f"patch {patch} has format {str(number)[:20]}; this version reads up to {FORMAT}. "
            "Install the version of unsee that made it: " + str(raw.get("unsee"))[:20]
        )
    types: dict[str, Any] = {
        "base_sha256": str,
        "base": list,
        "changed": list,
        "method": (str, type(None)),
        "parameters": dict,
        "command": (str, type(None)),
        "made": (str, type(None)),
        "earlier": list,
        "undoes": list,
        "restores": dict,
        "unsee": str,
        "format": int,
    }
    for name, value in raw.items():
        if name in types and not isinstance(value, types[name]):
            raise ValueError(f"field '{name}' is a {type(value).__name__}")
    base = tuple(_tensor(BaseTensor, tensor) for tensor in raw["base"])
    changed = tuple(_tensor(ChangedTensor, tensor) for tensor in raw["changed"])
    for tensors in (base, changed):
        if len({tensor.name for tensor in tensors}) < len(tensors):
            raise ValueError("a tensor is listed twice")
    if not changed:
        raise ValueError("it changes no tensor")
    lists = {"base": base, "changed": changed, "earlier": parse_steps(raw.get("earlier", []))}
    undoes, restores = raw.get("undoes", []), raw.get("restores", {})
    for digest in (*undoes, *restores.values()):
        if not isinstance(digest, str) or not DIGEST.fullmatch(digest):
            raise ValueError(f"{str(digest)[:70]} is no SHA-256")
    return Manifest(**{**raw, **lists, "undoes": tuple(undoes)})


def parse_steps(raw: Any) -> tuple[Step, ...]:
    """The steps of a lineage from a JSON value.

    Raises:
        ValueError: If it is none.
        TypeError: If a step has other fields.
    """
    if not isinstance(raw, list) or not all(isinstance(step, dict) for step in raw):
        raise ValueError("a lineage is a list of objects")
    steps = tuple(Step(**step) for step in raw)
    for step in steps:
        digests = (step.id, step.base_sha256, step.result_sha256)
        if not all(isinstance(d, str) and DIGEST.fullmatch(d) for d in digests):
            raise ValueError(f"step {str(step.id)[:70]} of the lineage has what is no SHA-256")
        texts = all(isinstance(text, str | None) for text in (step.method, step.made))
        counts = (step.tensors, step.values, *dict(step.where).values())
        if not texts or not all(type(n) is int and n >= 0 for n in counts):
            raise ValueError(f"step {step.id[:12]} of the lineage has values of other types")
    return steps


def _check_bytes(file: BinaryIO, entry: Entry, tensor: ChangedTensor, patch: Path) -> None:
    """Compares a tensor's bytes with its hash, and looks for numbers that are not finite."""
    if entry.dtype not in TRAINABLE:
        raise PatchError(
            f"patch {patch}: tensor {tensor.name} is {entry.dtype}, and trained weights are "
            f"{', '.join(TRAINABLE)}. {AGAIN}"
        )
    kind, exponent = TRAINABLE[entry.dtype]
    digest, finite = hashlib.sha256(), True
    for chunk in chunks(file, entry):
        digest.update(chunk)
        bits = np.frombuffer(chunk, kind)
        finite = finite and not bool(np.any((bits & bits.dtype.type(exponent)) == exponent))
    if digest.hexdigest() != tensor.after:
        raise PatchError(f"patch {patch}: tensor {tensor.name} was altered. {AGAIN}")
    if not finite:
        raise PatchError(
            f"patch {patch}: tensor {tensor.name} has values that are not finite, and a model "
            "with it answers nothing. Unlearn again with a lower learning rate (--set lr=...)."
        )


def _tensor(kind: type[Any], raw: Any) -> Any:
    """A tensor's record, with every field checked.

    Raises:
        ValueError: If a field is of another type than it should be.
    """
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise ValueError("a tensor has no name")
    if len(raw["name"]) > LONGEST_NAME:
        raise ValueError(
            f"tensor {raw['name'][:100]}... has a name of {len(raw['name']):,} letters"
        )
    known = kind is BaseTensor
    shape = raw["shape"]
    sizes = isinstance(shape, list) and all(type(n) is int and 0 <= n < 1 << 48 for n in shape)
    if not sizes and not (known and shape is None):
        raise ValueError(f"tensor {raw['name'][:100]} has shape {str(shape)[:100]}")
    if not isinstance(raw["dtype"], str) and not (known and raw["dtype"] is None):
        raise ValueError(f"tensor {raw['name'][:100]} has dtype {str(raw['dtype'])[:20]}")
    for field_name in ("sha256",) if known else ("before", "after"):
        digest = raw[field_name]
        if not (known and digest is None) and not (
            isinstance(digest, str) and DIGEST.fullmatch(digest)
        ):
            raise ValueError(f"tensor {raw['name'][:100]}: {field_name} is no SHA-256")
    return kind(**{**raw, "shape": None if shape is None else tuple(shape)})
