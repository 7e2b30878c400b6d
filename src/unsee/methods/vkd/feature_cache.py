"""The teacher's features, cached in memory and on disk.

The key of a picture is the hash of its pixels as the model gets them, and of everything else that
its features depend on. An augmented view is a function of the seed and the step, so a run that is
repeated or resumed, or one that only differs in the student, finds the features of its views on
disk. The hash that a file states covers its key and its content, so that a file that was damaged,
swapped or renamed is noticed.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from unsee.errors import RunError
from unsee.features.capture import layer_outputs
from unsee.files import atomic_file, free_space, is_regular, require_free_space
from unsee.models.checkpoint import hash_tensors, tensor_digest
from unsee.models.vlm import VLM

LOGGER = logging.getLogger("unsee")


GIGABYTE = 10**9

# Largest size of a folder, and what must be free where it is (GB).
DISK, LEAST = 20.0, 1.0


SUFFIX = ".safetensors"

# Keys of config.json that the visual part's features do not depend on.
IRRELEVANT = {"text_config", "architectures", "transformers_version"}

# The end of the error message when the folder cannot be written.
ADVICE = "Free some space and type the same command again, or leave cache out."


@dataclass
class FeatureCache:
    """Cache of the raw outputs of a frozen model's visual layers, one entry for each picture.

    A batch that comes again gets the same bits. A picture that comes again in another batch gets
    the same values up to rounding, since a kernel may round the last bits differently at another
    position in a batch. Where a family does not align pictures, nothing is cached.

    Attributes:
        vlm: The model; it must not change.
        folder: Keeps the outputs for other runs, one memory-mapped file for each picture; None
            keeps them in memory only. A file whose hash does not match its key and content is
            named in a warning, computed again and replaced.
        memory: Largest size in memory (GB): the GPU's where the model is on one.
        disk: Largest size of the folder (GB). It takes no more than half of what is free, either.
        held: Bytes in memory now.
    """

    vlm: VLM
    folder: str | Path | None = None
    memory: float = 4.0
    disk: float = DISK
    held: int = 0
    _rows: dict[str, dict[str, Tensor]] = field(default_factory=dict, repr=False)
    _checked: set[str] = field(default_factory=set, repr=False)
    _warned: bool = field(default=False, repr=False)

    def __post_init__(self) -> None:
        """Computes the part of the keys that all pictures share: the model, versions, threads."""
        self._path = Path(self.folder) if self.folder is not None else None
        self._written = self._most = 0.0
        if self._path is not None:
            self._written = used(self._path)
            half = self._written + free_space(self._path)[1] / 2
            self._most = min(self.disk * GIGABYTE, half)
        parts = [torch.__version__, str(self.vlm.device), str(torch.get_num_threads())]
        if self._path is not None:
            # The same weights compute other features with another activation or attention.
            parts += [self.vlm.hash("visual"), transformers.__version__, _settings(self.vlm)]
        self._model = "|".join(parts)

    @torch.no_grad()
    def outputs(
        self, inputs: dict[str, Tensor], layers: Sequence[str], repeated: bool = True
    ) -> dict[str, Tensor]:
        """Returns the raw outputs of visual layers; see `unsee.features.capture.layer_outputs`.

        Args:
            inputs: The visual inputs of pictures.
            layers: Names of the layers.
            repeated: Whether the same pictures come again in this run. The others are cached only
                where a folder keeps them for other runs.

        Raises:
            RunError: If the folder cannot be written.
        """
        if not self.vlm.family.aligned or not (repeated or self.folder is not None):
            return layer_outputs(self.vlm, inputs, layers)
        pixels = inputs["pixel_values"]
        keys = [self._key(picture, len(pixels), layers) for picture in pixels]
        cached = [self._get(key, layers) for key in keys]
        rows = [row for row in cached if row is not None]
        if len(rows) == len(keys):
            device = pixels.device
            return {n: torch.stack([row[n].to(device) for row in rows]) for n in layers}
        # The whole batch runs, even where parts are cached: its size may decide the last bits.
        outputs = layer_outputs(self.vlm, inputs, layers)
        for index, (key, row) in enumerate(zip(keys, cached, strict=True)):
            if row is None:
                self._put(key, {n: outputs[n][index] for n in layers})
        return {n: outputs[n] for n in layers}

    def _key(self, picture: Tensor, size: int, names: Sequence[str]) -> str:
        kind = picture.device.type
        half = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
        text = f"{self._model}|{half}|{size}|{','.join(names)}|{tensor_digest(picture)}"
        return hashlib.sha256(text.encode()).hexdigest()

    def _get(self, key: str, names: Sequence[str]) -> Mapping[str, Tensor] | None:
        if key in self._rows or self._path is None:
            return self._rows.get(key)
        path = self._path / f"{key}{SUFFIX}"
        if not path.exists():
            return None
        tensors = self._read(path, key, names)
        if tensors is None and not self._warned:
            self._warned = True
            LOGGER.warning(
                f"cache {path}: the file does not hold the features that its name says (damaged, "
                "swapped, or of an earlier version). It is computed again and replaced, as is any "
                "other such file."
            )
        return tensors

    def _read(self, path: Path, key: str, names: Sequence[str]) -> Mapping[str, Tensor] | None:
        """The tensors in a file; None if it cannot be read, or its hash does not match."""
        if not is_regular(path):
            return None
        try:
            with safe_open(path, "pt") as file:
                tensors = {name: file.get_tensor(name) for name in names}
                stored = file.metadata()["sha256"]
        except (OSError, SafetensorError, KeyError, TypeError):
            return None
        if key not in self._checked and _digest(key, tensors) != stored:
            return None
        self._checked.add(key)
        return tensors

    def _put(self, key: str, row: dict[str, Tensor]) -> None:
        size = sum(tensor.nbytes for tensor in row.values())
        if self.held + size <= self.memory * GIGABYTE:
            # A view of a row would keep the whole batch in memory. The copy stays on its device:
            # moving it to the CPU and back takes longer than computing it again.
            self._rows[key] = {name: tensor.clone() for name, tensor in row.items()}
            self.held += size
        if self._path is None or self._written + size > self._most:
            return
        try:
            self._path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cache {self._path} cannot be written ({error}). {ADVICE}") from error
        row = {name: tensor.cpu().contiguous() for name, tensor in row.items()}
        path = self._path / f"{key}{SUFFIX}"
        with atomic_file(path, concurrent=True, advice=ADVICE) as partial:
            save_file(row, partial, metadata={"sha256": _digest(key, row)})
        self._written += size


def _settings(vlm: VLM) -> str:
    """The settings of the visual part: the model's, without those of the language model."""
    config = vlm.model.config
    settings = {k: v for k, v in config.to_diff_dict().items() if k not in IRRELEVANT}
    attention = getattr(config, "_attn_implementation", None)
    return json.dumps([settings, attention], sort_keys=True, default=str)


