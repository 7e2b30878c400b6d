"""llama.cpp's `mmproj` file: the visual part of a model in the GGUF format, beside its LLM.

Keys and tensor names are those that llama.cpp reads (tools/mtmd/clip.cpp). Names come from the
table of the `gguf` package, and where that differs, from the family.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from unsee import __version__
from unsee.errors import ModelError, require_extra
from unsee.families import FAMILIES

if TYPE_CHECKING:
    from torch import Tensor

    from unsee.families.mmproj import Mmproj
    from unsee.models.vlm import VLM

Dtype = Literal["f32", "f16", "bf16"]

# llama.cpp's numbers of file types.
FILE_TYPES = {"f32": 0, "f16": 1, "bf16": 32}
PURPOSE = "writing a GGUF file"


@dataclass(frozen=True)
class Placed:
    """A parameter's place in the file.

    Attributes:
        name: The tensor's name.
        dtype: Its dtype: "f32", "f16" or "bf16".
        added: A number to be added to its values.
    """

    name: str
    dtype: Dtype
    added: float = 0.0


def exportable(vlm: VLM) -> Mmproj:
    """The family's description for llama.cpp.

    Raises:
        ModelError: If llama.cpp is not known to read the model.
    """
    spec = vlm.family.mmproj(vlm.model, vlm.processor)
    if spec is None:
        known = [name for name, kind in FAMILIES.items() if "mmproj" in vars(kind)]
        raise ModelError(
            f"no mmproj file is written for {vlm.model.config.model_type} models. Families: "
            f"{', '.join(sorted(known))} (LLaVA 1.5; Idefics3 and SmolVLM; Gemma 3). For others "
            "give the checkpoint that `unsee apply` writes to llama.cpp's own "
            "convert_hf_to_gguf.py --mmproj."
        )
    return spec


def placements(vlm: VLM, spec: Mmproj, dtype: Dtype) -> dict[str, Placed]:
    """The place in the file of every visual parameter that llama.cpp reads.

    Biases, norms and embeddings are stored in 32 bits, as llama.cpp's converter does.

    Args:
        vlm: The model.
        spec: From `exportable`.
        dtype: The dtype of matrices.

    Raises:
        ModelError: If a parameter has no name there.
    """
    import gguf

    table = gguf.get_tensor_name_map(gguf.MODEL_ARCH.MMPROJ, max(spec.layers, 1))
    places: dict[str, Placed] = {}
    for parameter, tensor in vlm.parameters("visual").items():
        # A prefix ends at a dot: layer 1 is not layer 10.
        if f"{parameter}.".startswith(tuple(f"{p.rstrip('.')}." for p in spec.left_out)):
            continue
        names = (spec.names.get(parameter), *(
            table.get_name(key, try_suffixes=(".weight", ".bias"))
            for key in vlm.family.checkpoint_keys(parameter)
        ))  # fmt: skip
        name = next(filter(None, names), None)
        if name is None:
            raise ModelError(f"llama.cpp's names have none for the parameter {parameter}.")
        matrix = tensor.dim() > 1 and ".embeddings." not in parameter
        kind: Dtype = dtype if matrix else "f32"
        if parameter in spec.half:
            kind = "f16"
        places[parameter] = Placed(name, kind, spec.added.get(parameter, 0.0))
    return places


def write_mmproj(vlm: VLM, path: Path, dtype: Dtype, patches: Sequence[str] = ()) -> None:
    """Writes the visual part of a model as a GGUF file that llama.cpp reads as `--mmproj`.

    Args:
        vlm: The model; its visual part is enough.
        path: The file.
        dtype: The dtype of matrices.
        patches: The identities of the patches on it, for the file's key "unsee.patches".

    Raises:
        ConfigError: If the package `gguf` is not installed.
        ModelError: If llama.cpp is not known to read the model, or a value is too large for 16
            bits.
    """
    require_extra("gguf", "export", PURPOSE)
    import gguf

    spec = exportable(vlm)
    writer = gguf.GGUFWriter(path, "clip")
    writer.add_type("mmproj")
    writer.add_name(f"{vlm.family.name} visual part")
    writer.add_description(f"image encoder and projector, written by unsee {__version__}")
    writer.add_file_type(FILE_TYPES[dtype])
    for key, value in (_facts(vlm, spec) | {"unsee.patches": list(patches)}).items():
        _add(writer, key, value)
    parameters = vlm.parameters("visual")
    types = {name: getattr(gguf.GGMLQuantizationType, name.upper()) for name in FILE_TYPES}
    for parameter, place in placements(vlm, spec, dtype).items():
        values = parameters[parameter].detach().to("cpu", torch.float32) + place.added
        largest = torch.finfo(torch.float16).max
        if place.dtype == "f16" and values.abs().max() > largest:
            raise ModelError(
                f"tensor {parameter} has values above {largest:,.0f}, the largest of 16 bits. Type "
                "--dtype f32."
            )
        kind = types[place.dtype]
        data = gguf.quants.quantize(np.ascontiguousarray(values.numpy()), kind)
        writer.add_tensor(place.name, data, raw_dtype=kind)
    with contextlib.closing(writer):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()


def read_mmproj(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The keys and the tensors [float32] of a GGUF file.

    Args:
        path: The file.

    Raises:
        ConfigError: If the package `gguf` is not installed.
    """
    require_extra("gguf", "export", "reading a GGUF file")
    import gguf

    reader = gguf.GGUFReader(path)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    tensors = {
        t.name: torch.from_numpy(gguf.quants.dequantize(t.data, t.tensor_type).copy())
        for t in reader.tensors
    }
    return facts, tensors


