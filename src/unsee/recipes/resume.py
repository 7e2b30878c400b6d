"""Whether two recipes mean the same, so that a run can be resumed, also one of an older release."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from unsee.attacks import ATTACKS, Chain
from unsee.errors import ConfigError
from unsee.recipes.evaluate import EvaluationRequest, make_evaluation
from unsee.recipes.finetune import Finetune, make_finetune
from unsee.recipes.parsing import validate
from unsee.recipes.unlearn import Recipe, make_recipe


def same_recipe(stored: str, text: str) -> bool:
    """Whether a run folder's recipe means the same as another, however either is typed.

    The first line of each, its command, does not count. Fields may have the names of an older
    release.

    Args:
        stored: The recipe in the run folder.
        text: The recipe of the run that is to be started; of this release.
    """
    before, now = (recipe.split("\n", 1)[-1] for recipe in (stored, text))
    if before == now:
        return True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            recipe = _parse(_plain(now))
            if isinstance(recipe, EvaluationRequest) and "paths:" in before:
                # Releases before 0.2 wrote neither of these.
                recipe = replace(recipe, retain=None, non_members=None)
                return _literal_evaluation(before) == recipe
            return _parse(_plain(before)) == recipe
    except (ConfigError, yaml.YAMLError, ValueError, SyntaxError):
        return False


def _plain(text: str) -> Mapping[str, Any]:
    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise ConfigError("a recipe is keys with values.")
    return content


def _parse(content: Mapping[str, Any]) -> Recipe | EvaluationRequest | Finetune:
    if "method" in content:
        return make_recipe(content)
    return make_finetune(content) if "who" in content else make_evaluation(content)


def _literal_evaluation(text: str) -> EvaluationRequest:
    """The request in the form that releases before 0.2 wrote: Python literals, one on a line."""
    pairs = (line.partition(": ") for line in text.splitlines() if line)
    content = {key: ast.literal_eval(value) for key, _, value in pairs}
    chains = [_literal_chain(entry) for entry in content.pop("attacks", [])]
    return replace(make_evaluation(content), attacks=tuple(chains))


def _literal_chain(entry: Mapping[str, list[dict[str, Any]]]) -> Chain:
    """A chain from its label, such as "quantize+jailbreak", and the fields of each attack."""
    ((label, attacks),) = entry.items()
    names = label.split("+")
    return tuple(
        validate(ATTACKS.get(name), values) for name, values in zip(names, attacks, strict=True)
    )
