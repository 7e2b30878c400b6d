"""Tensors of files that transformers rearranges into parameters: read back, and put in a model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from experiments.tiny.make import make
from safetensors.torch import load_file

from unsee.artifacts.patch import apply_in_memory, apply_patch, write_patch
from unsee.artifacts.verify import verify
from unsee.errors import ModelError
from unsee.families.stored_names import Converted
from unsee.models.checkpoint import weight_map
from unsee.models.file_tensors import FileTensors
from unsee.models.vlm import VLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A type whose files hold the attention of the encoder as one matrix."""
    return make("qianfan_ocr", tmp_path_factory.mktemp("stored") / "model")


def test_read_gives_what_the_files_hold(folder: Path) -> None:
    vlm = VLM.load(folder, visual_only=True, check=False)
    visual, files = vlm.parameters("visual"), weight_map(folder)
    found = FileTensors(vlm.family, files, list(visual)).read(visual)
    stored = load_file(folder / "model.safetensors")
    assert any(key.endswith(".qkv.weight") for key in found)
    assert all(torch.equal(tensor, stored[key]) for key, tensor in found.items())
    assert sum(t.numel() for t in found.values()) == sum(p.numel() for p in visual.values())


def test_a_patch_of_a_fused_attention_is_that_of_the_model(folder: Path, tmp_path: Path) -> None:
    """The other numbers of a matrix of which the training changed a part stay as they are."""
    vlm = VLM.load(folder, check=False)
    name = "model.vision_tower.layers.1.attention.k_proj.weight"
    with torch.no_grad():
        vlm.parameters()[name] += 1
    manifest = write_patch(vlm, folder, tmp_path / "patch")
    assert [t.name.rpartition("layers.")[2] for t in manifest.changed] == ["1.attn.qkv.weight"]
    apply_patch(tmp_path / "patch", folder, tmp_path / "new")
    again = VLM.load(folder, check=False)
    apply_in_memory(tmp_path / "patch", again)
    for other in (again, VLM.load(tmp_path / "new", check=False)):
        assert other.hash() == vlm.hash()
    found = verify(folder, tmp_path / "new", probes=0)
    assert found.language_identical
    assert [tensor.part for tensor in found.differing] == ["encoder"]


class Rule:
    """A conversion as transformers writes it; it interleaves two tensors, or doubles them."""

    def __init__(self, factor: int) -> None:
        self.factor, self.given = factor, dict[str, torch.Tensor]()

    def add_tensor(self, target: str, key: str, pattern: str, tensor: torch.Tensor) -> None:
        self.given[key] = tensor

    def convert(self, target: str, **_: object) -> dict[str, torch.Tensor]:
        return {target: torch.stack(list(self.given.values()), 1) * self.factor}


class Model:
    config = None


def test_store_reverses_load_by_hand() -> None:
    group = Converted(("a", "b"), "w", Model(), ("a", "b"), Rule(1))
    stored = group.store({"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, {"a": (2,), "b": (2,)})
    assert {key: t.tolist() for key, t in stored.items()} == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_store_refuses_what_is_computed_and_another_shape() -> None:
    shapes, parameter = {"a": (2,), "b": (2,)}, torch.ones(2, 2)
    with pytest.raises(ModelError, match=r"computes parameter w .*first a.*--save model"):
        Converted(("a", "b"), "w", Model(), ("a", "b"), Rule(2)).store({"w": parameter}, shapes)
    with pytest.raises(ModelError, match=r"w is \[3, 2\] in the model, and \[2, 2\]"):
        Converted(("a", "b"), "w", Model(), ("a", "b"), Rule(1)).store(
            {"w": torch.ones(3, 2)}, shapes
        )
