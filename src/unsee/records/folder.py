"""A run folder: what was asked for, what happened step by step, and the result, written whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from unsee.errors import RunError
from unsee.files import write_atomically

RECIPE, ENVIRONMENT, TRAIN = "recipe.yaml", "environment.json", "train.jsonl"


SCORES, SUMMARY, REPORT = "scores.jsonl", "summary.json", "report.html"


PARTS, STATE = ".parts", ".state"


class Part(Protocol):
    """Keeps what is found of a model, so that it is not found twice."""

    def __call__(self, what: str, model: str, make: Callable[[], Any], by: Any = None) -> Any:
        """What `make` returned, now or before; `by` is the attack that it is the result of."""


def jsonable(value: Any) -> Any:
    """The same with lists for tuples, as JSON and YAML have them."""
    if isinstance(value, Mapping):
        return {key: jsonable(inner) for key, inner in value.items()}
    return [jsonable(inner) for inner in value] if isinstance(value, list | tuple) else value


class RunFolder:
    """A run folder, new or to be gone on with.

    What a stage found is kept as a part until the run is finished, so that a resumed run does not
    do it again.
    """

    def __init__(self, path: Path) -> None:
        """Refers to a folder; see `open`."""
        self.path = path

    @classmethod
    def open(cls, path: Path, recipe: str) -> RunFolder:
        """Creates the folder, or goes on with an unfinished run of the same recipe.

        Raises:
            RunError: If the folder holds something else, or a finished run.
        """
        cls.refuse(path, recipe)
        try:
            path.mkdir(parents=True, exist_ok=True)
            write_atomically(path / RECIPE, recipe)
        except OSError as error:
            raise RunError(
                f"{path} cannot be written ({error}). Name another with --out."
            ) from error
        return cls(path)

    @staticmethod
    def refuse(path: Path, recipe: str) -> None:
        """Says whether `open` would refuse, without writing anything.

        Raises:
            RunError: If it would.
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
            if _body(stored.read_text("utf-8")) != _body(recipe):
                raise RunError(
                    f"{path} holds an unfinished run of another recipe. Name another folder with "
                    f"--out, or type the command in the first line of {stored} to finish that run."
                )
        elif path.exists() and any(path.iterdir()):
            raise RunError(
                f"{path} is not empty, and no run. Name another folder with --out, or empty it."
            )

    def get_or_compute(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned, now or in an earlier sitting; must be JSON."""
        path = self.path / PARTS / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        value = make()
        path.parent.mkdir(exist_ok=True)
        write_atomically(path, json.dumps(value))
        return value

    def write_scores(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Writes every model's rows as scores.jsonl."""
        lines = [line for model, some in rows.items() for line in _lines(model, some)]
        write_atomically(self.path / SCORES, "".join(lines))

    def append_scores(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows of a model that is being scored, to be looked at while it runs."""
        with (self.path / SCORES).open("a", encoding="utf-8") as file:
            file.writelines(_lines(model, rows))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        write_atomically(self.path / SUMMARY, text + "\n")

    def remove_temporary_files(self) -> None:
        """Drops what only an unfinished run needs."""
        for name in (PARTS, STATE):
            shutil.rmtree(self.path / name, ignore_errors=True)


def _lines(model: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [json.dumps({"model": model, **row}, ensure_ascii=False) + "\n" for row in rows]


def _body(recipe: str) -> str:
    """A recipe without its first line: the command may be typed in another way."""
    return recipe.split("\n", 1)[-1]
