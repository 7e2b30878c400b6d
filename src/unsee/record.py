"""A run folder: what was asked for, what happened step by step, and the result, written whole."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from unsee import __version__
from unsee.errors import RunError

RECIPE, ENVIRONMENT, TRAIN = "recipe.yaml", "environment.json", "train.jsonl"
SCORES, SUMMARY, REPORT = "scores.jsonl", "summary.json", "report.html"
PARTS, STATE = ".parts", ".state"


class Part(Protocol):
    """Keeps what is found of a model, so that it is not found twice."""

    def __call__(self, what: str, model: str, make: Callable[[], Any], by: Any = None) -> Any:
        """What `make` returned, now or before; `by` is the attack that it is the result of."""


def listed(value: Any) -> Any:
    """The same with lists for tuples, as JSON and YAML have them."""
    if isinstance(value, Mapping):
        return {key: listed(inner) for key, inner in value.items()}
    return [listed(inner) for inner in value] if isinstance(value, list | tuple) else value


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
            write_whole(path / RECIPE, recipe)
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

    def part(self, name: str, make: Callable[[], Any]) -> Any:
        """What `make` returned, now or in an earlier sitting; must be JSON."""
        path = self.path / PARTS / f"{name}.json"
        if path.exists():
            return json.loads(path.read_text("utf-8"))
        value = make()
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(value))
        return value

    def write_scores(self, rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
        """Writes every model's rows as scores.jsonl."""
        lines = [line for model, some in rows.items() for line in _lines(model, some)]
        write_whole(self.path / SCORES, "".join(lines))

    def append_scores(self, model: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Adds rows of a model that is being scored, to be looked at while it runs."""
        with (self.path / SCORES).open("a", encoding="utf-8") as file:
            file.writelines(_lines(model, rows))

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Writes summary.json."""
        text = json.dumps(summary, indent=1, ensure_ascii=False)
        write_whole(self.path / SUMMARY, text + "\n")

    def tidy(self) -> None:
        """Drops what only an unfinished run needs."""
        for name in (PARTS, STATE):
            shutil.rmtree(self.path / name, ignore_errors=True)


def _lines(model: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [json.dumps({"model": model, **row}, ensure_ascii=False) + "\n" for row in rows]


def write_whole(path: Path, text: str) -> None:
    """Writes a file so that it is there whole or not at all.

    Raises:
        RunError: If it cannot be written, such as on a full disk.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_text(text, "utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RunError(
            f"{path} cannot be written ({error}). Free some space and resume."
        ) from error


def provenance(seed: int, device: str, **hashes: str | None) -> dict[str, Any]:
    """Versions, machine and hashes, as `summary.json` holds them."""
    commit, dirty = _commit()
    return {
        "unsee": __version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
        "device": device,
        "commit": commit,
        "dirty": dirty,
        "seed": seed,
        **hashes,
    }


def made_on(found: Mapping[str, Any]) -> str:
    """Machine, threads and versions of a `provenance`, as a page names them."""
    threads = f"{found['threads']} thread{'s' if found['threads'] > 1 else ''} a model"
    return (
        f"{found['platform']}, {found['cpu']}, {threads} (unsee {found['unsee']}, torch "
        f"{found['torch']}, transformers {found['transformers']})"
    )


def peak_memory() -> int:
    """Most memory (bytes) that this process has held: on the GPU if it used one, else resident."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0:
        return int(torch.cuda.max_memory_allocated())
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(most if sys.platform == "darwin" else most * 1024)


def _body(recipe: str) -> str:
    """A recipe without its first line: the command may be typed in another way."""
    return recipe.split("\n", 1)[-1]


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the source tree and whether it has changes; None where it is no git checkout."""
    here = Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(here), *words], capture_output=True, text=True, check=False
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    tracked = git("ls-files", "--error-unmatch", __file__)
    commit = git("rev-parse", "HEAD") if tracked else None
    return commit, bool(git("status", "--porcelain")) if commit else None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
