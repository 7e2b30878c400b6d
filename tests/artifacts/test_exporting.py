"""Exports of the visual part: llama.cpp's mmproj file and an ONNX graph, against transformers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers as hf
from PIL import Image
from torch.nn import functional

from support import tiny
from support.cli import unsee
from unsee.artifacts.exporting import LIMITS, export_model
from unsee.artifacts.manifest import patch_id, read_manifest
from unsee.artifacts.mmproj import read_mmproj
from unsee.artifacts.onnx_graph import run_onnx
from unsee.artifacts.patch import apply_patch, write_patch
from unsee.errors import ConfigError, DataError, ModelError
from unsee.models.vlm import VLM

FAMILIES = ("llava", "smolvlm", "idefics3", "gemma3")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("export")
    return {name: tiny.make(name, folder / name) for name in (*FAMILIES, "llava_next")}


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("picture") / "face.png"
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def features(folder: Path, picture: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """The visual inputs of a picture, and what transformers' own model gives to its LLM."""
    vlm = VLM.load(folder, dtype="float32")
    inputs = vlm.collate_pictures([Image.open(picture).convert("RGB")])
    with torch.no_grad():
        found = vlm.model.get_image_features(**inputs)
    found = getattr(found, "pooler_output", found)
    return inputs, found if isinstance(found, torch.Tensor) else torch.stack(list(found))


def tower(kind: str, facts: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Any:
    """A transformers tower made of a GGUF file alone: its keys and its tensors."""
    configs = {
        "mlp": (hf.CLIPVisionConfig, hf.CLIPVisionModel),
        "gemma3": (hf.SiglipVisionConfig, hf.SiglipVisionModel),
        "idefics3": (
            hf.models.idefics3.configuration_idefics3.Idefics3VisionConfig,
            hf.models.idefics3.modeling_idefics3.Idefics3VisionTransformer,
        ),
    }
    config_class, model_class = configs[kind]
    vision, gelu = "clip.vision.", "gelu_pytorch_tanh" if facts["clip.use_gelu"] else "quick_gelu"
    more = {"vision_use_head": False} if kind == "gemma3" else {}
    config = config_class(
        hidden_size=facts[vision + "embedding_length"],
        intermediate_size=facts[vision + "feed_forward_length"],
        num_hidden_layers=facts[vision + "block_count"],
        num_attention_heads=facts[vision + "attention.head_count"],
        image_size=facts[vision + "image_size"], patch_size=facts[vision + "patch_size"],
        layer_norm_eps=facts[vision + "attention.layer_norm_epsilon"], hidden_act=gelu, **more,
    )  # fmt: skip
    model = model_class(config).eval()
    known = {
        "embeddings.class_embedding": "v.class_embd",
        "embeddings.patch_embedding": "v.patch_embd", "pre_layrnorm": "v.pre_ln",
        "embeddings.position_embedding": "v.position_embd", "post_layernorm": "v.post_ln",
    }  # fmt: skip
    parts = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.out_proj": "attn_out", "layer_norm1": "ln1", "layer_norm2": "ln2",
        "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down",
    }  # fmt: skip
    for number in range(config.num_hidden_layers):
        known |= {
            f"encoder.layers.{number}.{part}": f"v.blk.{number}.{name}"
            for part, name in parts.items()
        }
    for name, parameter in model.named_parameters():
        short = name.removeprefix("vision_model.")
        module, _, suffix = short.rpartition(".")
        key = known.get(short) or f"{known[module]}.{suffix}"
        if key in tensors:
            parameter.data.copy_(tensors[key])
        else:
            # llama.cpp does not run LLaVA's last norm.
            assert key.startswith("v.post_ln") and kind == "mlp"
    return model