def _digest(key: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over a key and the tensors that are cached under it."""
    return hashlib.sha256(f"{key}|{hash_tensors(tensors)}".encode()).hexdigest()


def feature_files(folder: Path) -> list[Path]:
    """Returns the files in a folder that this cache wrote: their hash is that of their content.

    Args:
        folder: The cache folder; files of any other kind are left out.
    """
    found = []
    for path in sorted(folder.glob(f"*{SUFFIX}")):
        if path.is_symlink() or not is_regular(path):
            continue
        try:
            with safe_open(path, "pt") as file:
                stored = (file.metadata() or {}).get("sha256")
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError):
            continue
        if stored is not None and stored == _digest(path.name.removesuffix(SUFFIX), tensors):
            found.append(path)
    return found


def used(folder: Path) -> int:
    """Returns the size (bytes) of the features cached in a folder."""
    return sum(path.stat().st_size for path in folder.glob(f"*{SUFFIX}"))


def refuse_small(folder: Path) -> None:
    """Refuses a cache folder on a disk with too little free space.

    Args:
        folder: The cache folder; it need not exist.

    Raises:
        ConfigError: If less than one GB is free, or if it is a file.
    """
    require_free_space("cache", folder, LEAST * GIGABYTE, f" needs {LEAST:.0f} GB, and")
