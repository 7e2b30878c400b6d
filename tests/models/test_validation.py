"""Checks of a checkpoint's JSON files and of what lies beside its weights."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from unsee.errors import ModelError
from unsee.models.checkpoint import resolve
from unsee.models.validation import check_json_files, check_layers


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "model"))


FILES = ("config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize("name", [*FILES, "generation_config.json"])
@pytest.mark.parametrize("text", ["5", "null", "[]", '"x"', "{", "[" * 100_000])
def test_check_json_files_refuses_what_is_no_object(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text, "utf-8")
    with pytest.raises(ModelError, match=name):
        check_json_files(folder)


@pytest.mark.parametrize("name", FILES)
def test_check_json_files_never_opens_a_pipe(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name} is not an ordinary file"):
        check_json_files(folder)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        (None, "dtype", "load"),
        (None, "dtype", "nonsense"),
        (None, "model_type", 5),
        (None, "num_labels", 10**9),
        ("text_config", "num_attention_heads", 0),
        ("text_config", "num_attention_heads", 7),
        ("text_config", "num_hidden_layers", -1),
        ("text_config", "num_hidden_layers", 10**7),
        ("text_config", "num_hidden_layers", 1000),
        ("vision_config", "hidden_size", 10**9),
        ("vision_config", "hidden_size", "32"),
        ("vision_config", "patch_size", 0),
    ],
)
def test_checks_refuse_impossible_values(
    folder: Path, section: str | None, key: str, value: Any
) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    place = config if section is None else config[section]
    place[key] = value
    place.pop("head_dim", None)
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(ModelError, match=key):
        check_layers(folder, check_json_files(folder))


@pytest.mark.parametrize("side", [0, -1, 100_000, "24"])
def test_check_json_files_refuses_impossible_picture_sizes(folder: Path, side: Any) -> None:
    path = folder / "processor_config.json"
    content = json.loads(path.read_text("utf-8"))
    content["image_processor"]["crop_size"] = {"height": side, "width": 24}
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ModelError, match=r"processor_config\.json says crop_size\.height"):
        check_json_files(folder)


def test_resolve_refuses_an_adapter(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match=r"an adapter .*merge_and_unload"):
        resolve(folder)
