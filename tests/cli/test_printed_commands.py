"""Every command that a message, a docstring or a report of the package prints can be typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import unsee
from unsee.cli import app

SOURCE = Path(unsee.__file__).parent
# What the parser raises for a command, or for its last option, without arguments.
NAMED_ALONE = {"MissingParameter", "NoArgsIsHelpError", "BadOptionUsage", "Exit"}

FILES = sorted(p for p in SOURCE.rglob("*") if p.suffix in {".py", ".html", ".j2", ".yaml"})

# Files whose texts name options of other programs, and those of `unsee` in earlier releases.
EXEMPT = {
    "companions.py", "distributed.py", "pretrained_parts.py", "provenance.py", "redaction.py",
}  # fmt: skip
# --mmproj is an option of llama.cpp, and two are of `hf download`.
OTHERS = {"--help", "--upgrade", "--mmproj", "--repo-type", "--local-dir"}


def texts(path: Path) -> Iterator[str]:
    """The string constants of a Python file, with 1 for each value of an f-string; or the file."""
    if path.suffix != ".py":
        yield path.read_text("utf-8")
        return
    tree = ast.parse(path.read_text("utf-8"))
    inner = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inner:
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            yield "".join(str(p.value) if isinstance(p, ast.Constant) else "1" for p in node.values)


def commands(text: str) -> Iterator[list[str]]:
    """The commands in a text: between backticks, or on a line of their own."""
    quoted = re.findall(r"`(unsee [^`]+)`", text)
    lines = re.findall(r"^(?:# |Example: |\s*)(unsee [a-z-]+ .*)$", text, re.MULTILINE)
    for found in [*quoted, *lines]:
        words = shlex.split(" ".join(found.split()))[1:]
        # "`unsee run` resumes", prose that begins a line.
        if words and re.fullmatch(r"[a-z]+|--[a-z-]+", words[0]):
            yield words


CASES = sorted(
    {
        (path.relative_to(SOURCE).as_posix(), *words)
        for path in FILES
        for text in texts(path)
        for words in commands(text)
    }
)


def parse(words: list[str]) -> None:
    """Parses a command by the real application, without running it."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("unsee", list(words))
    while hasattr(command, "commands"):
        rest = [*getattr(context, "_protected_args", ()), *context.args]
        if not rest:
            return
        # N stands for a number.
        rest = ["1" if word == "N" else word for word in rest]
        name, command, rest = command.resolve_command(context, rest)
        try:
            context = command.make_context(name, rest, parent=context)
        except Exception as error:
            # Commands and options may be named alone, as in "`unsee apply` reads all files".
            kind, last = type(error).__name__, rest[-1] if rest else "--"
            if kind not in NAMED_ALONE or not last.startswith("--"):
                raise
            return


@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_printed_commands_parse(case: tuple[str, ...]) -> None:
    parse(list(case[1:]))


def test_named_options_exist() -> None:
    known = set(OTHERS)
    pending: list[Any] = [typer.main.get_command(app)]
    while pending:
        command = pending.pop()
        known |= {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
        pending += getattr(command, "commands", {}).values()
    unknown = []
    for path in FILES:
        for text in texts(path) if path.suffix == ".py" else ():
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", text):
                if option not in known and path.name not in EXEMPT:
                    unknown.append(f"{path.name}: {option}")
    assert not unknown, "; ".join(sorted(set(unknown)))


def test_there_are_printed_commands() -> None:
    assert len(CASES) > 40
