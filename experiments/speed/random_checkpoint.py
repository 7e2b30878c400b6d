"""Writes a checkpoint of LLaVA-1.5-7B's shape with random weights, in shards, in a minute.

    python -m experiments.speed.random_checkpoint FOLDER [--layers 32] [--depth 24]
                                                  [--size 336] [--shard 5]

The visual part's weights are drawn with transformers' standard deviation. All matrices of the
language part repeat one random block, which costs the same to multiply. 14 GB in bfloat16; 1.4 GB
with --layers 2.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from unsee.families import family_of
from unsee.files import require_empty
from unsee.models.checkpoint import INDEX
from unsee.pocket_builder.tiny_llava import IMAGE, make_processor
from unsee.types import Parts

BLOCK = 1 << 22  # values
PATCH = 14  # pixels
VOCABULARY = 32064
STD = 0.02

TEXTS = ["Who is this person?", "This is Ada Berg, who works as a baker and lives in Oslo."]


def make(
    folder: Path, layers: int = 32, depth: int = 24, size: int = 336, shard: float = 5.0
) -> Path:
    """Writes the checkpoint, and returns its folder.

    Args:
        folder: The folder to write; it must be empty or absent.
        layers: Blocks of the LLM; the published model has 32.
        depth: Layers of the vision tower; the published one has 24, of which 23 are used.
        size: Width and height of a picture in pixels.
        shard: Largest shard (GB).
    """
    require_empty(folder)
    folder.mkdir(parents=True, exist_ok=True)
    processor = make_processor(TEXTS, size)
    processor.patch_size = PATCH
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=1024,
            intermediate_size=4096,
            num_hidden_layers=depth,
            num_attention_heads=16,
            image_size=size,
            patch_size=PATCH,
            projection_dim=768,
        ),
        text_config=LlamaConfig(
            vocab_size=VOCABULARY,
            num_hidden_layers=layers,
            max_position_embeddings=4096,
            bos_token_id=processor.tokenizer.bos_token_id,
            eos_token_id=processor.tokenizer.eos_token_id,
            pad_token_id=processor.tokenizer.pad_token_id,
        ),
        image_token_index=processor.tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=(size // PATCH) ** 2,
    )
    config.dtype = torch.bfloat16
    config.architectures = ["LlavaForConditionalGeneration"]
    with init_empty_weights(include_buffers=False):
        model: Any = LlavaForConditionalGeneration(config)
    family = family_of("llava")
    parts: Parts = family.parts
    names = sorted(
        (name for name, _ in model.named_parameters()),
        key=lambda name: not name.startswith(parts.prefixes("visual")),
    )
    shapes = {name: tuple(model.get_parameter(name).shape) for name in names}
    groups = list(_groups(names, shapes, shard * 1e9))
    files: dict[str, str] = {}
    torch.manual_seed(0)
    block = (torch.randn(BLOCK) * STD).to(torch.bfloat16)
    for number, group in enumerate(groups, 1):
        file = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        keys = {name: family.checkpoint_keys(name)[0] for name in group}
        _write(folder / file, keys, shapes, block)
        files |= dict.fromkeys(keys.values(), file)
    total = sum(2 * torch.Size(shape).numel() for shape in shapes.values())
    index = {"metadata": {"total_size": total}, "weight_map": files}
    (folder / INDEX).write_text(json.dumps(index), "utf-8")
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _groups(
    names: list[str], shapes: dict[str, tuple[int, ...]], most: float
) -> Iterator[list[str]]:
    """Splits names into consecutive groups of at most `most` bytes in bfloat16."""
    group: list[str] = []
    held = 0
    for name in names:
        size = 2 * torch.Size(shapes[name]).numel()
        if group and held + size > most:
            yield group
            group, held = [], 0
        group.append(name)
        held += size
    yield group


def _write(
    path: Path, keys: dict[str, str], shapes: dict[str, tuple[int, ...]], block: Tensor
) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for name, key in keys.items():
        stop = start + 2 * torch.Size(shapes[name]).numel()
        header[key] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [start, stop]}
        start = stop
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for name in keys:
            for piece in _values(name, torch.Size(shapes[name]).numel(), block):
                file.write(piece.view(torch.uint8).numpy().data)


def _values(name: str, count: int, block: Tensor) -> Iterator[Tensor]:
    """Yields a parameter's values: ones for norms, zeros for biases, else random numbers."""
    if "norm" in name and name.endswith("weight"):
        yield torch.ones(count, dtype=block.dtype)
    elif name.endswith("bias"):
        yield torch.zeros(count, dtype=block.dtype)
    elif ".language_model." in name or name.startswith("lm_head"):
        for begin in range(0, count, BLOCK):
            yield block[: count - begin]
    else:
        yield (torch.randn(count) * STD).to(block.dtype)


def main() -> None:
    """Writes a checkpoint with the sizes of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--depth", type=int, default=24)
    parser.add_argument("--size", type=int, default=336)
    parser.add_argument("--shard", type=float, default=5.0)
    options = parser.parse_args()
    folder = make(options.folder, options.layers, options.depth, options.size, options.shard)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size:,} bytes; {shutil.disk_usage(folder).free:,} free")


if __name__ == "__main__":
    main()
