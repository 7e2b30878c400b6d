"""The manifest of a visual patch: base, changed tensors and their hashes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from unsee import __version__
from unsee.errors import ModelError, PatchError
from unsee.models.checkpoint import Entry, read_header

FORMAT = 2


READABLE = (1, FORMAT)


MANIFEST = "manifest.json"


TENSORS = "patch.safetensors"


CHUNK = 1 << 20


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
class Manifest:
    """The content of a patch's `manifest.json`.

    Attributes:
        base_sha256: Identity of the base: `base_hash` of `base`.
        base: Every tensor of the base, in name order.
        changed: The tensors in the patch, in name order.
        method: The unlearning method.
        parameters: The method's hyperparameters.
        command: The command that made it, without the values that could name a person.
        unsee: The version that made it.
        format: Version of this layout.
    """

    base_sha256: str
    base: tuple[BaseTensor, ...]
    changed: tuple[ChangedTensor, ...]
    method: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    command: str | None = None
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


def read_manifest(patch: str | Path) -> Manifest:
    """Reads and checks a patch: its manifest, and every tensor's bytes against it.

    Raises:
        PatchError: If it is missing, of a newer format, or damaged.
    """
    patch = Path(patch)
    path = patch / MANIFEST
    if not path.exists() or not (patch / TENSORS).exists():
        raise PatchError(
            f"'{patch}' is no visual patch: it needs {MANIFEST} and {TENSORS}. Give the folder "
            "that `unsee unlearn --save patch` wrote."
        )
    try:
        raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
        if raw["format"] not in READABLE:
            raise PatchError(
                f"patch {patch} has format {raw['format']}; this version reads up to {FORMAT}. "
                "Install the version of unsee that made it: " + str(raw.get("unsee"))
            )
        manifest = Manifest(
            **{
                **raw,
                "base": tuple(_tensor(BaseTensor, t) for t in raw["base"]),
                "changed": tuple(_tensor(ChangedTensor, t) for t in raw["changed"]),
            }
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PatchError(f"patch {patch}: {MANIFEST} is damaged ({error!r}). {AGAIN}") from error
    if base_hash(manifest.base) != manifest.base_sha256:
        raise PatchError(f"patch {patch}: {MANIFEST} was altered: its base hash is off. {AGAIN}")
    try:
        entries = read_header(patch / TENSORS)
    except ModelError as error:
        raise PatchError(f"patch {patch}: {error}") from error
    if set(entries) != {tensor.name for tensor in manifest.changed}:
        raise PatchError(f"patch {patch}: {TENSORS} and {MANIFEST} list other tensors. {AGAIN}")
    with (patch / TENSORS).open("rb") as file:
        for tensor in manifest.changed:
            if range_digest(file, entries[tensor.name]) != tensor.after:
                raise PatchError(f"patch {patch}: tensor {tensor.name} was altered. {AGAIN}")
    return manifest


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


def _tensor(kind: type[Any], raw: dict[str, Any]) -> Any:
    return kind(**{**raw, "shape": None if raw["shape"] is None else tuple(raw["shape"])})
