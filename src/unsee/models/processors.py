"""Loading the processor of a checkpoint, with torchvision and without."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoProcessor
from transformers import logging as hf_logging
from transformers.models.auto import processing_auto
from transformers.utils.import_utils import is_torchvision_available

from unsee.errors import ModelError, first_line

if TYPE_CHECKING:
    from unsee.families import Family


VIDEO = "video_processor"


VIDEO_FILE, PROCESSOR_FILE = "video_preprocessor_config.json", "processor_config.json"


def open_processor(folder: Path, model_type: str, family: Family, trust_remote_code: bool) -> Any:
    """The processor in a checkpoint folder, checked to be what the family needs.

    Raises:
        ModelError: If it is missing, damaged, lacks a package or a template, or is of another kind.
    """
    try:
        with quiet():
            processor = _load(folder, model_type, trust_remote_code)
    except ImportError as error:
        raise ModelError(
            f"model {folder}: its processor needs a package that is not installed "
            f"({first_line(error)})"
        ) from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"model {folder}: its processor cannot be loaded ({first_line(error)}). The folder "
            "needs the tokenizer and image processor files beside the weights."
        ) from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(
            f"model {folder}: {type(processor).__name__} is no processor of pictures and text. "
            "Put processor_config.json and preprocessor_config.json beside the weights."
        )
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    if family.chats and not template:
        raise ModelError(f"model {folder}: the processor has no chat template. Add one.")
    family.check(processor)
    return processor


def pictures_only(kind: Any, always: bool = False) -> Any:
    """A processor class without its video processor, where that cannot run.

    Video processors need torchvision. We read pictures alone, and for these Pillow is enough, so a
    missing torchvision must not keep a checkpoint from loading. With torchvision the class is
    returned as it is, unless it is `always` to go without.
    """
    parts = inspect.signature(kind.__init__).parameters
    if VIDEO not in parts or (is_torchvision_available() and not always):
        return kind

    def attributes(cls: Any) -> list[str]:
        return [name for name in kind.get_attributes() if name != VIDEO]

    own: dict[str, Any] = {"get_attributes": classmethod(attributes)}
    if parts[VIDEO].default is inspect.Parameter.empty:
        # Transformers reads the arguments off the code, so it must be the very same.
        start = kind.__init__
        first = (None, *(start.__defaults__ or ()))
        own["__init__"] = FunctionType(
            start.__code__, start.__globals__, start.__name__, first, start.__closure__
        )
        # Its chat template asks for a video's frames where there is no video.
        own[VIDEO] = SimpleNamespace(num_frames=None, fps=None)
    # Its name stays, since it is written into the files that are saved.
    return type(kind.__name__, (kind,), own)


def _load(folder: Path, model_type: str, trust_remote_code: bool) -> Any:
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    name = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"].get(model_type)
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if kind is None:
        return AutoProcessor.from_pretrained(folder, **options)
    if pictures_only(kind) is not kind:
        return pictures_only(kind).from_pretrained(folder, **options)
    try:
        return AutoProcessor.from_pretrained(folder, **options)
    except OSError:
        # It may have been saved where no video processor could run.
        bare = pictures_only(kind, always=True)
        if bare is kind:
            raise
        return bare.from_pretrained(folder, **options)


def save_processor(processor: Any, source: Path, folder: Path) -> None:
    """Writes a processor, and what the folder that it came from says of videos.

    Args:
        processor: The processor; where torchvision is missing, it was loaded without that.
        source: Where it came from.
        folder: Where to.
    """
    processor.save_pretrained(folder)
    if VIDEO in getattr(processor, "get_attributes", list)():
        return
    if (source / VIDEO_FILE).is_file():
        shutil.copyfile(source / VIDEO_FILE, folder / VIDEO_FILE)
    before, after = source / PROCESSOR_FILE, folder / PROCESSOR_FILE
    if before.is_file() and after.is_file():
        told = json.loads(before.read_text("utf-8"))
        if VIDEO in told:
            kept = json.loads(after.read_text("utf-8")) | {VIDEO: told[VIDEO]}
            after.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n", "utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' progress bars and advice off the user's terminal."""
    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bar:
            hf_logging.enable_progress_bar()
