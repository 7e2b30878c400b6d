"""The files beside a checkpoint's weights: which belong to it, and which must not be copied."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from unsee.errors import ModelError
from unsee.files import is_regular

# Formats that may hold weights, and so what was forgotten: never copied.
WEIGHTS = {
    *(".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".onnx", ".h5", ".msgpack"),
    *(".distcp", ".npz", ".npy", ".pkl", ".pickle", ".tflite", ".pdparams", ".keras", ".pb"),
    *(".bak", ".old", ".orig", ".tmp", ".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst"),
    *(".7z", ".rar"),
}

PROCESSOR = (
    "processor_config.json",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
    "image_processor_config.json",
    "chat_template.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "vocab.bpe",
    "merges.txt",
    "*.jinja",
    "*.model",
    "*.tiktoken",
)

CONFIG = ("config.json", "generation_config.json")

DOCUMENTS = (
    *("*.md", "*.py", "readme*", "license*", "licence*", "notice*", "copying*", "use_policy*"),
)

# What transformers reads beside the weights, and what says whose work they are.
COPIED = (*CONFIG, *PROCESSOR, *DOCUMENTS)

LARGE = 10_000_000
MOST = 200_000_000


@dataclass(frozen=True)
class Companions:
    """The files of a checkpoint's folder besides its weights.

    Attributes:
        copied: Files that belong to the checkpoint.
        weights: Weights in other formats, archives and backups.
        unknown: All others, such as logs of the training.
    """

    copied: tuple[Path, ...]
    weights: tuple[Path, ...]
    unknown: tuple[Path, ...]


def companions(folder: Path, used: Iterable[Path]) -> Companions:
    """Sorts the files of a checkpoint's folder; hidden ones are left out.

    Args:
        folder: The checkpoint.
        used: Its weight files, and its index if that is read.

    Raises:
        ModelError: If a file that belongs to the checkpoint is a link to a place outside the
            folder, or is no ordinary file.
    """
    weights_used = set(used)
    copied: list[Path] = []
    weights: list[Path] = []
    unknown: list[Path] = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path in weights_used or any(part.startswith(".") for part in name.parts):
            continue
        if matches(path.name, COPIED) and not path.is_dir():
            refuse_foreign_file(path, folder)
            (copied if path.stat().st_size <= MOST else unknown).append(path)
        elif path.is_file():
            index = path.name.endswith(".index.json")
            kind = weights if index or path.suffix.lower() in WEIGHTS else unknown
            kind.append(path)
    return Companions(tuple(copied), tuple(weights), tuple(unknown))


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a file's name matches one of the patterns, in any case."""
    return any(fnmatch(name.lower(), pattern) for pattern in patterns)


def refuse_foreign_file(path: Path, folder: Path) -> None:
    """Refuses a file beside the weights that is not an ordinary file of the folder.

    Links inside the folder are followed, and those of the Hugging Face cache, whose snapshots are
    links to its folder `blobs`.

    Raises:
        ModelError: If it is a link to another place, a broken link, a pipe or a device.
    """
    refuse_not_regular(path, folder)
    target = Path(os.path.realpath(path))
    root = Path(os.path.realpath(folder))
    places = [root]
    if root.parent.name == "snapshots":
        places.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in places):
        raise ModelError(
            f"model {folder}: {path.name} is a link to a file outside the folder, and is not "
            f"followed. Replace it by the file itself: cp --remove-destination {target} {path}"
        )


def refuse_not_regular(path: Path, folder: Path) -> None:
    """Refuses a path that is no ordinary file, such as a pipe, which would be waited for.

    Raises:
        ModelError: If it is a broken link, a pipe or a device.
    """
    if not is_regular(path):
        raise ModelError(
            f"model {folder}: {path.name} is not an ordinary file (a broken link, a pipe or a "
            "device). Replace it by the file itself."
        )
