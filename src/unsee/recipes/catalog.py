"""The recipes that ship with the package, found by name."""

from __future__ import annotations

import difflib
import warnings
from pathlib import Path

from unsee.errors import ConfigError, shorten

SHIPPED = Path(__file__).parent / "shipped"


def shipped_recipes() -> dict[str, Path]:
    """The shipped recipes' files by name, such as "pocket-vkd"."""
    return {path.stem: path for path in sorted(SHIPPED.rglob("*.yaml"))}


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe.

    Args:
        recipe: A YAML file, or the name of a shipped recipe.

    Raises:
        ConfigError: If there is neither such a file nor a shipped recipe of that name.
    """
    path = Path(recipe)
    shown = shorten(str(path), 200)
    try:
        if path.is_file() or (path.exists() and not path.is_dir()):
            return path
    except OSError as error:
        raise ConfigError(
            f"recipe {shown}: cannot be read ({error.strerror}). Give a YAML file."
        ) from error
    shipped = shipped_recipes()
    if str(recipe) in shipped:
        return shipped[str(recipe)]
    # Until 0.2 the recipes were files of a checkout: recipes/NAME.yaml.
    if path.parts[:1] == ("recipes",) and path.suffix == ".yaml" and path.stem in shipped:
        warnings.warn(
            f"recipe {path}: no such file, so the shipped recipe is used. Recipes are part of the "
            f"package now: type {path.stem}.",
            FutureWarning,
            stacklevel=2,
        )
        return shipped[path.stem]
    if path.is_dir():
        raise ConfigError(f"recipe {shown}: is a folder. Give the YAML file in it.")
    close = difflib.get_close_matches(shorten(path.stem), shipped, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    raise ConfigError(
        f"recipe {shown}: no such file, and no recipe of that name ships with unsee.{hint} "
        f"Type a YAML file, or one of {', '.join(shipped)}."
    )
