"""What is saved keeps the base's files, and plain transformers opens it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoProcessor

from unsee.errors import ModelError
from unsee.models.checkpoint import INDEX, weight_map
from unsee.models.saving import reopen
from unsee.models.vlm import VLM


@pytest.fixture
def base(tiny_folder: Path, tmp_path: Path) -> Path:
    """A base as an older transformers wrote it: other tensor names and settings."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["torch_dtype"] = config.pop("dtype", "float32")
    config["transformers_version"] = "4.57.1"
    (folder / "config.json").write_text(json.dumps(config, indent=7), "utf-8")
    for name in ("processor_config.json", "tokenizer_config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text("utf-8"))
        (folder / name).write_text(json.dumps(content | {"of_older_versions": 1}), "utf-8")
    tensors = load_file(folder / "model.safetensors")
    old = {
        name.replace("vision_tower.", "vision_tower.vision_model.")
        if "vision_model" not in name
        else name: tensor
        for name, tensor in tensors.items()
    }
    # Older versions stored position ids, which are no parameters.
    old["vision_tower.vision_model.embeddings.position_ids"] = torch.arange(5)[None]
    save_file(old, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def changed(folder: Path, **options: object) -> VLM:
    """A model whose projector has changed."""
    vlm = VLM.load(folder, **options)  # type: ignore[arg-type]
    for parameter in vlm.parameters("projector").values():
        parameter.data.add_(0.5)
    return vlm


def shapes(folder: Path) -> dict[str, tuple[str, list[int]]]:
    """File and shape of every tensor."""
    found = {}
    for key, path in weight_map(folder).items():
        with safe_open(path, "pt") as file:
            found[key] = (path.name, file.get_slice(key).get_shape())
    return found


def test_save_keeps_every_file_of_the_base_but_the_weights(base: Path, tmp_path: Path) -> None:
    vlm = changed(base)
    vlm.save(tmp_path / "saved")
    names = {path.name for path in base.iterdir()}
    assert {path.name for path in (tmp_path / "saved").iterdir()} == names
    for name in names - {"model.safetensors"}:
        assert (tmp_path / "saved" / name).read_bytes() == (base / name).read_bytes(), name
    assert shapes(tmp_path / "saved") == shapes(base)
    old, new = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "saved"))
    differing = {name for name in old if not torch.equal(old[name], new[name])}
    assert differing and all("projector" in name for name in differing)
    assert VLM.load(tmp_path / "saved").hash() == vlm.hash()


def test_saved_model_is_opened_by_transformers_alone(base: Path, tmp_path: Path) -> None:
    vlm = changed(base)
    vlm.save(tmp_path / "saved")
    model, info = AutoModelForImageTextToText.from_pretrained(
        tmp_path / "saved", output_loading_info=True
    )
    assert not info["missing_keys"] and not info["mismatched_keys"]
    assert type(AutoProcessor.from_pretrained(tmp_path / "saved")) is type(vlm.processor)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, vlm.model.get_parameter(name)), name


def test_save_keeps_the_shards_of_the_base(base: Path, tmp_path: Path) -> None:
    VLM.load(base).model.save_pretrained(tmp_path / "sharded", max_shard_size="150KB")
    for path in base.iterdir():
        if not (tmp_path / "sharded" / path.name).exists() and path.suffix != ".safetensors":
            shutil.copyfile(path, tmp_path / "sharded" / path.name)
    vlm = changed(tmp_path / "sharded")
    vlm.save(tmp_path / "saved")
    assert (tmp_path / "saved" / INDEX).exists()
    assert shapes(tmp_path / "saved") == shapes(tmp_path / "sharded")
    assert VLM.load(tmp_path / "saved").hash() == vlm.hash()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_config_names_the_dtype_of_the_weights(
    base: Path, tmp_path: Path, dtype: torch.dtype
) -> None:
    vlm = changed(base, dtype=dtype)
    vlm.save(tmp_path / "saved")
    again = VLM.load(tmp_path / "saved")
    assert again.model.dtype == dtype
    assert again.hash() == vlm.hash()
    before, after = (
        json.loads((folder / "config.json").read_text("utf-8")) for folder in (base, again.source)
    )
    assert set(before) == set(after)


def test_save_writes_weights_that_share_memory_once_a_name(base: Path, tmp_path: Path) -> None:
    """A base whose file holds the head beside the embeddings that it shares."""
    vlm = VLM.load(base)
    tensors = load_file(base / "model.safetensors")
    (embeddings,) = (n for n in tensors if n.endswith("embed_tokens.weight"))
    tensors["language_model.lm_head.weight"] = tensors[embeddings].clone()
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    vlm = VLM.load(base)
    vlm.model.get_input_embeddings().weight.data.add_(0.5)
    vlm.save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert torch.equal(saved["language_model.lm_head.weight"], saved[embeddings])
    assert VLM.load(tmp_path / "saved").hash() == vlm.hash()


@pytest.mark.parametrize("damage", ["tensor", "tokenizer", "shape"])
def test_reopen_refuses_what_transformers_cannot_load(base: Path, damage: str) -> None:
    tensors = load_file(base / "model.safetensors")
    name = next(n for n in sorted(tensors) if "projector" in n)
    if damage == "tensor":
        del tensors[name]
    elif damage == "shape":
        tensors[name] = tensors[name][:1].clone()
    else:
        (base / "tokenizer.json").write_text("{}", "utf-8")
    save_file(tensors, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"was not saved: transformers cannot open"):
        reopen(base)


def test_save_leaves_nothing_if_what_was_written_cannot_be_opened(
    base: Path, tmp_path: Path
) -> None:
    vlm = changed(base)
    (base / "tokenizer.json").write_text("{}", "utf-8")
    with pytest.raises(ModelError, match="was not saved"):
        vlm.save(tmp_path / "out" / "saved")
    assert not (tmp_path / "out").exists()
