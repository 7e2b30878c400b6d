"""The parameters of a model and the tensors of checkpoint files, as transformers converts them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from unsee.errors import ModelError


@dataclass(frozen=True)
class Converted:
    """Tensors of the files that transformers rearranges into parameters, such as fused experts.

    Attributes:
        keys: The names of the tensors in the files, in the order in which they are read.
        target: The name of the first parameter that they become.
        model: The model; its weights may be on the meta device.
        patterns: The pattern of transformers' rule that each name fits.
        rule: That rule.
    """

    keys: tuple[str, ...]
    target: str
    model: Any
    patterns: tuple[str, ...]
    rule: Any

    def load(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters that transformers makes of the files' tensors.

        Args:
            tensors: The tensors of `keys`.
        """
        rule = deepcopy(self.rule)
        for key, pattern in zip(self.keys, self.patterns, strict=True):
            rule.add_tensor(self.target, key, pattern, tensors[key])
        made = rule.convert(self.target, model=self.model, config=self.model.config)
        return {name: t[0] if isinstance(t, list) else t for name, t in made.items()}

    def store(
        self, parameters: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]
    ) -> dict[str, Tensor]:
        """The files' tensors from which transformers makes these parameters: the reverse of `load`.

        Every number of the files is given a number of its own, which is followed through `load`.

        Args:
            parameters: At least the parameters that `load` makes, by name.
            shapes: The shapes of the files' tensors.

        Raises:
            ModelError: If transformers does not move each number to one place.
        """
        sizes = [torch.Size(shapes[key]).numel() for key in self.keys]
        numbers = torch.arange(sum(sizes))
        counted = dict(zip(self.keys, numbers.split(sizes), strict=True))
        places = self.load({key: part.reshape(shapes[key]) for key, part in counted.items()})
        moved = torch.cat([place.flatten() for place in places.values()])
        if not torch.equal(moved.sort().values, numbers):
            raise ModelError(
                f"transformers computes parameter {self.target} from the tensors of the files, "
                f"first {self.keys[0]}, and does not only rearrange them; what a training changed "
                "cannot be written under their names. Save the whole model: --save model."
            )
        for name, place in places.items():
            if parameters[name].shape != place.shape:
                raise ModelError(
                    f"parameter {name} is {list(parameters[name].shape)} in the model, and "
                    f"{list(place.shape)} in the files, from {self.keys[0]}: that is not its base. "
                    "Give the folder that it was loaded from."
                )
        values = torch.cat([parameters[name].detach().cpu().flatten() for name in places])
        flat = torch.empty_like(values)
        flat[moved] = values
        parts = zip(self.keys, flat.split(sizes), strict=True)
        return {key: part.reshape(shapes[key]) for key, part in parts}


class StoredNames:
    """Names in files and in the model, by transformers' own renaming.

    Differs: several tensors of the files may become one parameter (fused experts), and one several
    (a fused attention that the model splits); `assembled` names these parameters.
    """

    def __init__(self, model: Any) -> None:
        """Reads the renaming of a model's class.

        Args:
            model: The Hugging Face model; its weights may be on the meta device.
        """
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightConverter, WeightRenaming

        rules = get_model_conversion_mapping(model)
        self._renamings = [rule for rule in rules if isinstance(rule, WeightRenaming)]
        self._converters = [rule for rule in rules if isinstance(rule, WeightConverter)]
        self._base = model.base_model_prefix
        self._parameters = dict(model.state_dict(keep_vars=True))
        self._model = model if self._converters else None
        self._known: dict[str, tuple[str, str | None]] = {}

    def parameter(self, key: str) -> tuple[str, bool]:
        """The parameter of a tensor in a file, and whether it is stored as it is.

        Args:
            key: The tensor's name in the file.
        """
        name, pattern = self._renamed(key)
        return name, pattern is None

    def _renamed(self, key: str) -> tuple[str, str | None]:
        """The parameter of a tensor in a file, and the converting rule's pattern that it fits."""
        if key not in self._known:
            from transformers.core_model_loading import rename_source_key

            self._known[key] = rename_source_key(
                key, self._renamings, self._converters, self._base, self._parameters
            )
        return self._known[key]

    def find(self, files: Iterable[str], names: Iterable[str]) -> dict[str, str]:
        """The tensor in the files of each parameter; those that are assembled are left out.

        Args:
            files: The names of the tensors in the files.
            names: Names of parameters.
        """
        wanted = set(names)
        found: dict[str, str] = {}
        for key in files:
            name, whole = self.parameter(key)
            if whole and name in wanted:
                found.setdefault(name, key)
        return found

    def assembled(self, files: Iterable[str]) -> frozenset[str]:
        """The parameters that transformers makes from other tensors of the files.

        Args:
            files: The names of the tensors in the files.
        """
        found: set[str] = set()
        for key in files:
            name, whole = self.parameter(key)
            for rule in () if whole else self._converters:
                first = rule.target_patterns[0]
                if first in name:
                    found.update(name.replace(first, other) for other in rule.target_patterns)
            if not whole:
                found.add(name)
        return frozenset(found)

    def converted(self, files: Iterable[str], names: Iterable[str]) -> Iterator[Converted]:
        """Yields the tensors that are converted into some parameters, group by group.

        Args:
            files: The names of the tensors in the files.
            names: The names of the parameters.
        """
        from transformers.core_model_loading import dot_natural_key

        wanted = set(names)
        groups: dict[str, list[tuple[str, str]]] = {}
        for key in sorted(files, key=dot_natural_key):
            name, pattern = self._renamed(key)
            if pattern is not None and name in wanted:
                groups.setdefault(name, []).append((key, pattern))
        rules = {p: rule for rule in self._converters for p in rule.source_patterns}
        for name, members in groups.items():
            keys, patterns = (tuple(column) for column in zip(*members, strict=True))
            yield Converted(keys, name, self._model, patterns, rules[patterns[0]])
