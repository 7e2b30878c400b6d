"""Run folders: created or resumed, and written file by file, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unsee.errors import RunError
from unsee.files import (
    LEFTOVER,
    append_text,
    make_folder,
    read_json_with_digest,
    read_text,
    remove,
    remove_leftovers,
    write_atomically,
    write_json_with_digest,
)
from unsee.records.lock import is_empty
from unsee.records.schema import SampleResult, Summary

RECIPE, ENVIRONMENT, TRAIN = "recipe.yaml", "environment.json", "train.jsonl"


SCORES, SUMMARY, REPORT = "scores.jsonl", "summary.json", "report.html"


PARTS, STATE = ".parts", ".state"


def jsonable(value: Any) -> Any:
    """Returns the value with tuples replaced by lists, as JSON and YAML have them."""
    if isinstance(value, Mapping):
        return {key: jsonable(inner) for key, inner in value.items()}
    return [jsonable(inner) for inner in value] if isinstance(value, list | tuple) else value


def key_of_run(path: Path) -> str | None:
    """Returns the identifier of the key that a run was redacted with; None if it was not.

    Args:
        path: The run folder.
    """
    try:
        content = json.loads(read_text(path / ENVIRONMENT))
    except (FileNotFoundError, ValueError, RecursionError):
        # Whoever goes on with the run refuses a damaged file.
        return None
    key = content.get("redacted_with") if isinstance(content, dict) else None
    return key if isinstance(key, str) else None


class RecordRedactor(Protocol):
    """Redacts JSON values of records; see `unsee.artifacts.redactor.Redactor`."""

    def record(self, value: Any) -> Any:
        """Returns the value without personal data."""
        ...

    def reveal(self, value: Any) -> Any:
        """Returns a redacted value with names and ids again, as far as they are known."""
        ...


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

    def __init__(self, path: Path, redactor: RecordRedactor | None = None) -> None:
        """Refers to a folder; `open` creates or resumes one.

        Args:
            path: The folder.
            redactor: Redacts what is written; None writes it as it is.
        """
        self.path = path
        self.redactor = redactor

    @classmethod
    def open(
        cls,
        path: Path,
        recipe: str,
        same: SameRecipe = same_text,
        redactor: RecordRedactor | None = None,
    ) -> RunFolder:
        """Creates the folder, or resumes an unfinished run of the same recipe.

        Args:
            path: The folder.
            recipe: The recipe's text.
            same: Whether two recipes' texts are the same recipe.
            redactor: Redacts what is written later; the recipe is written as it is.

        Raises:
            RunError: If the folder holds something else, or a finished run.
        """
        cls.refuse(path, recipe, same)
        make_folder(path, "Name another with --out.")
        write_atomically(path / RECIPE, recipe)
        return cls(path, redactor)

    @staticmethod
    def refuse(path: Path, recipe: str, same: SameRecipe = same_text) -> None:
        """Checks that `open` would accept the folder; nothing is written.

        Args:
            path: The folder.
            recipe: The recipe's text.
            same: Whether two recipes' texts are the same recipe.

        Raises:
            RunError: If the folder holds something else, or a finished run, or a link or another
                odd file that would be read or written through.
        """
        stored = path / RECIPE
        if path.exists() and not path.is_dir():
            raise RunError(f"{path} is a file. Name a folder with --out.")
        refuse_odd_entries(path)
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
        elif path.exists() and not is_empty(path):
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
        return stored.exists() and same(read_text(stored), recipe)

    def get_or_compute(self, name: str, make: Callable[[], Any]) -> Any:
        """Returns a kept JSON value, or makes and keeps it.

        Raises:
            RunError: If what was kept is damaged.
        """
        path = self.path / PARTS / f"{name}.json"
        if path.exists():
            kept = read_json_with_digest(path)
            if (
                not isinstance(kept, dict)
                or kept.keys() != {"name", "value"}
                or kept["name"] != name
            ):
                raise RunError(
                    f"{path} holds another result than its name says. Remove it and type the same "
                    "command again, which computes it again."
                )
            value = kept["value"]
            return value if self.redactor is None else self.redactor.reveal(value)
        value = make()
        make_folder(path.parent)
        written = value if self.redactor is None else self.redactor.record(value)
        write_json_with_digest(path, {"name": name, "value": written})
        return value

    def write_scores(self, rows: Mapping[str, Sequence[SampleResult]]) -> None:
        """Writes every model's rows as scores.jsonl."""
        lines = [line for model, results in rows.items() for line in self._lines(model, results)]
        write_atomically(self.path / SCORES, "".join(lines))

    def append_scores(self, model: str, rows: Sequence[SampleResult]) -> None:
        """Adds rows of a model that is being scored, so that they can be read meanwhile."""
        append_text(self.path / SCORES, "".join(self._lines(model, rows)))

    def _lines(self, model: str, rows: Sequence[SampleResult]) -> list[str]:
        """The lines of `scores.jsonl` about some results of a model."""
        contents: list[Any] = [{"model": model, **row.to_dict()} for row in rows]
        if self.redactor is not None:
            contents = self.redactor.record(contents)
        return [json.dumps(content, ensure_ascii=False) + "\n" for content in contents]

    def finish(self, summary: Summary) -> None:
        """Writes summary.json."""
        text = json.dumps(summary.to_dict(), indent=1, ensure_ascii=False)
        write_atomically(self.path / SUMMARY, text + "\n")

    def remove_temporary_files(self) -> None:
        """Removes what only an unfinished run needs."""
        for name in (PARTS, STATE):
            remove(self.path / name)


def tidy(path: Path, finished: bool = False) -> None:
    """Removes what a killed process left in an output folder; its caller holds the folder's lock.

    Args:
        path: The folder.
        finished: Whether the run in it is finished, so that its state is of no use.
    """
    remove_leftovers(path)
    if not path.is_dir():
        return
    for entry in path.iterdir():
        if entry.name.startswith(".") and entry.name.endswith(".partial"):
            _remove_own_partial(entry)
    if finished:
        RunFolder(path).remove_temporary_files()


def _remove_own_partial(entry: Path) -> None:
    """Removes a partial file of a writer without a name of its own, whom the lock excludes."""
    if LEFTOVER.fullmatch(entry.name) is None:
        remove(entry)


def refuse_odd_entries(path: Path) -> None:
    """Refuses links, pipes and devices in an output folder, and in its hidden ones.

    A run would wait for a pipe, and write through a link, perhaps outside the folder.

    Raises:
        RunError: If there is one.
    """
    if not path.is_dir():
        return
    hidden = [path / name for name in (PARTS, STATE)]
    for folder in (path, *(inner for inner in hidden if inner.is_dir())):
        for entry in sorted(folder.iterdir() if folder == path else folder.rglob("*")):
            if entry.is_symlink() or not (entry.is_file() or entry.is_dir()):
                raise RunError(
                    f"{entry} is a link, a pipe or a device, which no run makes. Replace it by the "
                    "file itself, or name another folder with --out."
                )
