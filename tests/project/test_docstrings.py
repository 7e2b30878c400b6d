"""Docstrings: registered classes have an example that runs, and every text reads plainly."""

from __future__ import annotations

import ast
import dataclasses
import doctest
import importlib
import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support import ROOT
from unsee.attacks import ATTACKS
from unsee.benchmarks.pocket import Pocket
from unsee.methods import METHODS
from unsee.metrics import METRICS

SOURCE = ROOT / "src" / "unsee"

REGISTERED = {
    f"{registry.kind} {name}": item
    for registry in (METHODS, METRICS, ATTACKS)
    for name, item in registry.items()
}

FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE

# First lines that say nothing.
EMPTY = re.compile(
    r"(itself|if so|the same|as above|see above|so it is|it is)\b[^.]{0,12}\.$", re.I
)

# What documentation of a library does not say; the text after the colon is what to write instead.
BANNED = {
    r"\bway back\b": "relearning",
    r"\bnobody's\b": "say who chooses it, or that it is not tuned",
    r"\b(stays?|kept) shut\b": "weights are not read",
    r"\blooks? ahead\b": "prefetch; bidirectional attention",
    r"\bteacher's word\b": "teacher's output",
    r"\bwhat the (teacher|student|model|target) says\b": "output, answer, features",
    r"\bif so\b": "name the condition",
    r"\bof such\b": "name the things",
    r"\bby the wall\b": "wall-clock",
    r"\banew\b": "again",
    r"\bdrowned\b": "mixed",
    r"\b(he|his|him|himself)\b": "they, their (an attacker is 'they')",
    r"(?<![\w.)\]}'\"*/\\?<])\.\d+(?![\w)])(?!\.\w)": "numbers begin with 0, such as 0.74",
}


def section(doc: str, title: str) -> str:
    """The text of a Google-style section of a docstring, "" if it has none."""
    match = re.search(rf"^{title}:[ \t]*(.*?)(?=^\S|\Z)", doc, re.DOTALL | re.MULTILINE)
    return match[1] if match else ""


def entries(text: str) -> dict[str, str]:
    """The entries of an Args or Attributes section, by name."""
    found = re.findall(
        r"^ {4}\*{0,2}(\w+)(?: \([^)]*\))?: (.*?)(?=^ {4}\S|\Z)", text, re.DOTALL | re.M
    )
    return dict(found)


def documented_fields(cls: type) -> set[str]:
    """Fields in the Attributes sections of a class and its bases."""
    docs = [inspect.cleandoc(base.__doc__ or "") for base in cls.__mro__ if base is not object]
    return {name for doc in docs for name in entries(section(doc, "Attributes"))}


@pytest.mark.parametrize("key", REGISTERED)
def test_registered_class_has_summary_source_and_fields(key: str) -> None:
    cls = REGISTERED[key]
    doc = inspect.cleandoc(cls.__doc__ or "")
    first = doc.partition("\n")[0]
    assert len(first.split()) > 2 and first.endswith("."), first
    assert re.search(r"^Source: \S", doc, re.MULTILINE), "no Source section"
    if dataclasses.is_dataclass(cls):
        fields = {field.name for field in dataclasses.fields(cls)}
        assert fields <= documented_fields(cls), fields - documented_fields(cls)


@pytest.mark.parametrize("key", REGISTERED)
def test_registered_class_has_an_example(key: str) -> None:
    assert ">>>" in section(inspect.cleandoc(REGISTERED[key].__doc__ or ""), "Example"), (
        "no Example section with >>> lines"
    )


def run_example(
    doc: str, name: str, request: pytest.FixtureRequest, scope: dict[str, Any] | None = None
) -> None:
    """Runs a docstring's example; `vlm`, `data` and `pocket` are defined where it uses them."""
    given: dict[str, Callable[[], Any]] = {
        "vlm": lambda: request.getfixturevalue("tiny"),
        "data": lambda: request.getfixturevalue("data"),
        "pocket": Pocket,
    }
    code = "\n".join(example.source for example in doctest.DocTestParser().get_examples(doc))
    used = {word: make() for word, make in given.items() if re.search(rf"\b{word}\b", code)}
    test = doctest.DocTestParser().get_doctest(doc, {**(scope or {}), **used}, name, None, 0)
    report: list[str] = []
    results = doctest.DocTestRunner(optionflags=FLAGS).run(test, out=report.append)
    assert results.attempted > 0
    assert results.failed == 0, "".join(report)


