"""Registries: named classes, found by importing the modules of a package and entry points."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from unsee.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """The registered classes of one kind, by name.

    They are discovered at the first lookup, by importing every module of `package` and every
    module that an entry point of the group `unsee.<kind>s` names. An import error is raised: a
    broken module is never skipped.
    """

    def __init__(self, kind: str, package: str) -> None:
        """Creates an empty registry.

        Args:
            kind: In the singular, such as "method"; part of messages and of the entry-point group.
            package: The package whose modules register themselves when they are imported.
        """
        self.kind = kind
        self.package = package
        self._items: dict[str, T] = {}
        self._discovered = False

    def register(self, name: str, *, source: str | None = None) -> Callable[[T], T]:
        """Returns a decorator that registers an object and sets its `name` and `source`.

        Args:
            name: The name that users type. An object that sets a `name` of its own keeps it.
            source: Where the object's definition comes from, such as "Zhang et al., arXiv
                2404.05868"; by default what the object or a base class of it sets.

        Raises:
            ConfigError: If the name is taken by another object.
        """

        def add(item: T) -> T:
            if name in self._items and self._items[name] is not item:
                raise ConfigError(f"{self.kind} '{name}' is registered twice; rename one of them.")
            self._items[name] = item
            if "name" not in vars(item):
                setattr(item, "name", name)  # noqa: B010
            if source is not None:
                setattr(item, "source", source)  # noqa: B010
            return item

        return add

    def get(self, name: str) -> T:
        """The object registered under `name`.

        Raises:
            UnknownNameError: If there is none; the message suggests the nearest name.
        """
        self._discover()
        if name not in self._items:
            raise UnknownNameError(self.kind, name, self._items)
        return self._items[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        self._discover()
        return sorted(self._items)

    def items(self) -> list[tuple[str, T]]:
        """All names with their objects, sorted by name."""
        self._discover()
        return sorted(self._items.items())

    def describe(self) -> list[dict[str, str]]:
        """{name, summary, source} of every object; the summary is its docstring's first line."""
        return [
            {"name": name, "summary": summary(item), "source": str(getattr(item, "source", ""))}
            for name, item in self.items()
        ]

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=f"unsee.{self.kind}s"):
            point.load()


def summary(item: object) -> str:
    """The first line of an object's docstring."""
    return (item.__doc__ or "").strip().splitlines()[0] if item.__doc__ else ""
