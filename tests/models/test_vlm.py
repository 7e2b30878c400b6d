"""Loading checkpoints: errors name the problem and its solution; nothing is unpickled."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

from unsee.errors import ModelError
from unsee.models.vlm import VLM


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "broken"))


@pytest.fixture
def sharded(tiny_folder: Path, tmp_path: Path) -> Path:
    """The tiny checkpoint in many shards, to break."""
    vlm = VLM.load(tiny_folder)
    target = tmp_path / "broken"
    vlm.model.save_pretrained(target, max_shard_size="40KB")
    vlm.processor.save_pretrained(target)
    return target


def message(folder: Path | str, *words: str, ways: tuple[bool, ...] = (False, True)) -> str:
    """The error message of loading, whole and visual only; checks that it contains all words."""
    for visual_only in ways:
        with pytest.raises(ModelError) as caught:
            VLM.load(folder, visual_only=visual_only)
        text = str(caught.value)
        for word in (str(folder), *words):
            assert word in text, (visual_only, text)
    return text


class Trap:
    """Unpickling this creates a file, so that a test can detect it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.path,))


def test_load_visual_only_equals_the_visual_part(tiny_folder: Path, sharded: Path) -> None:
    whole = VLM.load(tiny_folder)
    for source in (tiny_folder, sharded):
        part = VLM.load(source, visual_only=True)
        assert part.hash("visual") == whole.hash("visual")
        assert all(p.is_meta for p in part.parameters("language").values())
        assert VLM.load(source).hash() == whole.hash()


def test_save_then_load_keeps_the_weights(tiny_folder: Path, tmp_path: Path) -> None:
    vlm = VLM.load(tiny_folder)
    vlm.save(tmp_path / "new" / "model")
    assert VLM.load(tmp_path / "new" / "model").hash() == vlm.hash()
    with pytest.raises(ModelError, match="is not empty"):
        vlm.save(tmp_path / "new" / "model")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model"]


def test_save_refuses_a_visual_only_model(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="--save patch.*unsee apply"):
        VLM.load(tiny_folder, visual_only=True).save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["absent", "a/b/c"])
def test_load_refuses_a_missing_folder(tmp_path: Path, name: str) -> None:
    message(tmp_path / name, "no such folder", "Give a checkpoint folder")


def test_load_refuses_an_empty_folder(tmp_path: Path) -> None:
    message(tmp_path, "no config.json", "`save_pretrained` wrote")


def test_load_refuses_a_damaged_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": ')
    message(folder, "config.json cannot be read")


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {}])
def test_load_refuses_an_unknown_family(folder: Path, config: dict[str, str]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"no family takes .*llava.*CONTRIBUTING\.md"):
        VLM.load(folder)


def test_load_never_opens_a_pickle(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump(Trap(tmp_path / "sprung"), file)
    message(folder, "only pickled weights (pytorch_model.bin)", "safe_serialization=True")
    assert not (tmp_path / "sprung").exists()


def test_load_refuses_a_folder_without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    message(folder, "no weights")


@pytest.mark.parametrize("keep", ["nothing", "tokenizer"])
def test_load_refuses_a_missing_processor(folder: Path, keep: str) -> None:
    for path in folder.iterdir():
        tokenizer = path.name.startswith("tokenizer") or path.suffix == ".jinja"
        if path.name not in {"config.json", "model.safetensors"} and not (
            keep == "tokenizer" and tokenizer
        ):
            path.unlink()
    text = message(folder, "processor")
    assert "beside the weights" in text


def test_load_refuses_a_missing_chat_template(folder: Path) -> None:
    for path in folder.glob("*.jinja"):
        path.unlink()
    for path in folder.glob("*.json"):
        raw = json.loads(path.read_text("utf-8"))
        if raw.pop("chat_template", None) is not None:
            path.write_text(json.dumps(raw))
    message(folder, "no chat template. Add one")


def test_load_refuses_a_truncated_file(folder: Path) -> None:
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-100])
    message(folder, "is damaged", "Download it again")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"version https://git-lfs"])
