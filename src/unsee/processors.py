"""Loading the processor of a checkpoint, with torchvision and without."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoProcessor
from transformers.models.auto import processing_auto
from transformers.utils.import_utils import is_torchvision_available


def load_processor(folder: Path, model_type: str, trust_remote_code: bool) -> Any:
    """The processor in a checkpoint folder.

    Raises:
        ImportError: If it needs a package that is not installed.
        OSError: If a file is missing.
        ValueError: If a file cannot be read.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    name = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"].get(model_type)
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if kind is None or pictures_only(kind) is kind:
        return AutoProcessor.from_pretrained(folder, **options)
    return pictures_only(kind).from_pretrained(folder, **options)


def pictures_only(kind: Any) -> Any:
    """A processor class without its video processor, where that cannot run.

    Video processors need torchvision. We read pictures alone, and for these Pillow is enough, so a
    missing torchvision must not keep a checkpoint from loading. With torchvision the class is
    returned as it is.
    """
    parts = inspect.signature(kind.__init__).parameters
    if is_torchvision_available() or "video_processor" not in parts:
        return kind

    def attributes(cls: Any) -> list[str]:
        return [name for name in kind.get_attributes() if name != "video_processor"]

    # Its name stays, since it is written into the files that are saved.
    return type(kind.__name__, (kind,), {"get_attributes": classmethod(attributes)})
