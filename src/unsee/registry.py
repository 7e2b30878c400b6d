"""A registry of named things that are found by importing the modules of one folder."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from unsee.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names of one kind, filled by the modules of `package` and by entry points.

    Discovery is lazy, imports every module of the folder, and lets an import error through: a
    broken module is never skipped. Third parties register by an entry point of the group
    `unsee.<kind>s` that names a module.
    """

    def __init__(self, kind: str, package: str) -> None:
        """Makes an empty registry.

        Args:
            kind: Singular, such as "method"; used in messages and in the entry point group.
            package: The package whose modules register themselves on import.
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
        """The object filed under `name`.

        Raises:
            UnknownNameError: If there is none, with the nearest name.
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
        """One {name, summary, source} a registered object; the summary is its first doc line."""
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
