"""Loads and saves the processor of a checkpoint, with or without torchvision."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import transformers
from transformers import AutoProcessor, AutoTokenizer
from transformers import logging as hf_logging
from transformers.models.auto import processing_auto
from transformers.utils.import_utils import is_torchvision_available

from unsee.errors import ModelError, first_line, shorten
from unsee.families.encoders import Encoder

if TYPE_CHECKING:
    from unsee.families import Family


# A file with the words of a tokenizer, in any of the forms that transformers reads.
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
VIDEO = "video_processor"
TEMPLATE_FILE = "chat_template.jinja"
VIDEO_FILE, PROCESSOR_FILE = "video_preprocessor_config.json", "processor_config.json"


def open_processor(folder: Path, model_type: str, family: Family, trust_remote_code: bool) -> Any:
    """Loads the processor of a checkpoint and checks that the family can use it.

    Args:
        folder: The checkpoint.
        model_type: The `model_type` of its config.json.
        family: The family of the checkpoint.
        trust_remote_code: Allow the checkpoint's own Python code to run.

    Raises:
        ModelError: If the processor is missing or damaged, needs a package that is not installed,
            has no chat template, or does not process pictures and text.
    """
    if isinstance(family, Encoder) and any(family.parts.language):
        _require_tokenizer(folder)
    try:
        with quiet():
            processor = load_processor(folder, model_type, trust_remote_code, family)
    except ImportError as error:
        raise ModelError(
            f"model {folder}: its processor needs a package that is not installed "
            f"({first_line(error)})"
        ) from error
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        # A panic in Rust code of tokenizers is no `Exception`.
        reason = shorten(first_line(error), 300)
        raise ModelError(
            f"model {folder}: its processor cannot be loaded ({reason}). The folder "
            "needs the tokenizer and image processor files beside the weights."
        ) from error
    if not family.answers_questions:
        return processor
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(
            f"model {folder}: {type(processor).__name__} does not process pictures and text. "
            "Put processor_config.json and preprocessor_config.json beside the weights."
        )
    template = getattr(processor, "chat_template", None) or processor.tokenizer.chat_template
    if family.uses_chat_template and not template:
        raise ModelError(f"model {folder}: the processor has no chat template. Add one.")
    family.check_processor(processor)
    try:
        family.answer_end(processor)
    except ModelError as error:
        raise ModelError(f"model {folder}: {error}") from error
    except Exception as error:
        raise ModelError(
            f"model {folder}: its chat template cannot render a question with an answer "
            f"({shorten(first_line(error), 200)}). Take the template of the checkpoint's publisher."
        ) from error
    return processor


def _require_tokenizer(folder: Path) -> None:
    """Refuses a text tower without a tokenizer's file.

    transformers would make a tokenizer without words, which reads all texts alike.

    Raises:
        ModelError: If the folder has none of the files.
    """
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ModelError(
            f"model {folder}: it has a text tower and no tokenizer, so every name would read "
            f"alike. Put the tokenizer's files beside the weights: {VOCABULARIES[0]}, or one of "
            f"{', '.join(VOCABULARIES[1:])}."
        )


def require_image_token(folder: Path, family: Family, processor: Any, config: Any) -> None:
    """Compares the image token that the processor writes with the one that the model replaces.

    Args:
        folder: The checkpoint, for messages.
        family: Its family.
        processor: Its processor.
        config: Its Hugging Face configuration.

    Raises:
        ModelError: If they are not the same.
    """
    written = family.image_token_id(processor)
    replaced = getattr(config, "image_token_id", None)
    if None not in (written, replaced) and written != replaced:
        token = processor.tokenizer.convert_ids_to_tokens(written)
        raise ModelError(
            f"model {folder}: config.json says image_token_id = {replaced}, and the processor "
            f"writes {token}, whose id is {written}. Set it to {written} in config.json, or "
            "download the checkpoint again."
        )


def pictures_only(kind: Any, always: bool = False) -> Any:
    """A processor class without its video processor, if torchvision is not installed.

    Video processors need torchvision; for pictures, Pillow is enough. So a checkpoint whose
    processor also reads videos can be loaded without torchvision.

    Args:
        kind: The processor class; returned unchanged if it has no video processor.
        always: Leave the video processor out even with torchvision.
    """
    parameters = inspect.signature(kind.__init__).parameters
    if VIDEO not in parameters or (is_torchvision_available() and not always):
        return kind

    def without_video(cls: Any) -> list[str]:
        return [name for name in kind.get_attributes() if name != VIDEO]

    attributes_of_class: dict[str, Any] = {"get_attributes": classmethod(without_video)}
    if parameters[VIDEO].default is inspect.Parameter.empty:
        # transformers inspects the code of `__init__`, so only its defaults are changed.
        init = kind.__init__
        defaults = (None, *(init.__defaults__ or ()))
        attributes_of_class["__init__"] = FunctionType(
            init.__code__, init.__globals__, init.__name__, defaults, init.__closure__
        )
        # The chat template reads these even if there is no video.
        attributes_of_class[VIDEO] = SimpleNamespace(num_frames=None, fps=None)
    # The class keeps its name, which is written into saved files.
    return type(kind.__name__, (kind,), attributes_of_class)


@dataclass(frozen=True)
class EncoderProcessor:
    """The image processor of an encoder, and the tokenizer of its text tower if it has one."""

    image_processor: Any
    tokenizer: Any = None

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes both in the Hugging Face layout."""
        for part in (self.image_processor, self.tokenizer):
            if part is not None:
                part.save_pretrained(folder)


