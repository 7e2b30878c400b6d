"""`unsee verify --require`."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.cli import unsee
from unsee.models.vlm import VLM


@pytest.fixture(scope="module")
def changed(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny checkpoint with another language part."""
    folder = tmp_path_factory.mktemp("changed") / "model"
    vlm = VLM.load(tiny_folder)
    vlm.parameters("language")["model.language_model.layers.0.mlp.up_proj.weight"].data.add_(0.5)
    vlm.save(folder)
    return folder


def test_verify_require_fails_where_the_language_part_differs(
    tiny_folder: Path, changed: Path
) -> None:
    assert "DIFFERENT" in unsee("verify", tiny_folder, changed, "--probes", 4)
    message = unsee("verify", tiny_folder, changed, "--probes", 4, "--require", "text", code=1)
    assert "not as required: outputs on" in message
    message = unsee("verify", tiny_folder, changed, "--probes", 0, "--require", "language", code=1)
    assert "not as required: the language part differs" in message


def test_verify_require_passes_where_it_holds(tiny_folder: Path) -> None:
    words = ["verify", tiny_folder, tiny_folder, "--probes", 4, "--require", "text,language,visual"]
    found = unsee(*words, "--json")
    assert found["required"] == ["text", "language", "visual"]
    assert found["unmet"] == {}


def test_verify_require_refuses_what_it_cannot_check(tiny_folder: Path) -> None:
    words = ["verify", tiny_folder, tiny_folder, "--probes", 0]
    assert "--probes 0 runs none" in unsee(*words, "--require", "text", code=2)
    assert "Did you mean 'text'" in unsee(*words, "--require", "texts", code=2)