def test_load_refuses_garbage_for_weights(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    message(folder, "is damaged", "Download it again")


def shards(folder: Path) -> list[Path]:
    """The shards in order."""
    return sorted(folder.glob("*.safetensors"))


def test_load_refuses_a_missing_shard(sharded: Path) -> None:
    gone = shards(sharded)[1]
    gone.unlink()
    message(sharded, f"shard {gone.name} is missing", "Download it again")


def test_load_refuses_a_truncated_shard(sharded: Path) -> None:
    cut = shards(sharded)[-1]
    cut.write_bytes(cut.read_bytes()[:-4])
    message(sharded, cut.name, "is damaged", "Download it again")


def index(folder: Path) -> tuple[Path, dict[str, dict[str, str]]]:
    """The index file and its content."""
    path = folder / "model.safetensors.index.json"
    return path, json.loads(path.read_text("utf-8"))


@pytest.mark.parametrize("part", ["vision_tower", "language_model"])
def test_load_refuses_an_index_with_an_absent_tensor(sharded: Path, part: str) -> None:
    path, raw = index(sharded)
    shard = next(file for name, file in raw["weight_map"].items() if part in name)
    raw["weight_map"]["ghost.weight"] = shard
    path.write_text(json.dumps(raw))
    # With visual_only, shards of the language part are not opened.
    ways = (False, True) if part == "vision_tower" else (False,)
    message(sharded, "ghost.weight", shard, "Download the checkpoint again", ways=ways)


def test_load_refuses_an_index_without_a_tensor(sharded: Path) -> None:
    path, raw = index(sharded)
    name = next(n for n in raw["weight_map"] if "projector" in n)
    raw["weight_map"].pop(name)
    path.write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="multi_modal_projector"):
        VLM.load(sharded, visual_only=True)


@pytest.mark.parametrize("text", ["{", "[]", '{"weight_map": 3}', "{}"])
def test_load_refuses_a_damaged_index(sharded: Path, text: str) -> None:
    index(sharded)[0].write_text(text)
    message(sharded, "index.json is damaged", "Download it again")


def test_load_refuses_an_index_outside_the_folder(sharded: Path) -> None:
    path, raw = index(sharded)
    name = next(iter(raw["weight_map"]))
    raw["weight_map"][name] = "../secret.safetensors"
    path.write_text(json.dumps(raw))
    message(sharded, "'../secret.safetensors', which is not in the folder itself")


def test_load_refuses_a_missing_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("multi_modal_projector.linear_1.weight")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="multi_modal_projector.linear_1.weight"):
        VLM.load(folder)
    with pytest.raises(ModelError, match="multi_modal_projector.linear_1.weight"):
        VLM.load(folder, visual_only=True)


def test_load_refuses_a_tensor_of_another_shape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    name = "multi_modal_projector.linear_1.weight"
    tensors[name] = tensors[name][:-1].clone()
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    message(folder, name, "another shape")


def test_load_runs_no_remote_code_by_default(folder: Path, tmp_path: Path) -> None:
    """A checkpoint's own Python code is not run."""
    flag = tmp_path / "ran"
    (folder / "own.py").write_text(
        f"from pathlib import Path\nPath({str(flag)!r}).touch()\n"
        "from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor\n"
        "class OwnConfig(LlavaConfig): pass\n"
        "class Own(LlavaForConditionalGeneration): pass\n"
        "class OwnProcessor(LlavaProcessor): pass\n"
    )
    config = json.loads((folder / "config.json").read_text("utf-8"))
    config["auto_map"] = {
        "AutoConfig": "own.OwnConfig",
        "AutoModelForImageTextToText": "own.Own",
        "AutoProcessor": "own.OwnProcessor",
    }
    (folder / "config.json").write_text(json.dumps(config))
    # With a known model type, it loads as transformers' own class.
    assert type(VLM.load(folder).model).__module__.startswith("transformers.")
    VLM.load(folder, visual_only=True)
    # With an unknown type, it does not load.
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "own"}))
    message_family = "no family takes checkpoints of type 'own'"
    with pytest.raises(ModelError, match=message_family):
        VLM.load(folder)
    assert not flag.exists()


