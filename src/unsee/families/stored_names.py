"""The names of a model's parameters in checkpoint files, as transformers renames them on load."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class StoredNames:
    """Names in files and in the model, by transformers' own renaming.

    Differs: files of fused experts hold several tensors for one parameter; `assembled` names them.
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
        self._known: dict[str, tuple[str, bool]] = {}

    def parameter(self, key: str) -> tuple[str, bool]:
        """The parameter of a tensor in a file, and whether it is stored as it is.

        Args:
            key: The tensor's name in the file.
        """
        if key not in self._known:
            from transformers.core_model_loading import rename_source_key

            name, converted = rename_source_key(
                key, self._renamings, self._converters, self._base, self._parameters
            )
            self._known[key] = name, converted is None
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