@pytest.mark.parametrize("key", REGISTERED)
def test_example_of_registered_class_runs(key: str, request: pytest.FixtureRequest) -> None:
    run_example(inspect.cleandoc(REGISTERED[key].__doc__ or ""), key, request)


def other_examples() -> list[str]:
    """Modules, classes and functions with an example, those of registered classes aside."""
    registered = {(cls.__module__, cls.__qualname__) for cls in REGISTERED.values()}
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        text = path.read_text("utf-8")
        if ">>>" not in text:
            continue
        module = ".".join(("unsee", *path.relative_to(SOURCE).with_suffix("").parts))
        module = module.removesuffix(".__init__")
        for name, node in definitions(ast.parse(text)):
            if ">>>" in (ast.get_docstring(node) or "") and (module, name) not in registered:
                found.append(f"{module}:{name}")
    return found


def definitions(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    """The module (named ""), and its classes and functions with their qualified names."""
    waiting: list[tuple[str, ast.AST]] = [("", tree)]
    while waiting:
        name, node = waiting.pop(0)
        yield name, node
        for child in ast.iter_child_nodes(node):
            if isinstance(child, (ast.ClassDef, ast.FunctionDef)):
                waiting.append((f"{name}.{child.name}" if name else child.name, child))


@pytest.mark.parametrize("place", other_examples())
def test_example_in_docstring_runs(place: str, request: pytest.FixtureRequest) -> None:
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split(".") if name else ():
        found = getattr(found, part)
    scope = dict(vars(importlib.import_module(module)))
    run_example(inspect.cleandoc(found.__doc__ or ""), place, request, scope)


def wing_of(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


FILES = sorted(SOURCE.rglob("*.py"))


def identity(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_docstrings_of_a_module_are_plain(path: Path) -> None:
    problems = []
    for name, node in definitions(ast.parse(path.read_text("utf-8"))):
        doc = ast.get_docstring(node)
        if not doc:
            continue
        first = doc.partition("\n\n")[0].replace("\n", " ").strip()
        if len(first.split()) < 2 or EMPTY.match(first):
            problems.append(f"{name}: the first line says nothing: {first!r}")
        if re.match(r"(What|Who|Whom|Of|Its|So)\b", first):
            problems.append(
                f"{name}: begin with a noun or a verb, not {first.split()[0]!r}: {first!r}"
            )
        for kind in ("Args", "Attributes"):
            for entry, text in entries(section(doc, kind)).items():
                if re.match(r"(Of|If so|The same)\b", text):
                    problems.append(f"{name}.{entry}: say what it is: {text.strip()!r}")
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("path", FILES, ids=identity)
def test_text_of_a_module_has_no_banned_words(path: Path) -> None:
    problems = [
        f"{number}: {line.strip()!r} -> {better}"
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        for pattern, better in BANNED.items()
        if re.search(pattern, line) and not line.lstrip().startswith((">>>", "..."))
    ]
    assert not problems, "\n".join(problems)


def public_functions(module: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """Public functions of a module, and methods of its public classes that no base declares."""
    for name, item in vars(module).items():
        if name.startswith("_") or getattr(item, "__module__", None) != module.__name__:
            continue
        if inspect.isfunction(item):
            yield name, item
        elif inspect.isclass(item):
            for attribute, value in vars(item).items():
                inherited = any(attribute in vars(base) for base in item.__mro__[1:])
                function = getattr(value, "__func__", value)
                if not attribute.startswith("_") and not inherited and inspect.isfunction(function):
                    yield f"{name}.{attribute}", function


# Options of commands are documented by their help texts.
WITH_ARGS = [path for path in FILES if wing_of(path) != "cli"]


@pytest.mark.parametrize("path", WITH_ARGS, ids=identity)
def test_functions_of_three_parameters_have_args(path: Path) -> None:
    name = ".".join(("unsee", *path.relative_to(SOURCE).with_suffix("").parts))
    module = importlib.import_module(name.removesuffix(".__init__"))
    problems = []
    for name, function in public_functions(module):
        parameters = [p for p in inspect.signature(function).parameters if p not in ("self", "cls")]
        described = entries(section(inspect.cleandoc(function.__doc__ or ""), "Args"))
        if len(parameters) >= 3 and not set(parameters) <= set(described):
            problems.append(f"{name}: no Args entry for {sorted(set(parameters) - set(described))}")
        if described and not set(described) <= set(parameters):
            problems.append(f"{name}: Args names no parameter: {set(described) - set(parameters)}")
    assert not problems, "\n".join(problems)