SPARSE = """
import re, sys
from pathlib import Path
import torch
from unsee.models.vlm import VLM
from unsee.artifacts.patch import write_patch

def now(file, name):
    return int(re.search(name + r":\\s+(\\d+)", Path(f"/proc/self/{file}").read_text())[1])

Path("/proc/self/clear_refs").write_text("5")  # restarts the peak
resident, read = now("status", "VmHWM") * 1024, now("io", "rchar")
vlm = VLM.load(sys.argv[1], visual_only=True)
vlm.parameters("projector")["model.multi_modal_projector.linear_1.bias"].data.add_(1)
write_patch(vlm, sys.argv[1], Path(sys.argv[2]))
print(now("status", "VmHWM") * 1024 - resident, now("io", "rchar") - read)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_load_visual_only_never_reads_language_weights(tiny_folder: Path, tmp_path: Path) -> None:
    """A language part of 4 GiB (a sparse file) is neither read nor held in memory."""
    base = tmp_path / "big"
    shutil.copytree(tiny_folder, base)
    old = VLM.load(tiny_folder)
    config = LlavaConfig.from_pretrained(tiny_folder)
    vision, text = config.vision_config, config.text_config
    assert isinstance(vision, CLIPVisionConfig)
    assert isinstance(text, LlamaConfig)
    text.vocab_size = (1 << 29) // text.hidden_size
    config.save_pretrained(base)
    (base / "model.safetensors").unlink()
    shape = [text.vocab_size, text.hidden_size]
    size = 4 * shape[0] * shape[1]
    header: dict[str, object] = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(
            ["language_model.model.embed_tokens.weight", "language_model.lm_head.weight"]
        )
    }
    stop = 2 * size
    for name, parameter in old.parameters("language").items():
        key = old.family.checkpoint_keys(name)[0]
        if key not in header:
            offsets = [stop, stop := stop + 4 * parameter.numel()]
            header[key] = {
                "dtype": "F32",
                "shape": list(parameter.shape),
                "data_offsets": offsets,
            }
    raw = json.dumps(header | {"__metadata__": {"format": "pt"}}).encode()
    raw += b" " * (-len(raw) % 8)
    with (base / "language.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + stop)
    visual = {n.removeprefix("model."): p.detach() for n, p in old.parameters("visual").items()}
    save_file(visual, base / "visual.safetensors", metadata={"format": "pt"})
    weights = dict.fromkeys(header, "language.safetensors") | dict.fromkeys(
        visual, "visual.safetensors"
    )
    (base / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))
    result = subprocess.run(
        [sys.executable, "-c", SPARSE, str(base), str(tmp_path / "patch")],
        check=True,
        capture_output=True,
        text=True,
    )
    resident, read = map(int, result.stdout.split())
    assert resident < 1 << 29, f"{resident:,} bytes of memory"
    assert read < 1 << 28, f"{read:,} bytes read"
    assert (tmp_path / "patch" / "manifest.json").exists()


def test_load_reports_a_hub_id_without_a_network(tmp_path: Path) -> None:
    code = (
        "from unsee.errors import ModelError\nfrom unsee.models.vlm import VLM\n"
        "try:\n    VLM.load('nobody/no-such-model')\n"
        "except ModelError as error:\n    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
    )
    assert "model 'nobody/no-such-model': no such folder, it was not downloaded" in result.stdout
    assert "Type `hf download nobody/no-such-model` where the hub can be" in result.stdout


def test_frozen_copy_keeps_memory_mapped_weights(tiny_folder: Path) -> None:
    vlm = VLM.load(tiny_folder, visual_only=True)
    read = {name: value.data_ptr() for name, value in vlm.parameters("visual").items()}
    teacher = vlm.frozen_visual_copy()
    assert read == {n: value.data_ptr() for n, value in teacher.parameters("visual").items()}
    own = {value.data_ptr() for value in vlm.parameters("visual").values()}
    assert own.isdisjoint(read.values()) and len(own) == len(read)
    assert teacher.hash("visual") == vlm.hash("visual")
    assert not any(value.requires_grad for value in teacher.parameters("visual").values())
