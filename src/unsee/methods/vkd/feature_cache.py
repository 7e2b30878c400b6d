"""What a frozen model says of pictures, computed once: kept in memory and on disk, within bounds.

A picture is known by its pixels as the model gets them. A random view is a function of the seed and
the step, so a run that is repeated or resumed, or one that differs in the student alone, finds its
views again on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unsee.errors import RunError
from unsee.features.capture import layer_outputs
from unsee.files import atomic_file, require_free_space
from unsee.models.checkpoint import hash_tensors, tensor_digest
from unsee.models.vlm import VLM

GIGABYTE = 10**9


SUFFIX = ".safetensors"

# The end of the error message when the folder cannot be written.
ADVICE = "Free some space and type the same command again, or leave cache out."


@dataclass
class FeatureCache:
    """The outputs of a frozen model's visual layers, by picture.

    They are those of an equal batch. A batch that comes again is found bit for bit; a picture
    that comes again among others, up to rounding: a kernel may round the last bit of some values
    otherwise at another place in a batch. Where a family does not align pictures, nothing is kept.

    Attributes:
        vlm: The model; it must not change.
        folder: Where to keep them for other runs, one memory-mapped file a picture; None keeps
            none. A file whose hash is not that of its content counts as none.
        memory: Most to hold in memory (GB), a GPU's if the model is there.
        disk: Most to keep in the folder (GB).
        held: Bytes in memory now.
    """

    vlm: VLM
    folder: str | Path | None = None
    memory: float = 0.5
    disk: float = 0.0
    held: int = 0
    _known: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    _checked: set[str] = field(default_factory=set, repr=False)

    def __post_init__(self) -> None:
        """Names the weights, and what else may decide the last bits."""
        self._place = Path(self.folder) if self.folder is not None else None
        self._written = used(self._place) if self._place is not None else 0
        parts = [torch.__version__, str(self.vlm.device), str(torch.get_num_threads())]
        if self._place is not None:
            parts.append(self.vlm.hash("visual"))
        self._model = "|".join(parts)

    @torch.no_grad()
    def observe(self, inputs: dict[str, Tensor], names: Sequence[str]) -> dict[str, Tensor]:
        """The raw outputs of the named layers, in this order; see `unsee.features.observe`.

        Raises:
            RunError: If the folder cannot be written.
        """
        pixels = inputs["pixel_values"]
        if not self.vlm.family.aligned:
            return layer_outputs(self.vlm, inputs, names)
        keys = [self._key(picture, len(pixels), names) for picture in pixels]
        found = [self._get(key, names) for key in keys]
        rows = [row for row in found if row is not None]
        if len(rows) == len(keys):
            device = pixels.device
            return {n: torch.stack([row[n].to(device) for row in rows]) for n in names}
        # All of them, so that the batch is as large as it would be without anything known.
        made = layer_outputs(self.vlm, inputs, names)
        for index, (key, known) in enumerate(zip(keys, found, strict=True)):
            if known is None:
                self._put(key, {n: made[n][index] for n in names})
        return {n: made[n] for n in names}

    def _key(self, picture: Tensor, size: int, names: Sequence[str]) -> str:
        kind = picture.device.type
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        text = f"{self._model}|{half}|{size}|{','.join(names)}|{tensor_digest(picture)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _get(self, key: str, names: Sequence[str]) -> Mapping[str, Tensor] | None:
        if key in self._known or self._place is None:
            return self._known.get(key)
        path = self._place / f"{key}{SUFFIX}"
        try:
            with safe_open(path, "pt") as file:
                found = {name: file.get_tensor(name) for name in names}
                stored = file.metadata()["sha256"]
        except (OSError, SafetensorError, KeyError, TypeError):
            return None
        if key not in self._checked and hash_tensors(found) != stored:
            return None
        self._checked.add(key)
        return found

    def _put(self, key: str, row: dict[str, Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in row.values())
        if self.held + size <= self.memory * GIGABYTE:
            # A row of the batch would keep all of the batch in memory. It stays where it is: from a
            # GPU to the CPU and back takes longer than to make it again.
            self._known[key] = {name: tensor.clone() for name, tensor in row.items()}
            self.held += size
        if self._place is None or self._written + size > self.disk * GIGABYTE:
            return
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cache {self._place} cannot be written ({error}). {ADVICE}") from error
        row = {name: tensor.cpu().contiguous() for name, tensor in row.items()}
        path = self._place / f"{key}{SUFFIX}"
        with atomic_file(path, concurrent=True, advice=ADVICE) as partial:
            save_file(row, partial, metadata={"sha256": hash_tensors(row)})
        self._written += size


def used(folder: Path) -> int:
    """Bytes of the representations in a folder."""
    return sum(path.stat().st_size for path in folder.glob(f"*{SUFFIX}"))


def refuse_small(folder: Path, most: float) -> None:
    """Refuses a disk with too little room.

    Raises:
        ConfigError: If what the folder may still grow by is not free, or it is a file.
    """
    needed = most * GIGABYTE - used(folder)
    claim = f" may grow by {needed / GIGABYTE:.1f} GB, and"
    require_free_space("cache", folder, needed, claim, lower="lower it (--set cache_disk=GB), ")