def load_processor(
    folder: Path, model_type: str, trust_remote_code: bool, family: Family | None = None
) -> Any:
    """The processor of a checkpoint, unchecked, with the checkpoint's chat template.

    Args:
        folder: The checkpoint.
        model_type: The `model_type` of its config.json.
        trust_remote_code: Allow the checkpoint's own Python code to run.
        family: The family of the checkpoint, if it may be an encoder.
    """
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    if isinstance(family, Encoder):
        images = family.image_processor(folder, **options)
        has_text = any(family.parts.language)
        tokens = AutoTokenizer.from_pretrained(folder, **options) if has_text else None
        return EncoderProcessor(images, tokens)
    processor = _load_processor(folder, model_type, options)
    template = folder / TEMPLATE_FILE
    if getattr(processor, "chat_template", None) is None and template.is_file():
        # The processor classes of some types (BLIP-2, Chameleon) take no template.
        processor.chat_template = template.read_text("utf-8")
    return processor


def _load_processor(folder: Path, model_type: str, options: dict[str, Any]) -> Any:
    """The processor as transformers loads it, without its video part where that cannot run."""
    name = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"].get(model_type)
    if name is None and (folder / PROCESSOR_FILE).is_file():
        name = json.loads((folder / PROCESSOR_FILE).read_text("utf-8")).get("processor_class")
    kind = getattr(transformers, name, None) if isinstance(name, str) else None
    if kind is None:
        return AutoProcessor.from_pretrained(folder, **options)
    if pictures_only(kind) is not kind:
        return pictures_only(kind).from_pretrained(folder, **options)
    try:
        return AutoProcessor.from_pretrained(folder, **options)
    except OSError:
        # It may have been saved without torchvision, and so without its video processor.
        without_video = pictures_only(kind, always=True)
        if without_video is kind:
            raise
        return without_video.from_pretrained(folder, **options)


def save_processor(processor: Any, source: Path, folder: Path) -> None:
    """Writes a processor, including the video configuration of the checkpoint it came from.

    Args:
        processor: The processor; without torchvision, it was loaded without a video processor.
        source: The folder of the checkpoint that it was loaded from.
        folder: The folder to write to.
    """
    processor.save_pretrained(folder)
    if VIDEO in getattr(processor, "get_attributes", list)():
        return
    if (source / VIDEO_FILE).is_file():
        shutil.copyfile(source / VIDEO_FILE, folder / VIDEO_FILE)
    before, after = source / PROCESSOR_FILE, folder / PROCESSOR_FILE
    if before.is_file() and after.is_file():
        original = json.loads(before.read_text("utf-8"))
        if VIDEO in original:
            content = json.loads(after.read_text("utf-8")) | {VIDEO: original[VIDEO]}
            after.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


@contextmanager
def quiet() -> Iterator[None]:
    """Turns off transformers' progress bars and warnings inside the block."""
    level, bar = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.ERROR)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bar:
            hf_logging.enable_progress_bar()
