"""Names and summaries of everything registered, read from source: no module is imported.

Importing the methods takes seconds, since it loads torch. A listing needs only the names, the first
lines of the docstrings and the sources, so this module parses the files with `ast`. Entry points of
other packages are parsed in the same way where that is safe, and imported where it is not.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path

from unsee.errors import UnknownNameError

# Each kind of registered object, with what it is. Its package registers them, and the entry points
# of the group unsee.KIND add to them.
KINDS = {
    "methods": "Unlearning methods, for `unsee unlearn --method` and recipes.",
    "metrics": "Metrics, for `unsee evaluate --metrics`.",
    "attacks": "Attacks that try to recover what was unlearned, for `unsee audit --attack`.",
    "benchmarks": "Benchmarks: data sets with splits, for `--data NAME:SPLIT` and recipes.",
    "families": "Model families whose checkpoints can be loaded.",
    "encoders": "Image encoders alone, for `unsee unlearn --model` with photographs.",
}
# The packages that are not unsee.KIND.
PACKAGES = {"encoders": "unsee.families.encoders"}


@dataclass(frozen=True)
class Entry:
    """A registered object.

    Attributes:
        name: The name it is registered under.
        summary: The first line of its docstring.
        source: The paper it comes from; "" without one.
    """

    name: str
    summary: str
    source: str


def entries(kind: str) -> list[Entry]:
    """All registered objects of a kind, sorted by name.

    Args:
        kind: One of `KINDS`.

    Raises:
        UnknownNameError: If there is no such kind.
    """
    if kind not in KINDS:
        raise UnknownNameError("kind", kind, KINDS)
    listed = list(_shipped(kind))
    for point in entry_points(group=f"unsee.{kind}"):
        own = _parse_entry_point(point)
        if own is None:
            return _import(kind)
        listed += own
    return sorted(listed, key=lambda entry: entry.name)


def names(kind: str) -> list[str]:
    """The registered names of a kind, sorted."""
    return [entry.name for entry in entries(kind)]


def package_of(kind: str) -> str:
    """The name of the package that registers a kind, whose attribute KIND is the registry."""
    return PACKAGES.get(kind, f"unsee.{kind}")


@cache
def _shipped(kind: str) -> tuple[Entry, ...]:
    """The entries of the package itself, whose files stay as they are while a process runs."""
    return tuple(_parse(_files(kind)))


def _files(kind: str) -> list[Path]:
    """The files of a kind's package, but those of another kind's inside it."""
    name = package_of(kind)
    inner = [other for other in PACKAGES.values() if other.startswith(f"{name}.")]
    folders, apart = (
        [
            Path(folder)
            for package in packages
            for folder in getattr(find_spec(package), "submodule_search_locations", None) or ()
        ]
        for packages in ([name], inner)
    )
    found = (path for folder in folders for path in folder.rglob("*.py"))
    return sorted(p for p in found if not any(p.is_relative_to(folder) for folder in apart))


def _parse(files: Iterable[Path]) -> list[Entry]:
    """Lists the classes and functions that these files register."""
    nodes: dict[str, ast.ClassDef | ast.FunctionDef] = {}
    for path in files:
        for node in ast.parse(path.read_text("utf-8"), str(path)).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                nodes[node.name] = node
    listed = []
    for node in nodes.values():
        for decorator in node.decorator_list:
            name = _registered_name(decorator)
            if name is not None:
                summary = (ast.get_docstring(node) or "").strip().partition("\n")[0]
                listed.append(Entry(name, summary, _source(node, decorator, nodes)))
    return listed


def _registered_name(decorator: ast.expr) -> str | None:
    """NAME of the decorator `@REGISTRY.register("NAME")`; None of any other."""
    if (
        isinstance(decorator, ast.Call)
        and isinstance(decorator.func, ast.Attribute)
        and decorator.func.attr == "register"
        and decorator.args
    ):
        return _text(decorator.args[0])
    return None


def _source(
    node: ast.AST, decorator: ast.expr | None, nodes: dict[str, ast.ClassDef | ast.FunctionDef]
) -> str:
    """The `source` that the decorator, the class or one of its base classes sets."""
    for keyword in decorator.keywords if isinstance(decorator, ast.Call) else ():
        if keyword.arg == "source":
            return _text(keyword.value) or ""
    if not isinstance(node, ast.ClassDef):
        return ""
    for statement in node.body:
        targets: list[ast.expr] = []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        elif isinstance(statement, ast.Assign):
            targets = statement.targets
        for target in targets:
            value = getattr(statement, "value", None)
            if isinstance(target, ast.Name) and target.id == "source" and value is not None:
                return _text(value) or ""
    for base in node.bases:
        parent = nodes.get(base.id) if isinstance(base, ast.Name) else None
        if parent is not None and parent is not node:
            inherited = next((d for d in parent.decorator_list if _registered_name(d)), None)
            return _source(parent, inherited, nodes)
    return ""


def _text(node: ast.expr) -> str | None:
    """The string that an expression stands for; None if it is none."""
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return None
    return value if isinstance(value, str) else None


def _parse_entry_point(point: EntryPoint) -> list[Entry] | None:
    """Lists what an entry point registers; None if it must be imported to find out.

    One module that imports nothing from its own package registers what its source says. Anything
    else may register objects in places that the source of the module does not show.
    """
    root = point.module.partition(".")[0]
    try:
        spec = find_spec(root)
        if spec is None or spec.origin is None:
            return None
        path = Path(spec.origin).parent.joinpath(*point.module.split(".")[1:]).with_suffix(".py")
        path = Path(spec.origin) if point.module == root else path
        tree = ast.parse(path.read_text("utf-8"))
    except (ImportError, OSError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            imported = [root if node.level else str(node.module)]
        elif isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        else:
            continue
        if any(name.partition(".")[0] == root for name in imported):
            return None
    return _parse([path]) or None


def _import(kind: str) -> list[Entry]:
    """Lists the registry's entries after importing every module."""
    from importlib import import_module

    registry = getattr(import_module(package_of(kind)), kind.upper())
    return [Entry(row["name"], row["summary"], row["source"]) for row in registry.describe()]
