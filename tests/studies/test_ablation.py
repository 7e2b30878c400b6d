"""Variants of a method, read from YAML."""

from __future__ import annotations

from pathlib import Path

import pytest

from unsee.errors import ConfigError
from unsee.recipes.unlearn import make_recipe
from unsee.studies.ablation import variants


def test_variants_of_vkd_are_settings_that_it_has() -> None:
    shipped = variants("vkd")
    assert shipped["default"] == ("vkd", {}) and len(shipped) > 20
    for _, changes in shipped.values():
        make_recipe({"method": "vkd", "set": changes})
    with pytest.raises(ConfigError, match="no variants of npo ship"):
        variants("npo")


def test_variants_reads_a_file_of_names_and_fields(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("no retain: {w_retain: 0.0}\n")
    assert variants("npo", path) == {"no retain": ("npo", {"w_retain": 0.0})}
    path.write_text("no retain: 3\n")
    with pytest.raises(ConfigError, match="must be names with the fields"):
        variants("npo", path)
