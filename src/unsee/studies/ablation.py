"""Variants of a method, each with parts turned off or replaced: the rows of an ablation."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from unsee.errors import ConfigError, shorten
from unsee.methods import METHODS
from unsee.recipes import plain_yaml


def variants(method: str, path: Path | None = None) -> dict[str, tuple[str, dict[str, Any]]]:
    """Reads the variants of a method.

    Args:
        method: A registered method.
        path: A YAML file of {name: {field: value}}; None is the one that ships for the method.

    Returns:
        The method and the fields that a variant changes, by the variant's name.

    Raises:
        ConfigError: If no variants ship with the method, or the file does not have that form.

    Example:
        >>> variants("vkd")["no keep"]
        ('vkd', {'paper': True, 'w_keep': 0.0})
    """
    METHODS.get(method)
    shipped = files("unsee.studies") / "variants" / f"{method}.yaml"
    if path is None and not shipped.is_file():
        raise ConfigError(
            f"no variants of {method} ship with unsee. Give some with --variants FILE.yaml, each "
            "a name with the fields that it changes: 'no retain: {w_retain: 0.0}'."
        )
    what = f"variants {shorten(str(path), 200)}"
    content = (
        plain_yaml.read_file(path, what)
        if path is not None
        else plain_yaml.parse(shipped.read_text("utf-8"), str(shipped))
    )
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(value, dict) for value in content.values())
    ):
        raise ConfigError(
            f"{what}: must be names with the fields that each changes, such as "
            "'no retain: {w_retain: 0.0}'."
        )
    return {name: (method, dict(changes)) for name, changes in content.items()}
