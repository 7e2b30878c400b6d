"""Run folders: created or resumed, and written file by file, each whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unsee.errors import RunError
from unsee.files import write_atomically
from unsee.records.schema import SampleResult, Summary

RECIPE, ENVIRONMENT, TRAIN = "recipe.yaml", "environment.json", "train.jsonl"


SCORES, SUMMARY, REPORT = "scores.jsonl", "summary.json", "report.html"


PARTS, STATE = ".parts", ".state"


def jsonable(value: Any) -> Any:
    """Returns the value with tuples replaced by lists, as JSON and YAML have them."""
    if isinstance(value, Mapping):
        return {key: jsonable(inner) for key, inner in value.items()}
    return [jsonable(inner) for inner in value] if isinstance(value, list | tuple) else value


# Whether two recipes, as text, mean the same.
SameRecipe = Callable[[str, str], bool]


def same_text(stored: str, recipe: str) -> bool:
    """Whether two recipes are equal but for the first line: a command can be typed in two ways."""
    return stored.split("\n", 1)[-1] == recipe.split("\n", 1)[-1]


class RunFolder:
    """A run folder, new or to be resumed.

    Results of stages are kept until the run is finished, so that a resumed run does not compute
    them again.
    """

    def __init__(self, path: Path) -> None:
        """Refers to a folder; `open` creates or resumes one."""
        self.path = path

    @classmethod
    def open(cls, path: Path, recipe: str, same: SameRecipe = same_text) -> RunFolder:
        """Creates the folder, or resumes an unfinished run of the same recipe.

        Args:
            path: The folder.
            recipe: The recipe's text.
            same: Whether two recipes' texts are the same recipe.

        Raises:
            RunError: If the folder holds something else, or a finished run.
        """
        cls.refuse(path, recipe, same)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / RECIPE, recipe)
        except OSError as error:
            raise RunError(
                f"{path} cannot be written ({error}). Name another with --out."
            ) from error
        return cls(path)

    @staticmethod
    def refuse(path: Path, recipe: str, same: SameRecipe = same_text) -> None:
        """Checks that `open` would accept the folder; nothing is written.

        Args:
            path: The folder.
            recipe: The recipe's text.
            same: Whether two recipes' texts are the same recipe.

        Raises:
            RunError: If the folder holds something else, or a finished run.
        """
        stored = path / RECIPE
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file. Name a folder with --out.")
        if (path / SUMMARY).exists() and (path / REPORT).exists():
            raise RunError(
                f"{path} holds a finished run (see {path / REPORT}). Name another folder with "
                "--out, or remove it."
            )
        if stored.exists():
            if not RunFolder.holds_recipe(path, recipe, same):
                raise RunError(
                    f"{path} holds an unfinished run of another recipe. Name another folder with "
                    f"--out, or type the command in the first line of {stored} to finish that run."
                )
        elif path.exists() and any(path.iterdir()):
            raise RunError(
                f"{path} is not empty and holds no run. Name another folder with --out, or "
                "empty it."
            )

    @staticmethod
    def holds_finished(path: Path, recipe: str, same: SameRecipe = same_text) -> bool:
        """Whether the folder holds a finished run of a recipe.

        Args:
            path: The folder.
            recipe: The recipe's text.
            same: Whether two recipes' texts are the same recipe.
        """
        finished = (path / SUMMARY).exists() and (path / REPORT).exists()
        return finished and RunFolder.holds_recipe(path, recipe, same)

    @staticmethod
    def holds_recipe(path: Path, recipe: str, same: SameRecipe = same_text) -> bool:
        """Whether the folder is of a recipe; the command in its first line may differ.

        Args:
            path: The folder.
            recipe: The recipe's text.
            same: Whether two recipes' texts are the same recipe.
        """
        stored = path / RECIPE
        return stored.exists() and same(stored.read_text("utf-8"), recipe)

    def get_or_compute(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns a kept JSON value, or makes and keeps it."""
        path = self.path / PARTS / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        value = make()
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(value))
        return value

    def write_scores(self, rows: Mapping[str, Sequence[SampleResult]]) -> None:
        """Writes every model's rows as scores.jsonl."""
        lines = [line for model, results in rows.items() for line in _lines(model, results)]
        write_atomically(self.path / SCORES, "".join(lines))

    def append_scores(self, model: str, rows: Sequence[SampleResult]) -> None:
        """Adds rows of a model that is being scored, so that they can be read meanwhile."""
        with (self.path / SCORES).open("a", encoding="utf-8") as file:
            file.writelines(_lines(model, rows))

    def finish(self, summary: Summary) -> None:
        """Writes summary.json."""
        text = json.dumps(summary.to_dict(), indent=1, ensure_ascii=False)
        write_atomically(self.path / SUMMARY, text + "\n")

    def remove_temporary_files(self) -> None:
        """Removes what only an unfinished run needs."""
        for name in (PARTS, STATE):
            shutil.rmtree(self.path / name, ignore_errors=True)


def _lines(model: str, rows: Sequence[SampleResult]) -> list[str]:
    return [
        json.dumps({"model": model, **row.to_dict()}, ensure_ascii=False) + "\n" for row in rows
    ]
