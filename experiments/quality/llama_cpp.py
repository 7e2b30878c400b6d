"""Exported `mmproj` files in llama.cpp itself; writes the table of docs/deploy.md.

    python -m experiments.quality.llama_cpp --source DIR [--build DIR]

DIR holds llama.cpp's source, such as vendor/llama.cpp of llama-cpp-python's source distribution.
Its library of encoders is compiled with CMake and a C++ compiler, which takes a while, and with it
`llama_cpp_encode.cpp`. Tiny checkpoints with random weights of every family that is exported, made
from the real classes, are exported by `unsee export`; llama.cpp and transformers then encode the
same picture, prepared by the checkpoint's image processor. llama.cpp's graph of CLIP towers puts
the class token last, so LLaVA is also compared with transformers' layers in that order. The figures
are kept beside this file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import numpy as np
import torch
from PIL import Image

from experiments.pages import DOCS, ROOT, replace_section, table
from experiments.tiny.make import make
from unsee.api import export
from unsee.artifacts.mmproj import Dtype
from unsee.models.vlm import VLM
from unsee.records.provenance import describe_this_machine

PROGRAM = Path(__file__).with_name("llama_cpp_encode.cpp")
KEPT = Path(__file__).with_suffix(".json")
PAGE = DOCS / "deploy.md"
TYPES = ("llava", "idefics3", "smolvlm", "gemma3")
# The row of LLaVA as llama.cpp orders its tokens.
CLASS_LAST = "llava, class token last"
SEED = 3


def compile_program(source: Path, build: Path) -> Path:
    """Compiles llama.cpp's encoders and the program, and returns the program.

    Args:
        source: llama.cpp's source.
        build: The folder of what is compiled; what is there already is not compiled again.
    """
    off = ("GGML_NATIVE", "GGML_OPENMP", "LLAMA_CURL", "LLAMA_BUILD_TESTS", "MTMD_VIDEO")
    options = [f"-D{name}=OFF" for name in off] + ["-DLLAMA_BUILD_TOOLS=ON"]
    subprocess.run(["cmake", "-S", source, "-B", build, *options], check=True)
    subprocess.run(["cmake", "--build", build, "--target", "mtmd"], check=True)
    libraries = build / "bin"
    program = build / "encode"
    includes = [f"-I{source / part}" for part in ("tools/mtmd", "ggml/include", "include")]
    linked = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lmtmd", "-lggml", "-lggml-base"]
    words = ["c++", "-std=c++17", "-O1", str(PROGRAM), *includes, *linked, "-o", str(program)]
    subprocess.run(words, check=True)
    return program


def encoded(program: Path, mmproj: Path, pixels: torch.Tensor, work: Path) -> np.ndarray:
    """Returns llama.cpp's features of a picture [values].

    Args:
        program: From `compile_program`.
        mmproj: The exported file.
        pixels: The prepared picture [3, height, width].
        work: A folder for files in between.
    """
    _, height, width = pixels.shape
    values = pixels.permute(1, 2, 0).contiguous().numpy().astype("<f4")
    given, found = work / "pixels.bin", work / "features.bin"
    given.write_bytes(np.array([width, height], "<i4").tobytes() + values.tobytes())
    subprocess.run([program, mmproj, given, found], check=True, stderr=subprocess.DEVNULL)
    return np.frombuffer(found.read_bytes(), "<f4")


@torch.no_grad()
def with_class_token_last(vlm: VLM, pixels: torch.Tensor) -> torch.Tensor:
    """Returns LLaVA's features [tokens, dim] with the class token after those of the picture.

    As in llama.cpp, positions and the tokens that are read stay as if it came first.

    Args:
        vlm: The model.
        pixels: The prepared picture [3, height, width].
    """
    tower = vlm.model.get_submodule("model.vision_tower")
    tower = getattr(tower, "vision_model", tower)
    table = tower.embeddings
    patches = table.patch_embedding(pixels[None]).flatten(2).mT
    hidden = torch.cat([patches, table.class_embedding.expand(1, 1, -1)], 1)
    hidden = tower.pre_layrnorm(hidden + table.position_embedding.weight)
    layers = tower.encoder.layers
    for layer in layers[: len(layers) + 1 + vlm.model.config.vision_feature_layer]:
        hidden = layer(hidden, None)
    features: torch.Tensor = vlm.model.get_submodule("model.multi_modal_projector")(hidden[0, 1:])
    return features


def differences(program: Path, checkpoint: Path, dtype: Dtype, work: Path) -> dict[str, float]:
    """Returns the norm of llama.cpp's features less transformers', over the norm of the latter.

    Args:
        program: From `compile_program`.
        checkpoint: The checkpoint.
        dtype: The dtype of the exported matrices.
        work: A folder for files in between.

    Returns:
        The difference by what is compared: the checkpoint, and LLaVA with its class token last.
    """
    mmproj = work / f"{dtype}.gguf"
    export(checkpoint, mmproj, to="gguf-mmproj", dtype=dtype)
    vlm = VLM.load(checkpoint, dtype="float32")
    side = int(vlm.model.config.vision_config.image_size)
    drawn = np.random.default_rng(SEED).integers(0, 256, (side, side, 3), dtype=np.uint8)
    inputs = vlm.collate_pictures([Image.fromarray(drawn)])
    with torch.no_grad():
        features = vlm.model.get_image_features(**inputs)
    features = getattr(features, "pooler_output", features)
    features = features if isinstance(features, torch.Tensor) else torch.cat(list(features))
    tiles = inputs["pixel_values"].flatten(0, -4)
    wanted = {checkpoint.name: features.reshape(len(tiles), -1)[0]}
    if vlm.model.config.model_type == "llava":
        wanted[CLASS_LAST] = with_class_token_last(vlm, tiles[0]).flatten()
    found = torch.from_numpy(encoded(program, mmproj, tiles[0], work).copy())
    return {name: float((found - goal).norm() / goal.norm()) for name, goal in wanted.items()}


def section(kept: dict[str, Any]) -> str:
    """Returns what the page says."""
    dtypes = get_args(Dtype)
    rows = [
        [name, *(f"{own[dtype]:.1e}" for dtype in dtypes)] for name, own in kept["rows"].items()
    ]
    return f"Machine: {kept['machine']}.\n\n{table(['checkpoint', *dtypes], rows)}"


def main() -> None:
    """Measures with the given source, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="llama.cpp's source.")
    parser.add_argument("--build", type=Path, default=ROOT / "runs" / "llama.cpp")
    options = parser.parse_args()
    program = compile_program(options.source.resolve(), options.build.resolve())
    rows: dict[str, dict[str, float]] = {}
    for name in TYPES:
        with TemporaryDirectory() as folder:
            checkpoint = make(name, Path(folder) / name)
            for dtype in get_args(Dtype):
                found = differences(program, checkpoint, dtype, Path(folder))
                for row, value in found.items():
                    rows.setdefault(row, {})[dtype] = value
    kept = {"machine": describe_this_machine(), "rows": rows}
    KEPT.write_text(json.dumps(kept, indent=1) + "\n", "utf-8")
    replace_section(PAGE, "llama", section(kept))


if __name__ == "__main__":
    main()