@torch.no_grad()
def as_llama_cpp(path: Path, pixels: torch.Tensor) -> torch.Tensor:
    """What the file says to a program that knows nothing else, in llama.cpp's order."""
    facts, tensors = read_mmproj(path)
    kind = facts["clip.projector_type"]
    model = tower(kind, facts, tensors)
    if kind == "mlp":
        states = model(pixels, output_hidden_states=True).hidden_states
        hidden = torch.cat([states[i] for i in facts["clip.vision.feature_layer"]], -1)[:, 1:]
        hidden = functional.linear(hidden, tensors["mm.0.weight"], tensors["mm.0.bias"])
        hidden = functional.gelu(hidden)
        return functional.linear(hidden, tensors["mm.2.weight"], tensors["mm.2.bias"])
    hidden = model(pixels).last_hidden_state
    side, scale = int(hidden.shape[1] ** 0.5), facts.get("clip.vision.projector.scale_factor", 4)
    grid = hidden.unflatten(1, (side, side))
    if kind == "gemma3":
        pooled = functional.avg_pool2d(grid.permute(0, 3, 1, 2), scale).flatten(2).mT
        eps = facts["clip.vision.attention.layer_norm_epsilon"]
        normed = pooled * torch.rsqrt(pooled.pow(2).mean(-1, keepdim=True) + eps)
        return normed * tensors["mm.soft_emb_norm.weight"] @ tensors["mm.input_projection.weight"]
    # Neighbouring patches, scale by scale, become one token.
    cells = grid.unflatten(2, (side // scale, scale)).unflatten(1, (side // scale, scale))
    tokens = cells.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(1, 2)
    return functional.linear(tokens, tensors["mm.model.fc.weight"])


@pytest.mark.parametrize("dtype", ["f32", "f16", "bf16"])
@pytest.mark.parametrize("name", FAMILIES)
def test_a_tower_made_of_the_file_alone_gives_the_features_of_transformers(
    checkpoints: dict[str, Path], picture: Path, tmp_path: Path, name: str, dtype: Any
) -> None:
    done = export_model(checkpoints[name], tmp_path / "m.gguf", "gguf-mmproj", (), dtype, picture)
    inputs, expected = features(checkpoints[name], picture)
    pixels = inputs["pixel_values"].flatten(0, -4)
    found = as_llama_cpp(tmp_path / "m.gguf", pixels)
    assert found.shape[-1] == expected.shape[-1]
    found = found.reshape(expected.shape)
    assert float((found - expected).norm() / expected.norm()) < LIMITS[dtype]
    assert done.difference < LIMITS[dtype]
    assert done.tokens == expected.flatten(0, -2).shape[0]
    assert (done.note is not None) == (name == "llava"), "llama.cpp orders LLaVA's tokens otherwise"


@pytest.mark.parametrize("name", FAMILIES)
def test_the_file_has_what_llama_cpp_asks_for(
    checkpoints: dict[str, Path], tmp_path: Path, name: str
) -> None:
    """The names and types that tools/mtmd/clip.cpp requires of these projectors."""
    path = tmp_path / "m.gguf"
    export_model(checkpoints[name], path, "gguf-mmproj")
    facts, tensors = read_mmproj(path)
    assert facts["general.architecture"] == "clip"
    assert facts["general.file_type"] == 1
    kind = {"llava": "mlp", "gemma3": "gemma3"}.get(name, "idefics3")
    assert facts["clip.projector_type"] == kind
    for key in ("image_size", "patch_size", "embedding_length", "projection_dim", "block_count"):
        assert facts[f"clip.vision.{key}"] > 0
    assert len(facts["clip.vision.image_mean"]) == len(facts["clip.vision.image_std"]) == 3
    blocks = {name.split(".")[2] for name in tensors if name.startswith("v.blk.")}
    assert blocks == {str(i) for i in range(facts["clip.vision.block_count"])}
    projector = {
        "mlp": {"mm.0.weight", "mm.0.bias", "mm.2.weight", "mm.2.bias"},
        "gemma3": {"mm.input_projection.weight", "mm.soft_emb_norm.weight"},
        "idefics3": {"mm.model.fc.weight"},
    }[kind]
    assert {name for name in tensors if name.startswith("mm.")} == projector
    # A post_ln would be run on LLaVA's features, which are taken before it.
    assert ("v.post_ln.weight" in tensors) == (kind != "mlp")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(path).tensors}
    for tensor, dtype in types.items():
        matrix = tensors[tensor].dim() > 1 and "embd" not in tensor
        assert dtype == ("F16" if matrix else "F32"), tensor


def test_patches_are_in_the_exported_file(
    checkpoints: dict[str, Path], picture: Path, tmp_path: Path
) -> None:
    base = checkpoints["llava"]
    vlm = VLM.load(base)
    with torch.no_grad():
        for parameter in vlm.parameters("visual").values():
            parameter.mul_(1.1)
    write_patch(vlm, base, tmp_path / "patch")
    identity = patch_id(read_manifest(tmp_path / "patch"))
    apply_patch(tmp_path / "patch", base, tmp_path / "applied")
    inputs, expected = features(tmp_path / "applied", picture)
    for number, options in enumerate(
        ([base, "--patch", tmp_path / "patch"], [tmp_path / "applied"])
    ):
        path = tmp_path / f"{number}.gguf"
        done = unsee(
            *("export", *options, "--to", "gguf-mmproj", "--dtype", "f32", "--out", path),
            *("--picture", picture, "--json"),
        )
        assert done["patches"] == [identity]
        assert read_mmproj(path)[0]["unsee.patches"] == [identity]
        found = as_llama_cpp(path, inputs["pixel_values"])
        assert torch.allclose(found, expected, atol=1e-4)


def test_onnx_gives_the_features_of_transformers(
    checkpoints: dict[str, Path], picture: Path, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    with warnings.catch_warnings():
        # Of the exporter's own imports.
        warnings.simplefilter("ignore")
        done = export_model(checkpoints["llava"], path, "onnx", picture=picture)
    inputs, expected = features(checkpoints["llava"], picture)
    found = run_onnx(path, inputs["pixel_values"])
    assert torch.allclose(found, expected, atol=1e-4)
    assert done.difference < 1e-4
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_export_refuses_what_it_cannot_write(checkpoints: dict[str, Path], tmp_path: Path) -> None:
    llava, file = checkpoints["llava"], tmp_path / "m.gguf"
    with pytest.raises(ModelError, match="Families: gemma3, idefics3, llava"):
        export_model(checkpoints["llava_next"], file, "gguf-mmproj")
    with pytest.raises(ModelError, match="reads pixel_values, pixel_attention_mask"):
        export_model(checkpoints["smolvlm"], tmp_path / "m.onnx", "onnx")
    with pytest.raises(ConfigError, match="Name a .gguf file"):
        export_model(llava, tmp_path / "m.bin", "gguf-mmproj")
    with pytest.raises(ConfigError, match="dtype 'f16' is not allowed for onnx"):
        export_model(llava, tmp_path / "m.onnx", "onnx", dtype="f16")
    with pytest.raises(DataError, match="cannot be read"):
        export_model(llava, file, "gguf-mmproj", picture=tmp_path / "absent.png")
    with pytest.raises(ModelError, match="does not exist"):
        export_model(llava, tmp_path / "absent" / "m.gguf", "gguf-mmproj")
    file.write_bytes(b"mine")
    assert "exists already" in unsee("export", llava, "--to", "gguf-mmproj", "--out", file, code=2)
    assert file.read_bytes() == b"mine"
    assert [p.name for p in tmp_path.iterdir()] == ["m.gguf"]


def test_export_refuses_a_llava_that_llama_cpp_would_run_otherwise(tmp_path: Path) -> None:
    model, processor = tiny.RECIPES["llava"]()
    model.config.vision_feature_select_strategy = "full"
    from unsee.families import family_of

    vlm = VLM(model.eval(), processor, family_of("llava"), tmp_path / "m")
    with pytest.raises(ModelError, match="vision_feature_select_strategy full"):
        vlm.family.mmproj(vlm.model, processor)


def test_weights_too_large_for_16_bits_are_refused(
    checkpoints: dict[str, Path], tmp_path: Path
) -> None:
    vlm = VLM.load(checkpoints["llava"])
    with torch.no_grad():
        vlm.model.model.multi_modal_projector.linear_1.weight[0, 0] = 1e5
    vlm.save(tmp_path / "large")
    with pytest.raises(ModelError, match="values above 65,504"):
        export_model(tmp_path / "large", tmp_path / "m.gguf", "gguf-mmproj")
    export_model(tmp_path / "large", tmp_path / "m.gguf", "gguf-mmproj", dtype="f32")
