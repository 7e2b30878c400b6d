"""The parameters of a part as the files of a checkpoint hold them, and back into the model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from unsee.models.checkpoint import (
    assembled_names,
    checkpoint_names,
    read_header,
    stored_tensors,
)

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.families import Family


class FileTensors:
    """The tensors of a checkpoint's files that hold some parameters.

    Most hold one parameter as it is. Others transformers rearranges when it loads them: a fused
    attention that the model splits, or experts that it fuses.

    Attributes:
        keys: The tensors' names in the files.
    """

    def __init__(self, family: Family, files: Mapping[str, Path], names: Sequence[str]) -> None:
        """Finds the tensors; no weight is read.

        Args:
            family: The family of the checkpoint.
            files: The file of each tensor, from `weight_map`.
            names: The names of the parameters.

        Raises:
            ModelError: If a parameter is in no file.
        """
        stored, assembled = family.stored_names(), assembled_names(family, files)
        own = [name for name in names if name not in assembled]
        self._files = files
        self._names = {k: n for n, k in checkpoint_names(family, files, own).items()}
        self._converted = () if stored is None else tuple(stored.converted(files, names))
        converted = (key for group in self._converted for key in group.keys)
        self.keys: tuple[str, ...] = (*self._names, *converted)

    def read(self, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors as the files would hold them, from a model's parameters.

        Args:
            parameters: The parameters by name.

        Raises:
            ModelError: If transformers does not only rearrange what the files hold.
        """
        found = {key: parameters[name].detach() for key, name in self._names.items()}
        headers = {path: read_header(path) for path in {self._files[k] for k in self._moved()}}
        for group in self._converted:
            shapes = {key: headers[self._files[key]][key].shape for key in group.keys}
            found |= group.store(parameters, shapes)
        return found

    def write(
        self, tensors: Iterable[tuple[str, Tensor]], parameters: Mapping[str, Tensor]
    ) -> None:
        """Puts tensors of the files into a model's parameters, in place.

        Args:
            tensors: Some tensors by their names in the files.
            parameters: The parameters by name; of a tensor that holds a part of one, the rest stays
                as it is.

        Raises:
            ModelError: If transformers does not only rearrange what the files hold.
        """
        moved: dict[str, Tensor] = {}
        with torch.no_grad():
            for key, tensor in tensors:
                if key in self._names:
                    parameters[self._names[key]].copy_(tensor)
                else:
                    moved[key] = tensor
            before = self.read(parameters) if moved else {}
            for group in self._converted:
                if not moved.keys().isdisjoint(group.keys):
                    after = {key: moved.get(key, before[key]) for key in group.keys}
                    for name, tensor in group.load(after).items():
                        parameters[name].copy_(tensor)

    def loaded(self) -> Iterator[tuple[str, Tensor]]:
        """Yields each parameter by name as transformers loads it from the files, one at a time."""
        yield from stored_tensors(self._files, {name: key for key, name in self._names.items()})
        for group in self._converted:
            keys = {key: key for key in group.keys}
            yield from group.load(dict(stored_tensors(self._files, keys))).items()

    def _moved(self) -> set[str]:
        return {key for group in self._converted for key in group.keys}