def load_mmproj(vlm: VLM, path: Path, dtype: Dtype) -> None:
    """Puts the tensors of a file into a model's visual part; those that it lacks become NaN.

    Args:
        vlm: The model, of the kind that the file was written from; its weights change.
        path: The file.
        dtype: The dtype that it was written in.
    """
    _, tensors = read_mmproj(path)
    places = placements(vlm, exportable(vlm), dtype)
    with torch.no_grad():
        for name, parameter in vlm.parameters("visual").items():
            place = places.get(name)
            if place is None:
                parameter.fill_(torch.nan)
            else:
                parameter.copy_(tensors[place.name] - place.added)


def _facts(vlm: VLM, spec: Mmproj) -> dict[str, Any]:
    """The keys of the file."""
    config, images = vlm.model.config, vlm.processor.image_processor
    tower, vision = config.vision_config, "clip.vision"
    normalised = bool(images.do_normalize)
    return {
        "clip.projector_type": spec.projector,
        "clip.has_vision_encoder": True,
        "clip.has_text_encoder": False,
        "clip.has_llava_projector": True,
        f"{vision}.image_size": int(tower.image_size),
        f"{vision}.patch_size": int(tower.patch_size),
        f"{vision}.embedding_length": int(tower.hidden_size),
        f"{vision}.feed_forward_length": int(tower.intermediate_size),
        f"{vision}.projection_dim": int(config.get_text_config().hidden_size),
        f"{vision}.block_count": spec.layers,
        f"{vision}.attention.head_count": int(tower.num_attention_heads),
        f"{vision}.attention.layer_norm_epsilon": float(tower.layer_norm_eps),
        f"{vision}.image_mean": [float(x) for x in images.image_mean] if normalised else [0.0] * 3,
        f"{vision}.image_std": [float(x) for x in images.image_std] if normalised else [1.0] * 3,
        **spec.facts,
    }


def _add(writer: Any, key: str, value: Any) -> None:
    """Adds a key of the type that its value has; an empty list is left out."""
    if isinstance(value, list):
        if value:
            writer.add_array(key, value)
        return
    kinds: Mapping[type, Any] = {
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        str: writer.add_string,
    }
    kinds[type(value)](key, value)
