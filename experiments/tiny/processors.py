"""Builds the real processor of a model type: tokenizer, image processor, chat template.

The special tokens are those that the processor class names in its source.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping
from typing import Any

import transformers
from transformers import PretrainedConfig
from transformers.models import auto
from transformers.utils.import_utils import is_torchvision_available

from experiments.tiny.configs import GRID, pinpoints
from experiments.tiny.text import TURNS, template, tokenizer
from experiments.tiny.types import TypeNotes
from unsee.models.processors import pictures_only

LITERAL = re.compile(r"""["'](<[^<>\s"'{}()\\]{1,40}>|\[[A-Z_]{2,}\])["']""")
NAMED = re.compile(r"tokenizer\.(\w+_token)(?:_id)?\b")
GUARDED = re.compile(r"""(?:hasattr|getattr)\((?:self\.)?tokenizer, ["'](\w+_token)(?:_id)?["']""")
# transformers' own tables of classes, by model type.
PROCESSORS: Mapping[str, str] = vars(auto.processing_auto)["PROCESSOR_MAPPING_NAMES"]
IMAGES: Mapping[str, Any] = vars(auto.image_processing_auto)["IMAGE_PROCESSOR_MAPPING_NAMES"]
VIDEOS: Mapping[str, Any] = vars(auto.video_processing_auto)["VIDEO_PROCESSOR_MAPPING_NAMES"]
SOUNDS: Mapping[str, Any] = vars(auto.feature_extraction_auto)["FEATURE_EXTRACTOR_MAPPING_NAMES"]
# What every tokenizer has, or what is no token.
COMMON = frozenset("bos_token eos_token pad_token unk_token add_bos_token add_eos_token".split())
ID_FIELD = re.compile(r"^(?!pad|bos|eos)(\w+?)(?:_token)?_(?:id|index)$")


class NotBuiltError(Exception):
    """A checkpoint cannot be made here; the text says why."""


def processor_class(model_type: str, notes: TypeNotes) -> Any:
    """Returns the processor class of a model type.

    Raises:
        NotBuiltError: If transformers has none, or it needs a package that is not installed.
    """
    name = notes.processor or PROCESSORS.get(model_type)
    if name is None:
        raise NotBuiltError("transformers has no processor of pictures and text for it")
    kind = getattr(transformers, name)
    if getattr(kind, "is_dummy", False):
        raise NotBuiltError(f"its processor needs {' and '.join(kind._backends)}")
    return kind


def make_tokenizer(kind: Any, notes: TypeNotes) -> Any:
    """Returns a tokenizer with the special tokens that a processor class names."""
    source = "\n".join(
        inspect.getsource(sys.modules[base.__module__])
        for base in kind.__mro__
        if base.__module__.startswith("transformers.models.")
    )
    guarded = set(GUARDED.findall(source))
    named = {
        name: f"<|{name.removesuffix('_token')}|>"
        for name in dict.fromkeys(NAMED.findall(source))
        if name not in guarded and name not in COMMON
    }
    literals = list(dict.fromkeys(LITERAL.findall(source)))
    made = tokenizer(*TURNS, *literals, *notes.tokens, eos=TURNS[1], **{**named, **notes.named})
    if notes.unknown:
        made.unk_token = notes.unknown
    return made


def special_ids(config: PretrainedConfig, processor: Any, notes: TypeNotes) -> dict[str, Any]:
    """Returns the ids of special tokens by the field of the configuration that names them.

    A field without a token of the processor gets a token of its own at the vocabulary's end.
    """
    words = processor.tokenizer
    found: dict[str, Any] = {
        "pad_token_id": words.pad_token_id,
        "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id,
    }
    fields = dict.fromkeys(n for n, v in vars(config).items() if v is None or type(v) is int)
    for name in fields:
        matched = ID_FIELD.match(name)
        if matched is None:
            continue
        role = f"{matched[1]}_token"
        text = getattr(processor, role, None) or getattr(words, role, None)
        if text is not None:
            found[name] = words.convert_tokens_to_ids(str(text))
    for name, told in notes.ids.items():
        found[name] = words.convert_tokens_to_ids(told if isinstance(told, str) else list(told))
    if hasattr(config, "vocabulary_map"):
        found["vocabulary_map"] = words.get_added_vocab()
    return found


def image_processor(model_type: str, config: PretrainedConfig, notes: TypeNotes) -> Any:
    """Returns a small image processor of the class that transformers maps to a type.

    Raises:
        NotBuiltError: If there is no class, or it needs torchvision, which is not installed.
    """
    names = IMAGES.get(model_type) or {}
    if notes.images:
        names = {"torchvision": notes.images, "pil": f"{notes.images}Pil"}
    name = names.get("torchvision") if is_torchvision_available() else None
    name = name or names.get("pil")
    if name is None and names:
        raise NotBuiltError("its image processor needs torchvision")
    if name is None:
        raise NotBuiltError("transformers has no image processor for it")
    if not hasattr(transformers, name):
        raise NotBuiltError("its image processor needs torchvision")
    kind = getattr(transformers, name)
    return kind(**image_options(kind().to_dict(), config) | dict(notes.image_options))


def image_options(default: Mapping[str, Any], config: PretrainedConfig) -> dict[str, Any]:
    """Returns small values for the settings of an image processor.

    Args:
        default: All settings with their defaults.
        config: The small configuration of the model.
    """
    patch, side = sizes(config)
    counts_pixels = "merge_size" in default
    square = {"height": side, "width": side}
    chosen: dict[str, Any] = {
        "image_grid_pinpoints": pinpoints(side),
        "crop_size": square,
        "high_res_size": square,
        "pad_size": square,
        "min_pixels": (2 * patch) ** 2,
        "max_pixels": (4 * patch) ** 2,
        "max_image_tiles": getattr(vision_part(config), "max_num_tiles", 2),
        "max_image_size": {"longest_edge": side},
        "max_crops": 2,
        "max_num_tiles": 2,
        "tile_size": side,
        "scale_resolution": side,
        "max_slice_nums": 2,
        "image_size": side,
    }
    tower = vision_part(config)
    chosen |= {
        name: getattr(tower, field)
        for name, field in (("temporal_patch_size",) * 2, ("merge_size", "spatial_merge_size"))
        if isinstance(getattr(tower, field, None), int)
    }
    found = {
        name: value
        for name, value in chosen.items()
        if name in default and isinstance(default[name], type(value))
    }
    if isinstance(default.get("patch_size"), Mapping):
        found["patch_size"] = {"height": patch, "width": patch}
    elif "patch_size" in default:
        found["patch_size"] = patch
    if isinstance(default.get("max_patches"), int):
        found["max_patches"] = 3 if default["max_patches"] < 100 else GRID**2
    size = default.get("size")
    if isinstance(size, Mapping) and size:
        small = dict.fromkeys(size, side)
        if counts_pixels and "longest_edge" in size:
            small = {"shortest_edge": (2 * patch) ** 2, "longest_edge": (4 * patch) ** 2}
        found["size"] = small
    return found


def sizes(config: PretrainedConfig) -> tuple[int, int]:
    """Returns the side of a patch and of a picture, in pixels."""
    tower = vision_part(config)
    patch = getattr(tower, "patch_size", None) or 16
    patch = patch[0] if isinstance(patch, (list, tuple)) else patch
    side = getattr(tower, "image_size", None)
    side = side[0] if isinstance(side, (list, tuple)) else side
    return int(patch), int(side or GRID * patch)


def vision_part(config: PretrainedConfig) -> PretrainedConfig:
    """Returns the configuration of the vision tower; the whole if it has none of its own."""
    return getattr(config, "vision_config", None) or getattr(config, "encoder", None) or config


def build(model_type: str, config: PretrainedConfig, words: Any, notes: TypeNotes) -> Any:
    """Returns the processor of a model type.

    Args:
        model_type: The type.
        config: The model's small configuration.
        words: The tokenizer.
        notes: What the type needs beside the rules.

    Raises:
        NotBuiltError: If a part of the processor needs a package that is missing.
    """
    kind = pictures_only(processor_class(model_type, notes))
    parts = {name: _part(name, model_type, config, words, notes) for name in kind.get_attributes()}
    try:
        made = kind(**parts, **_options(kind, config) | dict(notes.options))
    except (AttributeError, TypeError) as error:
        named = inspect.signature(kind.__init__).parameters
        if "video_processor" in named and not is_torchvision_available():
            raise NotBuiltError("its processor needs torchvision") from error
        raise
    # Processors of types that are no chat models put the picture's tokens before the text.
    token = str(getattr(made, "image_token", None) or "<image>") if notes.chats else ""
    made.chat_template = template(notes.image or token, *TURNS)
    return made


def _part(
    name: str, model_type: str, config: PretrainedConfig, words: Any, notes: TypeNotes
) -> Any:
    """One part of a processor, by the name of its attribute."""
    if name.endswith("tokenizer"):
        return words
    if name == "image_processor":
        return image_processor(model_type, config, notes)
    names, given = SOUNDS, notes.sounds
    options: dict[str, Any] = {}
    if name == "video_processor":
        names, given, options = VIDEOS, notes.videos, dict(notes.video_options)
    found = given or names.get(model_type)
    if isinstance(found, Mapping):
        found = next(iter(found.values()))
    if found is None:
        raise NotBuiltError("transformers has no processor of its videos or sounds")
    return getattr(transformers, found)(**options)


def _options(kind: Any, config: PretrainedConfig) -> dict[str, Any]:
    """The options of a processor that follow from the model's configuration."""
    options = {}
    tower = vision_part(config)
    parameters = inspect.signature(kind.__init__).parameters
    for name in parameters.keys() - {"self", "kwargs", *kind.get_attributes()}:
        value = getattr(config, name, None) or getattr(tower, name, None)
        if value is not None:
            options[name] = value
    if "patch_size" in parameters:
        options["patch_size"] = sizes(config)[0]
    for name in ("image_seq_length", "image_seq_len", "num_image_tokens"):
        if name in parameters:
            options[name] = GRID**2
    if "num_additional_image_tokens" in parameters:
        # CLIP's class token, which the strategy "default" leaves out.
        options["num_additional_image_tokens"] = int("clip_" in tower.model_type)
    return options
