"""The local stand-in of the hub, and a client that asks it and nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from support.hub import LocalHub, serving
from unsee.artifacts.patch import write_patch
from unsee.hub import snapshots
from unsee.models.vlm import VLM


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    """An empty hub, with an empty cache and no token."""
    home = tmp_path / "hf"
    with serving() as local:
        for name, value in {
            "ENDPOINT": local.endpoint,
            "HUGGINGFACE_CO_URL_TEMPLATE": (
                local.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
            ),
            "HF_HUB_CACHE": str(home / "hub"),
            "HF_TOKEN_PATH": str(home / "token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(snapshots, "_folders", {})
        yield local
        huggingface_hub.close_session()


@pytest.fixture(scope="session")
def patch(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A visual patch of the tiny model."""
    vlm = VLM.load(tiny_folder)
    with torch.no_grad():
        for parameter in vlm.parameters("visual").values():
            parameter.add_(0.125)
    folder = tmp_path_factory.mktemp("patch") / "patch"
    write_patch(vlm, tiny_folder, folder, {"method": "vkd", "parameters": {"lr": 1e-4}})
    return folder
