"""Makes a tiny checkpoint with random weights of any type of vision-language model.

    python -m experiments.tiny.make TYPE FOLDER

The types are those that the installed transformers maps to AutoModelForImageTextToText. The
configuration and processor classes are the real ones; see `configs.py` and `processors.py`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForImageTextToText
from transformers.models import auto
from transformers.utils.import_utils import is_torchvision_available

from experiments.tiny.configs import shrink
from experiments.tiny.processors import (
    NotBuiltError,
    build,
    make_tokenizer,
    processor_class,
    special_ids,
)
from experiments.tiny.types import TYPES, TypeNotes

MODEL_TYPES: tuple[str, ...] = tuple(
    vars(auto.modeling_auto)["MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES"]
)
CONFIGS: dict[str, str] = vars(auto.configuration_auto)["CONFIG_MAPPING_NAMES"]


def parts(model_type: str) -> tuple[Any, Any]:
    """Returns the small configuration and processor of a model type.

    Raises:
        NotBuiltError: If transformers lacks a class that is needed, or a package is missing.
    """
    notes = TYPES.get(model_type, TypeNotes())
    words = make_tokenizer(processor_class(model_type, notes), notes)
    kind = getattr(transformers, CONFIGS[model_type])
    ids: dict[str, Any] = {
        "vocabulary_map": words.get_added_vocab(),
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    config = shrink(kind, len(words), notes.config, ids)
    processor = build(model_type, config, words, notes)
    ids = special_ids(config, processor, notes)
    changes = {**notes.config, **{name: ids[name] for name in notes.ids}}
    return shrink(kind, len(words), changes, ids), processor


def make(model_type: str, folder: Path, seed: int = 0) -> Path:
    """Writes the tiny checkpoint of a model type and returns its folder.

    Args:
        model_type: The type, such as "qwen3_vl_moe".
        folder: The folder to write.
        seed: Seed of the weights.

    Raises:
        NotBuiltError: If transformers lacks a class that is needed, or a package is missing.
    """
    torch.manual_seed(seed)
    config, processor = parts(model_type)
    model = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            # What starts at nought (gates, position tables) would hide the picture; norms stay.
            if "norm" not in name and not value.any():
                value.normal_(0, 0.3)
    words = processor.tokenizer
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.pad_token_id = words.pad_token_id
        model.generation_config.eos_token_id = [words.eos_token_id]
    model.eval().save_pretrained(folder)
    try:
        processor.save_pretrained(folder)
    except AttributeError as error:
        if is_torchvision_available():
            raise
        # That of ERNIE 4.5 also writes a file of its video processor.
        raise NotBuiltError("its processor needs torchvision") from error
    return folder


def main() -> None:
    """Makes one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("type", choices=MODEL_TYPES, metavar="TYPE")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    given = parser.parse_args()
    print(make(given.type, given.folder))


if __name__ == "__main__":
    main()
