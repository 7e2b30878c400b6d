"""Parts of a method, turned off or replaced: the rows of an ablation."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from unsee.errors import ConfigError
from unsee.methods import METHODS


def variants(method: str, path: Path | None = None) -> dict[str, tuple[str, dict[str, Any]]]:
    """The parts of a method that are turned off or replaced, one at a time, by name.

    Args:
        method: A registered method.
        path: A YAML file of {name: {field: value}}; None is the one that ships for the method.

    Raises:
        ConfigError: If none ships, or the file is not of that form.
    """
    METHODS.get(method)
    shipped = files("unsee.studies") / "variants" / f"{method}.yaml"
    if path is None and not shipped.is_file():
        raise ConfigError(
            f"no variants of {method} ship with unsee. Give some with --variants FILE.yaml, each "
            "a name with the fields that it changes: 'no retain: {lambda_r: 0.0}'."
        )
    try:
        source = path if path is not None else shipped
        content = yaml.safe_load(source.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"variants {path}: cannot be read as YAML ({error}).") from error
    whole = isinstance(content, dict) and content
    if not whole or not all(isinstance(value, dict) for value in content.values()):
        raise ConfigError(
            f"variants {path}: must be names with the fields that each changes, such as "
            "'no retain: {lambda_r: 0.0}'."
        )
    return {str(name): (method, dict(changes)) for name, changes in content.items()}
