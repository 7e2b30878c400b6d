"""The local stand-in of the hub, and a client that asks it and nobody else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants

from support.cli import unsee
from support.hub import LocalHub, serving
from unsee.artifacts.patch import write_patch
from unsee.hub import snapshots
from unsee.models.vlm import VLM
from unsee.types import Data


@contextmanager
def client(home: Path) -> Iterator[LocalHub]:
    """An empty hub, whose client has an empty cache and no token."""
    with serving() as local, pytest.MonkeyPatch.context() as patch:
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
            patch.setattr(constants, name, value)
        patch.delenv("HF_TOKEN", raising=False)
        patch.setattr(snapshots, "_folders", {})
        yield local
        huggingface_hub.close_session()


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[LocalHub]:
    """An empty hub."""
    with client(tmp_path / "hf") as local:
        yield local


@pytest.fixture(scope="session")
def run(tiny_folder: Path, data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has unlearned two people from the model lab/model of a hub, by photographs."""
    place = tmp_path_factory.mktemp("published")
    for sample in data.forget:
        if sample.picture is not None and sample.picture.path is not None:
            person = place / "photos" / (sample.concept or "")
            person.mkdir(parents=True, exist_ok=True)
            shutil.copy(sample.picture.path, person)
    with client(place / "hf") as local:
        local.add("lab/model", tiny_folder)
        given = ("--model", "lab/model", "--forget", place / "photos", "--ask", "none")
        unsee(
            "unlearn",
            *given,
            "--set",
            "steps=1",
            "--set",
            "widen=0",
            "--out",
            place / "run",
        )
    return place / "run"


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
