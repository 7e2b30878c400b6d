"""Exports the visual part of a model to other programs, and compares the file with transformers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from PIL import Image

from unsee.artifacts.lineage import lineage_of
from unsee.artifacts.manifest import patch_id, range_digest
from unsee.artifacts.mmproj import Dtype, exportable, load_mmproj, write_mmproj
from unsee.artifacts.onnx_graph import INPUT, run_onnx, write_onnx
from unsee.artifacts.patch import apply_in_memory
from unsee.errors import ConfigError, DataError, ModelError, first_line
from unsee.files import atomic_file, path_text, refuse_nested
from unsee.models.checkpoint import read_header, weight_map
from unsee.models.vlm import VLM

if TYPE_CHECKING:
    from torch import Tensor

Format = Literal["gguf-mmproj", "onnx"]
FORMATS: dict[Format, str] = {"gguf-mmproj": ".gguf", "onnx": ".onnx"}
DTYPES: tuple[Dtype, ...] = ("f32", "f16", "bf16")

# Largest difference to transformers' features, over their norm, by the dtype of the file.
LIMITS: dict[Dtype, float] = {"f32": 1e-3, "f16": 1e-2, "bf16": 5e-2}


@dataclass(frozen=True)
class Exported:
    """The result of `export_model`.

    Attributes:
        file: The file that was written.
        bytes: Its size.
        difference: Norm of the difference between the features from the file and those of
            transformers, over the norm of the latter.
        tokens: Number of image tokens that were compared.
        patches: Identities of the patches on the model.
        note: What the program that reads the file is known to do otherwise; None if nothing.
    """

    file: str
    bytes: int
    difference: float
    tokens: int
    patches: tuple[str, ...]
    note: str | None = None


def export_model(
    model: str | Path,
    out: str | Path,
    to: Format,
    patches: Sequence[str | Path] = (),
    dtype: Dtype | None = None,
    picture: str | Path | None = None,
) -> Exported:
    """Writes the visual part of a model in the format of another program.

    The file is read again and run on a picture; it stays only if its features are those of
    transformers within the rounding of its dtype. The language part is not read.

    Args:
        model: Checkpoint folder or hub id.
        out: The file to write.
        to: "gguf-mmproj" (llama.cpp) or "onnx".
        patches: Patches to put on the model, in order.
        dtype: Dtype of the matrices: "f32", "f16" or "bf16"; None is "f16" for GGUF and "f32" for
            ONNX, which takes no other.
        picture: A picture to compare on; None takes one of random pixels.

    Raises:
        ConfigError: If a package is missing, or an argument is not allowed.
        DataError: If the picture cannot be read.
        ModelError: If the model cannot be exported, the file exists already, or its features
            differ.
        PatchError: If a patch does not fit.
    """
    path, kind = _checked(out, to, dtype)
    # Not in a checkpoint's: llama.cpp's users keep the mmproj file beside the weights.
    refuse_nested(path, [("patch", patch) for patch in patches])
    image = _picture(picture)
    vlm = VLM.load(model, visual_only=True, dtype="float32")
    note = exportable(vlm).note if to == "gguf-mmproj" else None
    ids = (*_lineage(vlm), *(patch_id(m) for m in apply_in_memory(patches, vlm)))
    inputs = vlm.collate_pictures([image])
    expected = _features(vlm, inputs)
    with atomic_file(path, concurrent=True) as partial:
        if to == "onnx":
            found = _through_onnx(vlm, partial, inputs, ids)
        else:
            write_mmproj(vlm, partial, kind, ids)
            load_mmproj(vlm, partial, kind)
            found = _features(vlm, inputs)
        difference = float((found - expected).norm() / expected.norm())
        # A NaN is no smaller number either.
        if not difference <= LIMITS[kind]:
            raise ModelError(
                f"the features of {path.name} differ from transformers' by {difference:.2g} of "
                f"their norm, more than {LIMITS[kind]:g} for {kind}; it was not kept. Type another "
                "--dtype, or report it."
            )
    tokens = int(expected.flatten(0, -2).shape[0])
    return Exported(str(path), path.stat().st_size, difference, tokens, ids, note)


def _checked(out: str | Path, to: str, dtype: str | None) -> tuple[Path, Dtype]:
    """The file to write and its dtype.

    Raises:
        ConfigError: If an argument is not allowed.
        ModelError: If the file exists.
    """
    if to not in FORMATS:
        raise ConfigError(f"format '{to}' is not allowed: type --to {' or --to '.join(FORMATS)}.")
    allowed = ("f32",) if to == "onnx" else DTYPES
    kind = dtype or ("f32" if to == "onnx" else "f16")
    if kind not in allowed:
        raise ConfigError(f"dtype '{kind}' is not allowed for {to}: type {', '.join(allowed)}.")
    path = Path(path_text("out=", out, f"name a {FORMATS[to]} file.", ModelError))
    if path.suffix != FORMATS[to]:
        raise ConfigError(f"file {path} has another ending. Name a {FORMATS[to]} file with --out.")
    if path.exists():
        raise ModelError(f"file {path} exists already. Name another with --out, or remove it.")
    if not path.parent.is_dir():
        raise ModelError(f"folder {path.parent} does not exist. Make it, or name another.")
    return path, next(name for name in DTYPES if name == kind)


def _picture(source: str | Path | None) -> Image.Image:
    if source is None:
        pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
        return Image.fromarray(pixels)
    try:
        with Image.open(source) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise DataError(
            f"picture {source} cannot be read ({first_line(error)}). Give a PNG or a JPEG file."
        ) from error


def _lineage(vlm: VLM) -> tuple[str, ...]:
    """Identities of the patches that the checkpoint's lineage lists."""
    files = weight_map(vlm.source)

    def digest(name: str) -> str | None:
        if name not in files:
            return None
        with files[name].open("rb") as file:
            return range_digest(file, read_header(files[name])[name])

    return tuple(step.id for step in lineage_of(vlm.source, digest).steps)


@torch.no_grad()
def _features(vlm: VLM, inputs: dict[str, Tensor]) -> Tensor:
    """The projector's output, which the LLM reads."""
    outputs: list[Tensor] = []
    projector = vlm.model.get_submodule(vlm.family.visual_layers(vlm.model)["projector"])
    handle = projector.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    try:
        vlm.family.visual_forward(vlm.model, inputs)
    finally:
        handle.remove()
    return outputs[-1].clone()


def _through_onnx(
    vlm: VLM, path: Path, inputs: dict[str, Tensor], patches: Sequence[str]
) -> Tensor:
    """The features of a written graph, in the shape of the projector's output.

    Raises:
        ModelError: If the visual part reads more than a plain grid of pixels.
    """
    if set(inputs) != {INPUT} or inputs[INPUT].dim() != 4:
        raise ModelError(
            f"the visual part of {vlm.model.config.model_type} models reads "
            f"{', '.join(inputs)} of tiles or packed patches, and an ONNX graph is written for one "
            "plain picture. Type --to gguf-mmproj, or serve the checkpoint that `unsee apply` "
            "writes."
        )
    write_onnx(vlm, path, inputs[INPUT], patches)
    return run_onnx(path, inputs[INPUT])
