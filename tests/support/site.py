"""docs/gen_pages.py, which MkDocs loads as a hook."""

from __future__ import annotations

import importlib.util
from functools import cache
from types import ModuleType

from support import ROOT


@cache
def gen_pages() -> ModuleType:
    """The hook's module."""
    spec = importlib.util.spec_from_file_location("gen_pages", ROOT / "docs" / "gen_pages.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@cache
def generated_pages() -> dict[str, str]:
    """Every page that the hook makes from the code, by its path in docs/."""
    pages: dict[str, str] = gen_pages().pages()
    return pages
